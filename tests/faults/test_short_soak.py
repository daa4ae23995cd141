"""The soak in small, and whether its judgement can fail: scenario 49. `docs/soak.md` is the long one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import soak_fleet, soak_plan, soak_samples
from benchmarks.soak_clients import REAL, Violation, judge, known_text
from benchmarks.soak_plan import Ask
from benchmarks.soak_report import written
from benchmarks.soak_run import Soak, prepare
from benchmarks.soak_samples import Sample
from tests.faults.lab import Lab, expected_text

SEED = 1
CYCLES = 15
REQUESTS = 200
DEMANDS = 60
LIMIT_S = 40.0

STREAM = Ask(
    1, "/completion", stream=True, tokens=3, wait_s=0, leaves_after_s=None, leaves_after_bytes=None, resets=False
)
WHOLE = replace(STREAM, stream=False)
SAMPLE = Sample(50, 1.0, 90_000, Counter({"socket": 4, "pipe": 5}), 5, 0, frozenset({"state/state.json"}))


@pytest.mark.timeout(150)
def test_a_short_soak_loses_no_request_and_leaves_nothing_behind(lab: Lab) -> None:
    prepare(lab)
    said: list[str] = []
    report = Soak(lab, SEED, CYCLES, REQUESTS, said.append).run(LIMIT_S)
    assert report.problems == [], "\n".join(said)
    assert sum(report.outcomes.values()) >= REQUESTS * len(report.results) // CYCLES
    assert report.outcomes["complete"] > REQUESTS // 2 * len(report.results) // CYCLES
    assert any(result["ok"] for result in report.results) and report.counted
    assert "No violation" in written(report, SEED, CYCLES, REQUESTS, 0.0, "unknown")


@pytest.mark.timeout(150)
def test_a_short_soak_of_several_models_loses_no_request_and_leaves_nothing_behind(lab: Lab) -> None:
    soak_fleet.prepare(lab)
    said: list[str] = []
    report = soak_fleet.FleetSoak(lab, SEED, DEMANDS, said.append).run(LIMIT_S)
    assert report.problems == [], "\n".join(said)
    assert report.outcomes["complete"] > report.sent // 2
    assert report.events["evicted"] and report.events["ready"] and report.samples
    assert "No violation" in soak_fleet.written(report, SEED, DEMANDS)


def test_a_seed_decides_everything() -> None:
    demands = [soak_fleet.demand(SEED, number) for number in range(1, 501)]
    assert demands == [soak_fleet.demand(SEED, number) for number in range(1, 501)]
    assert {each.model for each in demands} == set(soak_plan.FAKES)
    assert {each.deed for each in demands} >= {"load", "unload", "pin", "unpin", "kill", "segv"}
    assert soak_plan.cycle(1, 7) == soak_plan.cycle(1, 7) != soak_plan.cycle(2, 7)
    assert soak_plan.ask(1, 7) == soak_plan.ask(1, 7) != soak_plan.ask(2, 7)
    cycles = [soak_plan.cycle(SEED, number) for number in range(1, 501)]
    assert {each.start for each in cycles} == set(soak_plan.FAULTS)
    assert {each.trouble for each in cycles} == {"none", "kill", "segv", "pause", "stop"}
    assert {each.strategy for each in cycles} == {"beside", "replace"}


# The judgement of an answer.


def stream_of(text: str, *, end: bool = True) -> bytes:
    pieces = [{"content": f" {piece}", "stop": False} for piece in text.split()]
    events = [*pieces, {"content": "", "stop": True}] if end else pieces
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def judged(ask: Ask, body: bytes, status: int = 200) -> str:
    return judge(
        ask, status, "text/event-stream" if ask.stream and status == 200 else "application/json", body
    ).instance


def test_a_whole_answer_of_one_engine_is_complete() -> None:
    assert judged(WHOLE, json.dumps({"content": expected_text("a-1", 3)}).encode()) == "a-1"
    assert judged(STREAM, b": orch: loading\n\n" + stream_of(expected_text("a-1", 3))) == "a-1"
    assert judged(WHOLE, json.dumps({"content": known_text("r", 3)}).encode()) == REAL


@pytest.mark.parametrize(
    "text", [expected_text("a-1", 2), expected_text("a-1", 4), " a-1:0 b-2:1 a-1:2", " a-1:0 a-1:0 a-1:1", ""]
)
def test_a_text_that_is_not_all_of_one_engine_is_a_violation(text: str) -> None:
    with pytest.raises(Violation, match="not the text of one engine"):
        judged(WHOLE, json.dumps({"content": text}).encode())

    with pytest.raises(Violation, match="not the text of one engine"):
        judged(STREAM, stream_of(text))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (stream_of(expected_text("a-1", 3), end=False), "without an end"),
        (stream_of(expected_text("a-1", 3))[:-1], "within an event"),
        (b"", "without an end"),
        (b'data: {"error": {"code": "engine_died"}}\n\n' + stream_of(""), "in the middle"),
    ],
)
def test_a_stream_that_ends_as_nothing_is_a_violation(body: bytes, what: str) -> None:
    with pytest.raises(Violation, match=what):
        judged(STREAM, body)


def test_an_error_says_so_with_its_code() -> None:
    error = json.dumps({"error": {"code": "engine_died", "message": "it died"}}).encode()
    assert judge(WHOLE, 502, "application/json", error).code == "engine_died"
    stream = stream_of(" a-1:0", end=False) + b"data: " + error + b"\n\n"
    assert judge(STREAM, 200, "text/event-stream", stream).code == "engine_died"
    with pytest.raises(Violation, match="not to be understood"):
        judge(WHOLE, 502, "text/html", b"<h1>Bad Gateway</h1>")


# The judgement of the daemon.


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"descriptors": Counter({"socket": 5, "pipe": 5})}, "descriptors changed"),
        ({"threads": 30}, "threads"),
        ({"zombies": 1}, "zombies"),
        ({"files": SAMPLE.files | {"run/keys/left"}}, "run/keys/left"),
    ],
)
def test_what_does_not_stay_the_same_is_named(change: dict[str, object], what: str) -> None:
    later = replace(SAMPLE, cycle=60, **change)  # type: ignore[arg-type]
    assert what in soak_samples.problems([SAMPLE, later], baseline_threads=4)[0]
    assert soak_samples.problems([SAMPLE, replace(SAMPLE, cycle=60)], baseline_threads=4) == []


def test_memory_that_grows_is_told_from_memory_that_wavers() -> None:
    grows = [replace(SAMPLE, cycle=cycle, rss_kib=90_000 + 12 * cycle) for cycle in range(50, 501, 10)]
    wavers = [replace(SAMPLE, cycle=cycle, rss_kib=90_000 + 3000 * (cycle // 10 % 2)) for cycle in range(50, 501, 10)]
    assert soak_samples.rss_growth(grows) == pytest.approx(12 * 450 / 90_600)
    assert "grew by 6.0%" in soak_samples.problems(grows, baseline_threads=4)[0]
    assert soak_samples.problems(wavers, baseline_threads=4) == []


def test_an_exception_that_nobody_caught_is_no_error_that_says_so() -> None:
    body = json.dumps({"error": {"message": "internal error", "type": "server_error", "code": None}}).encode()
    with pytest.raises(Violation, match="nobody caught"):
        judge(WHOLE, 500, "application/json", body)
