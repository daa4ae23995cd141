"""Several models behind one address: what happens to one is nothing to the clients of another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from tests.faults.lab import Asking, Lab
from tests.support import until

FOUR = "[context]\nparallel = 4\n"


def statuses(lab: Lab) -> dict[str, str]:
    listed = httpx.get(f"{lab.url}/v1/models").json()["data"]
    return {each["id"]: each["status"]["value"] for each in listed}


def running(lab: Lab) -> dict[str, str]:
    return {each["model"]: each["state"] for each in httpx.get(f"{lab.url}/running").json()["running"]}


def ask_all(lab: Lab, names: Sequence[str], count: int) -> list[Asking]:
    return [
        lab.begin_asking(f"{names[index % len(names)]}-{index}", stream=index % 2 == 0, model=names[index % len(names)])
        for index in range(count)
    ]


def most_at_once(lab: Lab, requests: Sequence[Asking]) -> dict[str, int]:
    """The most requests that each model's engine had at a time, looked at until all have ended."""
    found: dict[str, int] = {}
    while not all(request.done for request in requests):
        rows = httpx.get(f"{lab.url}/v1/requests").json()["requests"]
        now = Counter(row["profile"] for row in rows if row["state"] in ("sent", "answering"))
        found |= {name: max(count, found.get(name, 0)) for name, count in now.items()}

    for request in requests:
        request.result().check_complete(8)

    return found


def test_all_that_ask_for_three_models_at_once_are_served_with_one_load_of_each(lab: Lab) -> None:
    names = ("a", "b", "c")
    for name in names:
        lab.model(name, {"load_s": 0.5}, more=FOUR)

    lab.serve("a")
    for request in ask_all(lab, names, 90):
        request.result().check_complete(8)

    assert [len(lab.starts(name)) for name in names] == [1, 1, 1]
    assert running(lab) == dict.fromkeys(names, "ready")
    for name in names:
        assert len(lab.requests(name, "accepted")) == 30


def test_one_is_given_so_many_requests_at_a_time_as_its_profile_says_and_another_all(lab: Lab) -> None:
    slow = {"prompt_s": 0.1}
    lab.model("few", slow, more=FOUR + "[residency]\nmax_in_flight = 2\n")
    lab.model("any", slow, more=FOUR)
    lab.serve("few")
    lab.ready("few")
    lab.ask("first", model="any")
    found = most_at_once(lab, ask_all(lab, ("few", "any"), 40))
    assert found["few"] == 2
    assert found["any"] > 2
    # A changed number holds from the next reload on, for the engine that runs.
    lab.model("few", slow, more=FOUR + "[residency]\nmax_in_flight = 1\n")
    lab.control("/v1/reload", {})
    assert most_at_once(lab, [lab.begin_asking(f"later-{index}", model="few") for index in range(8)]) == {"few": 1}
    assert len(lab.starts("few")) == 1


def test_one_that_dies_or_cannot_start_is_nothing_to_the_streams_and_requests_of_another(lab: Lab) -> None:
    lab.model("a", {"tokens_s": 20.0}, more=FOUR)
    lab.model("b", {"load_s": 0.3}, more=FOUR)
    lab.model("broken", {"die_at": "load", "say": ["error: invalid argument: --nonsense"]})
    lab.serve("a")
    lab.ready("a")
    stream = lab.begin_asking("stream", 60, stream=True, model="a")
    lab.ask("first", model="b").check_complete(8)
    refused = lab.ask("broken", model="broken")
    assert (refused.status, refused.json["error"]["code"]) == (424, "load_failed")
    for number in range(2):
        os.kill(lab.starts("b")[-1]["pid"], signal.SIGKILL)
        lab.ask(f"again-{number}", model="b").check_complete(8)

    lab.ask("unnamed", 4).check_complete(4)
    stream.result().check_complete(60)
    assert [len(lab.starts(name)) for name in ("a", "b")] == [1, 3]
    found = statuses(lab)
    assert [found[name] for name in ("a", "b", "broken")] == ["loaded", "loaded", "unloaded"]


def test_one_that_was_unloaded_says_so_and_is_loaded_again_by_a_request_and_by_no_look(lab: Lab) -> None:
    lab.model("a")
    lab.model("b", more="[residency]\nidle_unload_s = 600.0\n")
    lab.serve("a")
    lab.ready("a")
    lab.ask("first", model="b").check_complete(8)
    limits = {each["model"]: each["ttl"] for each in httpx.get(f"{lab.url}/running").json()["running"]}
    assert limits == {"a": 0, "b": 600}
    lab.control("/v1/unload", {"profile": "b"})
    until(lambda: running(lab) == {"a": "ready"}, "b is unloaded")
    one = httpx.get(f"{lab.url}/v1/models/b").json()["status"]
    assert (one["value"], one["detail"].split()[0]) == ("unloaded", "idle")
    for page in ("/props?model=b", "/slots?model=b", "/upstream/b/health"):
        assert httpx.get(f"{lab.url}{page}").status_code in (200, 503)

    assert running(lab) == {"a": "ready"}
    lab.ask("again", model="b").check_complete(8)
    assert (len(lab.starts("a")), len(lab.starts("b"))) == (1, 2)


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_of_one_to_another_engine_is_nothing_to_the_streams_of_the_others(lab: Lab, strategy: str) -> None:
    for name in ("a", "b", "c"):
        lab.model(name, {"tokens_s": 30.0} if name != "b" else {"load_s": 0.5}, more=FOUR)

    lab.serve("a")
    lab.ready("a")
    for name in ("b", "c"):
        lab.ask(f"first {name}", model=name).check_complete(8)

    streams = [lab.begin_asking(f"stream {name}", 90, stream=True, model=name) for name in ("a", "c", "a", "c")]
    body = {"target": "b@fake-fork", "strategy": strategy, "keep": True}
    operation = lab.control("/v1/switch", body)["operation"]
    asked: list[Asking] = []
    while (result := lab.control(f"/v1/switch?operation={operation}&wait_s=0"))["result"] is None:
        asked.append(lab.begin_asking(f"b {len(asked)}", model="b", stream=len(asked) % 2 == 0))
        asked[-1].result()

    assert result["result"]["ok"], result
    for request in (*asked, *streams):
        request.result().check_complete(request.tokens)

    assert lab.status()["profile"] == "b"
    assert [len(lab.starts(name)) for name in ("a", "b", "c")] == [1, 2, 1]
    assert running(lab) == dict.fromkeys(("a", "b", "c"), "ready")
    lab.ask("unnamed").check_complete(8)
    assert [row["id"] for row in lab.requests("b", "accepted")][-1] == "unnamed"
