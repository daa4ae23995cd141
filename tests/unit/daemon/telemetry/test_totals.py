from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    CanaryPassed,
    Event,
    Exited,
    Loaded,
    Prepared,
    Spawned,
    StartRequested,
    Target,
)
from orchestrator.core.fleet.resident_states import SwitchFinished, SwitchOperation
from orchestrator.daemon.telemetry.totals import (
    MAX_CLIENTS,
    MAX_PAIRS,
    OTHER,
    OTHER_CLIENT,
    Histogram,
    PairTotals,
    Totals,
)
from orchestrator.gateway.contract import Finished
from tests.unit.core.fleet.lifecycle_machine import CRASH, FIRST, OOM, RECOVERY, A, Machine, spawn, start


def finished(profile: str | None = "demo", engine: str | None = "upstream", **more: object) -> Finished:
    fields: dict[str, object] = {
        "instance": "s.1", "route": "/completion", "status": 200, "outcome": "complete", "held_s": 0.5,
        "first_token_s": 0.7, "total_s": 3.0, "profile": profile, "engine": engine, **more,
    }  # fmt: skip
    return Finished(**fields)  # type: ignore[arg-type]


def observe(totals: Totals, machine: Machine, *events: Event) -> None:
    """As the daemon does: it looks at each state."""
    for event in events:
        machine.take(event)
        totals.looked({"s": machine.state}, machine.now)


def only(totals: Totals) -> PairTotals:
    (found,) = totals.pairs.values()
    return found


@pytest.mark.parametrize("value, bucket", [(0.0, 0), (0.005, 0), (0.0051, 1), (300.0, 14), (301.0, 15)])
def test_a_value_falls_into_the_first_bucket_that_is_not_below_it(value: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(value)
    assert histogram.counts.index(1) == bucket
    assert histogram.total == value


def test_a_request_is_counted_under_what_answered_it() -> None:
    totals = Totals()
    totals.finished(
        finished(prompt_tokens=100, prompt_ms=50.0, output_tokens=11, output_ms=1000.0, draft_tokens=8,
                 draft_accepted=4, replays=1)
    )  # fmt: skip
    totals.finished(finished(engine="ik-fork", outcome="error"))
    assert set(totals.pairs) == {("demo", "upstream"), ("demo", "ik-fork")}
    one = totals.pairs["demo", "upstream"]
    assert one.outcomes == {"complete": 1}
    assert (one.prompt_tokens, one.prompt_s, one.output_tokens, one.output_s) == (100, 0.05, 11, 1.0)
    assert (one.draft_tokens, one.draft_accepted, totals.replayed) == (8, 4, 1)
    assert (one.request_s.total, one.queue_s.total, one.first_token_s.total) == (3.0, 0.5, 0.7)
    assert one.token_s.total == pytest.approx(0.1), "n tokens are n - 1 steps"


def test_what_was_not_measured_is_not_observed() -> None:
    totals = Totals()
    totals.finished(finished(None, None, first_token_s=None, output_tokens=1, output_ms=5.0))
    one = only(totals)
    assert (sum(one.first_token_s.counts), sum(one.token_s.counts), sum(one.request_s.counts)) == (0, 0, 1)


def test_no_answer_makes_a_counter_go_down() -> None:
    totals = Totals()
    totals.finished(finished(prompt_tokens=-5, prompt_ms=-1.0, output_tokens=-7, output_ms=-2.0, draft_tokens=-1))
    one = only(totals)
    assert (one.prompt_tokens, one.prompt_s, one.output_tokens, one.output_s, one.draft_tokens) == (0, 0, 0, 0, 0)


def test_the_number_of_pairs_is_bounded() -> None:
    totals = Totals()
    for number in range(10 * MAX_PAIRS):
        totals.finished(finished(f"profile-{number}"))

    assert len(totals.pairs) == MAX_PAIRS + 1
    assert totals.pairs[OTHER].outcomes["complete"] == 9 * MAX_PAIRS


def test_a_load_lasts_from_the_start_of_the_attempt_until_it_is_ready() -> None:
    totals, machine = Totals(), Machine()
    observe(totals, machine, StartRequested(A, "s.1"), *spawn())
    machine.now += 7.0
    observe(totals, machine, Loaded("s.1"), CanaryPassed("s.1"))
    machine.now += 100.0
    observe(totals, machine, Exited("s.1", CRASH))
    assert list(totals.pairs) == [(A.profile, A.engine)]
    assert sum(only(totals).load_s.counts) == 1
    assert only(totals).load_s.total == pytest.approx(7.0)


def test_a_start_after_running_out_of_memory_is_a_retry_and_one_after_a_crash_is_not() -> None:
    totals, machine = Totals(), Machine()
    observe(totals, machine, StartRequested(A, "s.1"), *start(), Exited("s.1", OOM))
    assert totals.memory_retries == 0, "it has not begun yet"
    observe(totals, machine, Prepared("s.2", FIRST, RECOVERY), Spawned("s.2", 43))
    assert totals.memory_retries == 1
    observe(totals, machine, Exited("s.2", OOM), Prepared("s.3", FIRST, RECOVERY), Spawned("s.3", 44))
    assert totals.memory_retries == 2

    totals, machine = Totals(), Machine()
    observe(totals, machine, StartRequested(A, "s.1"), *start(), Exited("s.1", CRASH))
    observe(totals, machine, StartRequested(A, "s.2"), *start("s.2"))
    assert totals.memory_retries == 0


@pytest.mark.parametrize(
    "ok, rolled_back, result", [(True, False, "ok"), (False, True, "rolled_back"), (False, False, "failed")]
)
def test_switches_are_counted_by_how_they_ended(ok: bool, rolled_back: bool, result: str) -> None:
    totals = Totals()
    operation = SwitchOperation("o", None, Target("a", "upstream"), "replace", 0.0)
    totals.switched(SwitchFinished(operation, ok, rolled_back, None, 0.0, 0.0))
    assert totals.switches == {"ok": 0, "rolled_back": 0, "failed": 0} | {result: 1}


def test_clients_are_counted_by_name_and_no_more_of_them_than_a_prometheus_wants() -> None:
    totals = Totals()
    totals.finished(finished(client="laptop", prompt_tokens=3, output_tokens=5))
    totals.finished(finished(client="laptop", outcome="cancelled", output_tokens=-7))
    totals.finished(finished(client=None))
    assert totals.clients["laptop"].outcomes == {"complete": 1, "cancelled": 1}
    assert (totals.clients["laptop"].prompt_tokens, totals.clients["laptop"].output_tokens) == (3, 5)
    for number in range(2 * MAX_CLIENTS):
        totals.finished(finished(client=f"c{number}"))

    assert len(totals.clients) == MAX_CLIENTS + 1
    assert totals.clients[OTHER_CLIENT].outcomes["complete"] == MAX_CLIENTS + 1


def test_what_the_guard_refuses_is_counted_by_its_reason() -> None:
    totals = Totals()
    for code in ("invalid_api_key", "invalid_api_key", "too_many_requests"):
        totals.refused(code)

    assert (totals.keys_refused, totals.limited) == (2, 1)
