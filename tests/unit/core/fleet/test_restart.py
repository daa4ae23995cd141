from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fleet.restart import CrashRecord, GiveUp, RestartPolicy, Retry, after_crash

POLICY = RestartPolicy()
PATIENT = RestartPolicy(intensity=100)


class CrashingEngine:
    """An engine that lives for a given time after each start, under one policy; time is a number."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.now = 1000.0
        self.record = CrashRecord()
        self.decisions: list[Retry | GiveUp] = []
        self.starts = [self.now]

    def crash(self, *, load_s: float = 0.5, ready_for_s: float = 0.0) -> Retry | GiveUp:
        """Load, serve, crash, wait as told, start again."""
        self.now += load_s + ready_for_s
        self.record, decision = after_crash(self.record, ready_for_s, self.now, self.policy)
        self.decisions.append(decision)
        self.now += wait_s(decision)
        self.starts.append(self.now)
        return decision


def wait_s(decision: Retry | GiveUp) -> float:
    return decision.delay_s if isinstance(decision, Retry) else decision.cooldown_s


def test_the_first_crash_is_answered_with_the_first_delay() -> None:
    assert CrashingEngine(POLICY).crash() == Retry(1.0)


def test_delays_grow_by_half_at_least_until_the_cap_and_stay_there() -> None:
    engine = CrashingEngine(PATIENT)
    delays = [wait_s(engine.crash()) for _ in range(12)]
    below_cap = [delay for delay in delays if delay < PATIENT.max_delay_s]
    assert all(after / before >= 1.5 for before, after in pairwise(below_cap))
    assert delays[len(below_cap) :] == [PATIENT.max_delay_s] * (12 - len(below_cap))
    assert len(below_cap) == 5


def test_the_crash_that_spends_the_budget_is_answered_with_a_rest() -> None:
    engine = CrashingEngine(POLICY)
    answers = [engine.crash() for _ in range(POLICY.intensity)]
    assert [type(answer) for answer in answers] == [Retry] * (POLICY.intensity - 1) + [GiveUp]
    assert answers[-1] == GiveUp(POLICY.cooldown_s)


def test_an_intensity_of_one_rests_after_the_first_crash() -> None:
    assert CrashingEngine(RestartPolicy(intensity=1)).crash() == GiveUp(60.0)


def test_the_one_try_after_a_rest_is_answered_with_a_longer_rest_up_to_tenfold() -> None:
    engine = CrashingEngine(POLICY)
    for _ in range(POLICY.intensity):
        engine.crash()

    rests = [engine.crash() for _ in range(6)]
    assert rests == [GiveUp(rest) for rest in (120.0, 240.0, 480.0, 600.0, 600.0, 600.0)]


def test_a_rest_is_followed_by_a_longer_one_although_loading_outlasts_the_window() -> None:
    engine = CrashingEngine(POLICY)
    for _ in range(POLICY.intensity):
        engine.crash()

    assert engine.crash(load_s=2 * POLICY.window_s) == GiveUp(120.0)


def test_a_short_healthy_time_after_a_rest_earns_no_fresh_budget() -> None:
    engine = CrashingEngine(POLICY)
    for _ in range(POLICY.intensity):
        engine.crash()

    assert engine.crash(ready_for_s=POLICY.stable_s - 1) == GiveUp(120.0)


def test_surviving_for_the_stable_time_forgets_crashes_and_rests() -> None:
    engine = CrashingEngine(POLICY)
    for _ in range(POLICY.intensity + 2):
        engine.crash()

    assert engine.crash(ready_for_s=POLICY.stable_s) == Retry(POLICY.first_delay_s)
    answers = [engine.crash() for _ in range(POLICY.intensity - 1)]
    assert answers[-1] == GiveUp(POLICY.cooldown_s), "the first rest of a new row is the short one"
    assert all(isinstance(answer, Retry) for answer in answers[:-1])


def test_crashing_soon_after_each_ready_spends_the_budget_all_the_same() -> None:
    engine = CrashingEngine(POLICY)
    answers = [engine.crash(load_s=1.0, ready_for_s=3.0) for _ in range(POLICY.intensity)]
    assert isinstance(answers[-1], GiveUp)


def test_crashes_further_apart_than_the_window_never_spend_the_budget() -> None:
    engine = CrashingEngine(POLICY)
    assert all(isinstance(engine.crash(load_s=POLICY.window_s), Retry) for _ in range(50))


def test_a_week_of_slow_crashes_still_has_a_delay() -> None:
    engine = CrashingEngine(POLICY)
    answers = [engine.crash(load_s=POLICY.window_s) for _ in range(3000)]
    assert answers[-1] == Retry(POLICY.max_delay_s)


def test_a_year_of_rests_stays_at_the_longest() -> None:
    engine = CrashingEngine(POLICY)
    answers = [engine.crash() for _ in range(3000)]
    assert answers[-1] == GiveUp(10 * POLICY.cooldown_s)


def test_the_record_does_not_grow_with_the_number_of_crashes() -> None:
    engine = CrashingEngine(PATIENT)
    for _ in range(1000):
        engine.crash(load_s=0.0)

    assert len(engine.record.times) <= PATIENT.intensity


POLICIES = st.builds(
    RestartPolicy,
    first_delay_s=st.floats(0.1, 5.0),
    max_delay_s=st.floats(5.0, 60.0),
    stable_s=st.floats(10.0, 120.0),
    intensity=st.integers(1, 8),
    window_s=st.floats(30.0, 600.0),
    cooldown_s=st.floats(60.0, 120.0),
)


@given(POLICIES, st.lists(st.tuples(st.floats(0.0, 400.0), st.floats(0.0, 200.0)), max_size=40))
def test_no_window_sees_more_starts_than_allowed_except_the_single_tries_after_rests(
    policy: RestartPolicy, lives: list[tuple[float, float]]
) -> None:
    engine = CrashingEngine(policy)
    for load_s, ready_for_s in lives:
        decision = engine.crash(load_s=load_s, ready_for_s=ready_for_s)
        if ready_for_s >= policy.stable_s:
            engine.starts = engine.starts[-2:]  # what came before is forgotten
        if isinstance(decision, GiveUp):
            engine.starts = engine.starts[:-1]  # the single try

        for start in engine.starts:
            within = [each for each in engine.starts if start <= each < start + policy.window_s]
            assert len(within) <= policy.intensity


@given(POLICIES, st.lists(st.floats(0.0, 9.0), min_size=2, max_size=30))
def test_in_a_row_without_healthy_time_every_wait_is_at_least_the_one_before(
    policy: RestartPolicy, loads: list[float]
) -> None:
    engine = CrashingEngine(policy)
    waits = [wait_s(engine.crash(load_s=load_s)) for load_s in loads]
    for before, after in pairwise(waits):
        capped = before in (policy.max_delay_s, 10 * policy.cooldown_s) or after in (
            policy.max_delay_s,
            policy.cooldown_s,
            10 * policy.cooldown_s,
        )
        assert after >= 1.5 * before or (capped and after >= before)


@given(POLICIES, st.lists(st.floats(0.0, 9.0), min_size=1, max_size=30))
def test_after_a_rest_there_is_no_retry_until_the_engine_was_stable(policy: RestartPolicy, loads: list[float]) -> None:
    engine = CrashingEngine(policy)
    kinds = [type(engine.crash(load_s=load_s)) for load_s in loads]
    first_rest = kinds.index(GiveUp) if GiveUp in kinds else len(kinds)
    assert Retry not in kinds[first_rest:]
    assert isinstance(engine.crash(ready_for_s=policy.stable_s), Retry) or policy.intensity == 1
