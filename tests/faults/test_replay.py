"""Requests that meet an engine's death before they got anything of an answer: scenarios 3, 4 and 38, and S22."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator

import pytest

from orchestrator.engines.known.model import known_model
from tests.faults.lab import QUICK, Lab, read_answer
from tests.support import Home, new_home, until

FOUR = "[context]\nparallel = 4\n"
BOTH = pytest.mark.parametrize("dialect", ["upstream", "fork"])


def replayed(lab: Lab) -> int:
    found = re.search(rb"^orch_requests_replayed_total (\d+)\.0$", lab.request("GET", "/metrics", url=lab.url)[2], re.M)
    assert found is not None
    return int(found[1])


# 3. Once more, and only once.


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_death_before_the_first_byte_is_not_seen_by_the_client(lab: Lab, dialect: str, stream: bool) -> None:
    lab.replayed.add("r")
    lab.run("m", faults=[{"die_at": "first-byte", "signal": "SEGV"}, {}], dialect=dialect)
    lab.ask("r", stream=stream).check_complete(8)
    assert [row["id"] for row in lab.requests("m", "accepted")] == ["r", "r"]
    assert replayed(lab) == 1


def test_a_request_is_never_sent_a_third_time(lab: Lab) -> None:
    lab.replayed.update({"r", "beside"})
    lab.run("m", faults=[{"poison": "POISON", "signal": "ABRT"}] * 2 + [{}], more=FOUR)
    answer = lab.ask("r", prompt="POISON")
    assert (answer.status, answer.headers.get("x-should-retry")) == (502, "false"), answer.body
    assert len(lab.requests("m", "accepted")) == 2
    assert "crashed" in answer.json["error"]["message"]


def test_a_body_above_the_limit_is_not_sent_again(lab: Lab) -> None:
    lab.configure("[gateway]\nreplay_max_mib = 1\n" + QUICK)
    lab.run("m", faults=[{"die_at": "first-byte", "signal": "SEGV"}, {}])
    answer = lab.ask("r", prompt="x" * (1 << 20))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) <= 120
    assert answer.json["error"]["code"] == "not_replayed"
    assert replayed(lab) == 0


def test_a_request_that_comes_back_keeps_its_place_in_the_queue(lab: Lab) -> None:
    lab.replayed.add("first")
    faults = {"die_at": "first-byte", "signal": "SEGV", "prompt_s": 0.3}
    lab.run("m", faults=[faults, {"load_s": 0.5}])
    first = lab.begin_asking("first")
    until(lambda: lab.requests("m", "accepted"), "it is being answered")
    until(lambda: lab.status()["state"] != "ready", "the engine died")
    later = [lab.begin_asking(f"later-{index}") for index in range(4)]
    for request in (first, *later):
        request.result().check_complete(8)

    assert [row["id"] for row in lab.requests("m", "accepted")][1] == "first"


def test_a_stream_that_waits_for_the_next_engine_is_told_so(lab: Lab) -> None:
    lab.replayed.add("r")
    lab.run("m", faults=[{"die_at": "first-byte", "signal": "SEGV"}, {"load_s": 2.0}])
    answer = lab.ask("r", stream=True)
    assert answer.body.startswith(b": orch: ")
    answer.check_complete(8)


def test_memory_that_runs_out_while_serving_climbs_the_ladder_and_loses_no_request(lab: Lab) -> None:
    lab.replayed.add("r")
    more = "[memory]\nfit = true\nfit_margin = 512\n[recovery]\nmargins = [512, 1024]\n"
    lab.run("m", faults=[{"oom_at_request": 2}, {}], more=more)
    lab.ask("r").check_complete(8)
    attempts = lab.ready("m")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["device_oom", "ready"]
    assert [attempt["margin_mib"] for attempt in attempts] == [512, 1024]


def test_a_stream_that_has_begun_is_not_begun_anew(lab: Lab) -> None:
    lab.run("m", faults=[{"die_at": "mid-stream", "after": 3, "signal": "SEGV"}, {}])
    answer = lab.ask("r", 50, stream=True)
    assert "error" in answer.events[-1]
    assert not any(event.get("stop") for event in answer.events)
    assert replayed(lab) == 0


# 4. The request that kills each engine.


@BOTH
def test_a_request_that_kills_each_engine_is_refused_and_the_others_are_served(lab: Lab, dialect: str) -> None:
    names = [f"bystander-{index}" for index in range(3)]
    lab.replayed.update({"poison", *names})
    lab.run("m", faults={"poison": "POISON", "signal": "ABRT", "tokens_s": 100}, more=FOUR, dialect=dialect)
    bystanders = [lab.begin_asking(name, 60, prompt=name) for name in names]
    until(lambda: len(lab.requests("m", "accepted")) == 3, "the bystanders are being answered")
    poison = lab.begin_asking("poison", prompt="POISON")
    until(lambda: len(lab.starts("m")) == 2, "the first death")
    late = lab.begin_asking("late", 60)
    answer = poison.result()
    assert (answer.status, answer.headers.get("x-should-retry")) == (502, "false"), answer.body
    assert answer.json["error"]["code"] == "request_quarantined"
    for bystander in (*bystanders, late):
        bystander.result().check_complete(60)

    assert lab.ask("again", prompt="POISON").status == 502
    assert len(lab.starts("m")) == 3
    assert lab.ready("m")


def test_what_one_key_sent_is_not_refused_to_another(lab: Lab) -> None:
    keys = lab.write("keys", "first-key\nsecond-key\n")
    lab.configure(f'[gateway]\napi_key_file = "{keys}"\n' + QUICK)
    lab.run("m", faults=[{"poison": "POISON", "signal": "ABRT"}] * 2 + [{}])

    def ask(key: str) -> int:
        body = {"prompt": "POISON", "n_predict": 4}
        return lab.request("POST", "/completion", body, headers={"authorization": f"Bearer {key}"}, url=lab.url)[0]

    assert ask("first-key") == 502
    assert ask("second-key") == 200
    assert ask("first-key") == 502


def test_a_refusal_ends_after_its_time(lab: Lab) -> None:
    lab.configure("[gateway]\nquarantine_s = 2\n" + QUICK)
    lab.run("m", faults=[{"poison": "POISON", "signal": "ABRT"}] * 2 + [{}])
    lab.replayed.add("r")
    assert lab.ask("r", prompt="POISON").status == 502
    lab.replayed.update(f"again {index}" for index in range(400))
    tries = iter(range(400))
    until(lambda: lab.ask(f"again-{next(tries)}", prompt="POISON").status == 200, "it is let through again", 10)


def test_a_stream_that_is_refused_says_so_in_its_own_dialect(lab: Lab) -> None:
    lab.replayed.add("s")
    lab.run(
        "m", faults=[{"poison": "POISON", "signal": "ABRT"}, {"poison": "POISON", "signal": "ABRT", "load_s": 2}, {}]
    )
    body = {"max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "POISON"}]}
    with lab.open("s", body, "/v1/messages") as response:
        answer = read_answer(response)

    event = answer.body.split(b"event: error\ndata: ")[1]
    assert json.loads(event)["type"] == "error"
    assert b"message_stop" not in answer.body


# The same with a real engine.


@pytest.fixture
def real() -> Iterator[Home]:
    """A daemon that looks often, with the demo on the embedded engine."""
    with new_home() as home:
        home.write("config/orch.toml", "[daemon]\nprobe_s = 0.3\n\n[restart]\nfirst_delay_s = 0.1\n")
        home.demo_on_one_thread()
        home.serve("demo")
        home.ready("demo")
        yield home


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP], ids=["crash", "stop"])
def test_a_real_engine_that_ends_under_a_request_loses_nothing_of_it(real: Home, number: signal.Signals) -> None:
    url, pid = real.url, real.status()["pid"]
    answers: list[bytes] = []
    body = {"prompt": "A supervisor", "n_predict": 1500, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
    asking = threading.Thread(target=lambda: answers.append(real.request("POST", "/completion", body, url=url)[2]))
    asking.start()
    until(lambda: real.status()["gateway"]["in_flight"], "it is being answered")
    os.kill(pid, number)
    asking.join()
    answer = json.loads(answers[0])
    assert answer["tokens_predicted"] == 1500
    assert answer["content"] == known_model(stops=True).greedy_text("A supervisor", 1500, ignore_eos=True)
    assert real.status()["pid"] != pid
    assert b"orch_requests_replayed_total 1.0\n" in real.request("GET", "/metrics", url=url)[2]
