"""Switches under load, between fake engines of both dialects and between real ones: scenario 55."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.engines.known.model import known_model
from tests.faults.lab import QUICK, Answer, Lab
from tests.support import PATIENCE_S, alive, until

STREAMS = 8
SHORTS = 8
STREAM_TOKENS = 40
SHORT_TOKENS = 4
SWITCHES = 20
MANY = "[context]\nparallel = 16\n"
SPEED = {"tokens_s": 100}

strategies = pytest.mark.parametrize("strategy", ["beside", "replace"])

Check = Callable[[Answer, int], None]


class Traffic:
    """Clients that go on asking: each ends one request and begins the next."""

    def __init__(self, lab: Lab, check: Check, streams: int, shorts: int, **more: object) -> None:
        self.streams = 0
        self.shorts = 0
        self.problems: list[str] = []
        self.sent: set[str] = set()
        self._lab = lab
        self._check = check
        self._more = more
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(number, number < streams), daemon=True)
            for number in range(streams + shorts)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request did not end"

    def _go_on(self, number: int, stream: bool) -> None:
        tokens = STREAM_TOKENS if stream else SHORT_TOKENS
        for count in itertools.count():
            if self._ended.is_set():
                return

            name = f"{number}-{count}"
            self.sent.add(name)
            try:
                self._check(self._lab.ask(name, tokens, stream=stream, **self._more), tokens)
            except Exception as error:  # noqa: BLE001  (whatever it is, it is what a client saw)
                self.problems.append(f"{name}: {error!r}")

            if stream:
                self.streams += 1
            else:
                self.shorts += 1
                time.sleep(0.1)


def from_one_engine(answer: Answer, tokens: int) -> None:
    """Complete, and all of it from the engine that it began on."""
    answer.check_complete(tokens)
    if not answer.body.startswith(b": "):  # a stream that was held has its headers from the gateway
        assert answer.text.startswith(f" {answer.headers['x-fake-instance']}:0")


@contextmanager
def traffic(
    lab: Lab, check: Check = from_one_engine, *, streams: int = STREAMS, shorts: int = SHORTS, **more: object
) -> Iterator[Traffic]:
    clients = Traffic(lab, check, streams, shorts, **more)
    try:
        until(lambda: clients.streams >= streams and clients.shorts >= shorts, "the traffic flows")
        yield clients
    finally:
        clients.end()


def switch(lab: Lab, target: str, strategy: str) -> Any:
    operation = lab.control("/v1/switch", {"target": target, "strategy": strategy})["operation"]

    def look() -> Any:
        return lab.control(f"/v1/switch?operation={operation}&wait_s=5")["result"]

    return until(look, f"the switch to {target} ends")


@pytest.mark.timeout(180)
@strategies
def test_twenty_switches_under_load_lose_and_cut_nothing(lab: Lab, strategy: str) -> None:
    lab.model("a", SPEED, more=MANY)
    lab.model("b", SPEED, engine="fake-fork", more=MANY)
    lab.serve("a")
    lab.ready("a")
    with traffic(lab) as clients:
        results = [switch(lab, "ba"[index % 2], strategy) for index in range(SWITCHES)]

    assert clients.problems == []
    assert [result["ok"] for result in results] == [True] * SWITCHES
    assert clients.shorts >= 100 and clients.streams >= SWITCHES
    accepted = [row["id"] for name in "ab" for row in lab.requests(name, "accepted")]
    assert sorted(accepted) == sorted(clients.sent)
    if strategy == "beside":
        assert {result["gap_s"] for result in results} == {0.0}
    else:
        assert all(result["held_requests"] for result in results)
        assert never_two(lab)


@strategies
def test_a_target_that_cannot_load_is_rolled_back_and_nothing_is_lost(lab: Lab, strategy: str) -> None:
    lab.model("a", SPEED, more=MANY)
    lab.model("b", {"die_at": "load", "say": ["gguf_init_from_reader: invalid magic characters: 'oops'"]}, more=MANY)
    lab.serve("a")
    lab.ready("a")
    with traffic(lab) as clients:
        done = lab.orch("switch", "b", "--strategy", strategy, "--json", check=False)

    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["ok"], result["rolled_back"], result["from"]["profile"]) == (False, True, "a")
    assert "invalid magic" in result["cause"] and "invalid magic" in done.stderr
    assert clients.problems == []
    assert lab.ready("a")
    assert lab.requests("b", "accepted") == []


@strategies
def test_a_target_out_of_memory_is_rolled_back_after_the_ladder_and_nothing_is_lost(lab: Lab, strategy: str) -> None:
    ladder = "[memory]\nfit = true\nfit_margin = 1024\n[recovery]\nmargins = [1024, 1536]\n" + MANY
    lab.model("a", SPEED, more=MANY)
    lab.model("b", {"oom_below_mib": 4096, "oom_mib": 100}, more=ladder)
    lab.serve("a")
    lab.ready("a")
    with traffic(lab) as clients:
        result = switch(lab, "b", strategy)

    assert (result["ok"], result["rolled_back"]) == (False, True)
    assert "ran out of memory" in result["cause"]
    assert [margin(start) for start in lab.starts("b")] == [1024, 1536]
    assert clients.problems == []


@strategies
def test_a_switch_that_is_cancelled_leaves_what_ran_and_nothing_is_lost(lab: Lab, strategy: str) -> None:
    lab.model("a", SPEED, more=MANY)
    lab.model("b", {"load_s": 60.0}, more=MANY)
    lab.serve("a")
    lab.ready("a")
    with traffic(lab) as clients:
        operation = lab.control("/v1/switch", {"target": "b", "strategy": strategy})["operation"]
        until(lambda: lab.starts("b"), "the new engine is being started")
        lab.control("/v1/cancel", {})
        result = until(lambda: lab.control(f"/v1/switch?operation={operation}&wait_s=5")["result"], "it ends")

    assert (result["ok"], result["rolled_back"], result["cause"]) == (False, True, "cancelled")
    assert clients.problems == []
    assert lab.ready("a")


@strategies
def test_the_old_engine_dying_during_a_switch_costs_only_what_it_was_answering(lab: Lab, strategy: str) -> None:
    lab.model("a", {**SPEED, "poison": "POISON"}, more=MANY)
    lab.model("b", {**SPEED, "load_s": 1.0}, more=MANY)
    lab.serve("a")
    lab.ready("a")
    running = lab.begin_asking("long", 400, stream=True)
    until(lambda: lab.requests("a", "accepted"), "the stream runs")
    operation = lab.control("/v1/switch", {"target": "b", "strategy": strategy})["operation"]
    until(lambda: lab.status()["switching"], "the switch is under way")
    lab.faults("a", SPEED)
    os.kill(lab.starts("a")[0]["pid"], signal.SIGKILL)
    until(lambda: not alive(lab.starts("a")[0]["pid"]) and lab.status()["state"] != "ready", "its death is noticed")
    waiting = [lab.begin_asking(f"w{index}") for index in range(5)]
    lab.replayed.update(each.id for each in waiting)  # `a` may be up again, and is stopped for good then
    result = until(lambda: lab.control(f"/v1/switch?operation={operation}&wait_s=5")["result"], "it ends")
    assert result["ok"]
    for request in waiting:
        request.result().check_complete(8)

    assert "error" in running.result().events[-1]


@pytest.mark.timeout(120)
@strategies
def test_switches_between_real_engines_lose_nothing_and_every_text_is_the_known_one(lab: Lab, strategy: str) -> None:
    prompt = "A supervisor"
    texts = {tokens: known_model(stops=True).greedy_text(prompt, tokens) for tokens in (STREAM_TOKENS, SHORT_TOKENS)}

    def is_known(answer: Answer, tokens: int) -> None:
        assert answer.status == 200 and not answer.cut, answer.body[-300:]
        assert answer.text == texts[tokens]

    more = "[context]\nsize = 8192\nparallel = 4\n[cpu]\nthreads = 1\nthreads_batch = 1\n"
    for name in ("one", "two"):
        lab.profile(name, f'schema = 1\nmodel = "orch:demo"\nengine = "embedded"\n{more}')

    lab.configure(QUICK.replace("drain_s = 5.0", "drain_s = 60.0"))  # a real engine on a busy machine is slow
    lab.serve("one")
    lab.ready("one")
    with traffic(lab, is_known, streams=4, shorts=4, prompt=prompt, temperature=0, cache_prompt=False) as clients:
        result = switch(lab, "two", strategy)

    assert clients.problems == []
    assert result["ok"]


def margin(start: Any) -> int:
    words = start["argv"]
    return int(words[words.index("--fit-target") + 1])


def never_two(lab: Lab) -> bool:
    """Whether each engine was started only after the one before it had ended."""
    starts = sorted((start for name in "ab" for start in lab.starts(name)), key=lambda start: float(start["time"]))
    ends = {row["instance"]: row["time"] for name in "ab" for row in lab.requests(name, "ended")}
    return all(ends.get(before["instance"], 0) <= after["time"] for before, after in itertools.pairwise(starts))


def test_a_switch_beside_tells_how_far_the_new_engine_is(lab: Lab) -> None:
    lab.run("a")
    lab.model("b", {"load_s": 1.0})
    switch = lab.begin("switch", "b")
    until(
        lambda: lab.status()["progress"].startswith("switching to b@fake-upstream: loading b@fake-upstream"), "progress"
    )
    switch.communicate(timeout=PATIENCE_S)
    assert switch.returncode == 0
