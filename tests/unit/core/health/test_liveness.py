from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.health.liveness import (
    LivenessHistory,
    LivenessPolicy,
    LivenessSample,
    LivenessVerdict,
    assess,
    begin,
)

POLICY = LivenessPolicy(every_s=10.0, timeout_s=5.0, stall_s=120.0, unroute_after=2, hung_after=4)


def look(
    samples: list[LivenessSample], *, every_s: float = 10.0, history: LivenessHistory | None = None
) -> tuple[LivenessHistory, list[LivenessVerdict]]:
    """Take samples at regular times, from the history's last look on."""
    history = history or begin(0.0)
    verdicts = []
    for sample in samples:
        history, verdict = assess(history, sample, history.looked_at + every_s, POLICY)
        verdicts.append(verdict)

    return history, verdicts


def sample(work: int = 0, *, in_flight: int = 0, answered: bool = True, stopped: bool = False) -> LivenessSample:
    return LivenessSample(stopped, answered and not stopped, in_flight, work)


def kinds(samples: list[LivenessSample], history: LivenessHistory | None = None) -> list[str]:
    return [verdict.kind for verdict in look(samples, history=history)[1]]


def test_an_idle_engine_that_answers_is_well_for_ever() -> None:
    assert set(kinds([sample()] * 1000)) == {"ok"}


def test_health_alone_is_no_sign_of_life_with_requests_in_flight() -> None:
    found = kinds([sample(in_flight=1)] * 14)
    assert found.index("hung") == 12  # the first sample is the one that the others are compared with
    assert set(found[:12]) == {"ok"}


def test_the_time_without_progress_begins_with_the_request() -> None:
    history, _ = look([sample()] * 100)
    found = kinds([sample(in_flight=1)] * 12, history)
    assert found == ["ok"] * 11 + ["hung"]


def test_any_progress_begins_the_time_anew() -> None:
    stuck = [sample(1, in_flight=3)] * 12
    assert "hung" not in kinds([*stuck, sample(2, in_flight=3), *stuck[:11]])


def test_a_slow_health_with_progress_holds_nothing_up() -> None:
    assert set(kinds([sample(number, in_flight=1, answered=False) for number in range(50)])) == {"ok"}


def test_an_engine_that_answers_nothing_gets_no_requests_and_is_ended_after_the_stall() -> None:
    history, _ = look([sample()])
    found = kinds([sample(answered=False)] * 12, history)
    assert found == ["ok"] + ["unroute"] * 10 + ["hung"]


def test_an_engine_that_answers_again_gets_requests_again() -> None:
    assert kinds([*[sample(answered=False)] * 4, sample()])[-1] == "ok"


def test_a_stopped_process_gets_no_requests_at_once_and_is_ended_sooner() -> None:
    assert kinds([sample(stopped=True)] * 4) == ["unroute"] * 3 + ["hung"]
    found = kinds([sample(stopped=True)] * 3 + [sample()] + [sample(stopped=True)] * 3)
    assert found == ["unroute"] * 3 + ["ok"] + ["unroute"] * 3


def test_nothing_is_concluded_from_looks_before_a_suspend() -> None:
    stuck = sample(1, in_flight=1, answered=False)
    history, _ = look([stuck] * 11)
    history, verdict = assess(history, stuck, history.looked_at + 3600.0, POLICY)
    assert verdict.kind == "ok"
    assert kinds([stuck] * 12, history) == ["ok"] + ["unroute"] * 10 + ["hung"]
    history, _ = look([sample(stopped=True)] * 3)
    assert assess(history, sample(stopped=True), history.looked_at + 3600.0, POLICY)[1].kind == "ok"


def test_a_reason_says_what_is_wrong() -> None:
    _, verdicts = look([sample(in_flight=2)] * 13)
    assert verdicts[-1].reason == "no progress for 120 s with 2 requests in flight"


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 2), st.sampled_from([10.0, 20.0, 100.0])
        ),
        max_size=60,
    )
)
def test_nothing_is_ended_that_moved_within_the_stall(rows: list[tuple[bool, bool, int, int, float]]) -> None:
    """Progress, an idle answer or a gap within `stall_s`: never hung, unless it was stopped four times in a row."""
    history, now, fine_at, work, stops = begin(0.0), 0.0, 0.0, -1, 0
    for stopped, answered, in_flight, next_work, passed_s in rows:
        now += passed_s
        gap = passed_s > POLICY.gap_s
        stops = stops + 1 if stopped and not gap else 0
        if gap or next_work != work or (in_flight == 0 and answered and not stopped):
            fine_at = now

        work = next_work
        each = sample(work, in_flight=in_flight, answered=answered, stopped=stopped)
        history, verdict = assess(history, each, now, POLICY)
        due = (stops >= POLICY.hung_after) if stopped else now - fine_at >= POLICY.stall_s
        assert (verdict.kind == "hung") == (due and not gap)
        assert verdict.kind == "ok" or verdict.reason
