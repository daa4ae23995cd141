"""Switching on the embedded engine: by command, by a client's request, under load, and when the target fails."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from orchestrator.engines.known.model import known_model
from tests.support import Home, new_home

PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
aliases = ["{alias}"]
[context]
size = {size}
parallel = 4
[cpu]
threads = 1
threads_batch = 1
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        home.profile("one", PROFILE.format(alias="first", size=4096))
        home.profile("two", PROFILE.format(alias="second", size=8192))
        home.write("config/orch.toml", '[gateway]\nswitch_min_stay_s = 0\n[residency]\npolicy = "one"\n')
        home.serve("one")
        home.ready("one")
        yield home


def fresh(home: Home, profile: str) -> None:
    home.orch("switch", profile)
    assert home.status()["profile"] == profile


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_answers_the_contract(home: Home, strategy: str) -> None:
    fresh(home, "one")
    result = home.orch_json("switch", "two", "--strategy", strategy)
    assert result["ok"] and not result["rolled_back"] and result["cause"] is None
    assert result["from"] == {"profile": "one", "engine": "embedded"}
    assert result["to"] == {"profile": "two", "engine": "embedded"}
    assert (result["gap_s"] == 0) == (strategy == "beside")
    assert home.status()["profile"] == "two"


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_streams_and_requests_survive_switches(home: Home, strategy: str) -> None:
    """Streams end whole on the engine they began on; short requests never fail."""
    fresh(home, "one")
    url = home.url
    expected = known_model(stops=True).greedy_text("A supervisor", 400, ignore_eos=True)
    stop = threading.Event()
    failures: list[object] = []
    counts = {"streams": 0, "short": 0}

    def stream() -> None:
        body = {"prompt": "A supervisor", "n_predict": 400, "temperature": 0, "stream": True, "ignore_eos": True}
        while not stop.is_set():
            status, _, answer = home.request("POST", "/completion", body, url=url)
            events = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: {")]
            text = "".join(event.get("content", "") for event in events)
            if status != 200 or text != expected or not events[-1].get("stop"):
                failures.append((status, text[-80:], answer[-200:]))

            counts["streams"] += 1

    def short() -> None:
        body = {"prompt": "A supervisor", "n_predict": 4, "temperature": 0, "cache_prompt": False}
        wanted = known_model(stops=True).greedy_text("A supervisor", 4)
        while not stop.is_set():
            status, _, answer = home.request("POST", "/completion", body, url=url)
            if status != 200 or json.loads(answer)["content"] != wanted:
                failures.append((status, answer[:200]))

            counts["short"] += 1

    workers = [threading.Thread(target=stream) for _ in range(4)] + [threading.Thread(target=short) for _ in range(8)]
    for worker in workers:
        worker.start()

    try:
        for number in range(4):
            result = home.orch_json("switch", ("two", "one")[number % 2], "--strategy", strategy)
            assert result["ok"], result
    finally:
        stop.set()
        for worker in workers:
            worker.join()

    assert failures == []
    assert counts["streams"] >= 4 and counts["short"] >= 8


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_target_that_does_not_start_is_rolled_back(home: Home, strategy: str) -> None:
    fresh(home, "one")
    # Only the engine itself finds out that its template is not there.
    home.profile("late", PROFILE.format(alias="late", size=4096) + '[chat]\ntemplate_file = "gone.jinja"\n')
    done = home.orch("switch", "late", "--strategy", strategy, "--json", check=False)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert not result["ok"] and result["rolled_back"] and result["cause"]
    assert "rolled back" in done.stderr
    assert home.status()["profile"] == "one" and home.status()["state"] == "ready"
    assert home.complete("A supervisor", 4)["content"] == known_model(stops=True).greedy_text("A supervisor", 4)


def test_a_mistake_in_the_target_disturbs_nothing(home: Home) -> None:
    fresh(home, "one")
    pid = home.status()["pid"]
    for target, words in (("on", "one"), ("one@nowhere", "nowhere"), ("one@upstream", "upstream")):
        done = home.orch("switch", target, check=False)
        assert done.returncode in (1, 2) and words in done.stderr, (target, done.stderr)

    assert home.status()["pid"] == pid


def test_a_dry_run_shows_the_difference_and_does_nothing(home: Home) -> None:
    fresh(home, "one")
    pid = home.status()["pid"]
    text = home.orch("switch", "two", "--dry-run").stdout
    assert "- --ctx-size 4096" in text and "+ --ctx-size 8192" in text
    assert home.status()["pid"] == pid


def test_a_client_that_names_another_profile_gets_it(home: Home) -> None:
    fresh(home, "one")
    body = {"model": "second", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    began = monotonic()
    status, _, answer = home.request("POST", "/v1/chat/completions", body)
    took_s = monotonic() - began
    assert status == 200, answer
    assert home.status()["profile"] == "two"
    told = home.orch("events", "-n", "20").stdout
    waited_s = float(re.findall(r"switched to two@embedded, requests waited (\d+\.\d+) s", told)[-1])
    assert 0.1 < waited_s < took_s


def test_alternating_clients_do_not_thrash(home: Home) -> None:
    fresh(home, "one")
    url = home.url
    statuses: list[int] = []
    before = len(home.orch("events", "-n", "1000").stdout.splitlines())

    def ask(name: str) -> None:
        body = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
        statuses.append(home.request("POST", "/v1/chat/completions", body, url=url)[0])

    workers = [threading.Thread(target=ask, args=(("first", "second")[number % 2],)) for number in range(40)]
    for worker in workers:
        worker.start()

    for worker in workers:
        worker.join()

    events = home.orch("events", "-n", "1000").stdout.splitlines()[before:]
    switches = [event for event in events if "switched to" in event]
    assert statuses == [200] * 40
    assert 1 <= len(switches) <= 4, switches


def test_a_changed_profile_is_stale_and_reload_restarts_it(home: Home) -> None:
    fresh(home, "one")
    pid = home.status()["pid"]
    assert "nothing" in home.orch("reload").stdout
    home.orch("profile", "set", "one", "context.size=2048")
    assert home.status()["stale"] == ["context.size"]
    home.orch("reload")
    assert home.status()["stale"] == [] and home.status()["pid"] != pid
    home.orch("profile", "set", "two", "context.size=2048")
    assert "nothing" in home.orch("reload").stdout
