from __future__ import annotations

import pytest

from orchestrator.core.fleet.demand import Demand, DemandPolicy, may_give_up, next_profile, on_its_way
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Failure,
    Preparing,
    Ready,
    Starting,
    StartRecord,
    State,
    Stopped,
    Stopping,
    Target,
)
from tests.unit.core.fleet.switch_phases import PHASES, serving

POLICY = DemandPolicy(min_stay_s=5.0, patience_s=30.0)
LONG_S = 1000.0
JUST_NOW_S = 0.02
"""Since the last answer of what serves: its users come back within such times."""


def test_without_waiting_requests_nothing_is_switched() -> None:
    assert next_profile([], "a", 0, LONG_S, JUST_NOW_S, POLICY) is None


def test_requests_for_the_profile_that_serves_are_no_reason_to_switch() -> None:
    assert next_profile([Demand("a", 9, LONG_S)], "a", 0, LONG_S, JUST_NOW_S, POLICY) is None


def test_where_nothing_serves_the_first_request_is_followed_at_once() -> None:
    assert next_profile([Demand("b", 1, 0.0)], None, 0, 0.0, JUST_NOW_S, POLICY) == "b"


def test_the_profile_whose_oldest_request_waited_longest_is_next() -> None:
    waiting = [Demand("b", 50, 2.0), Demand("c", 1, 3.0), Demand("a", 1, 9.0)]
    assert next_profile(waiting, "a", 0, LONG_S, JUST_NOW_S, POLICY) == "c"


def test_the_choice_between_equals_does_not_depend_on_their_order() -> None:
    waiting = [Demand("b", 1, 2.0), Demand("c", 1, 2.0), Demand("d", 2, 2.0)]
    assert {next_profile(order, "a", 0, LONG_S, JUST_NOW_S, POLICY) for order in (waiting, waiting[::-1])} == {"d"}


@pytest.mark.parametrize(("stayed_s", "expected"), [(0.0, None), (4.9, None), (5.0, "b")])
def test_what_serves_stays_for_a_while(stayed_s: float, expected: str | None) -> None:
    assert next_profile([Demand("b", 1, LONG_S)], "a", 0, stayed_s, JUST_NOW_S, POLICY) == expected


@pytest.mark.parametrize(
    ("in_flight", "oldest_s", "expected"), [(0, 0.0, "b"), (1, 29.9, None), (1, 30.0, "b"), (8, 31.0, "b")]
)
def test_a_busy_profile_stays_until_somebody_has_waited_long_enough(
    in_flight: int, oldest_s: float, expected: str | None
) -> None:
    assert next_profile([Demand("b", 1, oldest_s)], "a", in_flight, LONG_S, JUST_NOW_S, POLICY) == expected


def test_clients_that_alternate_are_served_in_turn_and_none_waits_for_ever() -> None:
    serving, stayed_s, oldest_s = "a", 0.0, {"a": 0.0, "b": 0.0}
    turns = []
    for _ in range(200):
        waiting = [Demand(name, 1, waited) for name, waited in oldest_s.items() if name != serving]
        chosen = next_profile(waiting, serving, 1, stayed_s, JUST_NOW_S, POLICY)  # never idle
        if chosen is not None:
            turns.append(chosen)
            serving, stayed_s = chosen, 0.0
            oldest_s = dict.fromkeys(oldest_s, 0.0)

        stayed_s += 1.0
        oldest_s = {name: 0.0 if name == serving else waited + 1.0 for name, waited in oldest_s.items()}

    assert turns[:4] == ["b", "a", "b", "a"]
    assert len(turns) == 6, "each waits for the patience of 30 s"


@pytest.mark.parametrize(
    ("oldest_s", "quiet_s", "in_flight", "expected"),
    [
        (0.06, 0.08, 0, "b"),  # it came after the last answer, and nothing has come since
        (0.04, 0.08, 0, None),  # so new that others may come with it
        (0.09, 0.08, 0, None),  # it waited already when what serves was still used
        (0.06, 0.08, 1, None),
        (9.0, 1.0, 0, "b"),  # idle for long
        (9.0, 0.9, 0, None),
    ],
)
def test_what_nobody_uses_makes_room_at_once(
    oldest_s: float, quiet_s: float, in_flight: int, expected: str | None
) -> None:
    assert next_profile([Demand("b", 1, oldest_s)], "a", in_flight, 1.5, quiet_s, POLICY) == expected


def test_one_client_with_two_models_pays_no_stay_and_two_clients_with_one_each_still_batch() -> None:
    """A client that asks one model after the other; then two that ask theirs without a pause."""
    alone = next_profile([Demand("b", 1, 0.05)], "a", 0, 0.3, 0.05, POLICY)
    assert alone == "b"
    beside = [next_profile([Demand("b", 1, each)], "a", 0, each, 0.01, POLICY) for each in (0.1, 1.0, 4.9, 5.0)]
    assert beside == [None, None, None, "b"]


@pytest.mark.parametrize("name", PHASES)
def test_a_switch_that_nobody_waits_for_is_given_up_only_where_that_costs_no_load(name: str) -> None:
    assert may_give_up(PHASES[name]().fleet) is (name in ("beside", "draining"))


def test_without_a_switch_there_is_nothing_that_giving_up_would_cost() -> None:
    assert may_give_up(serving().fleet)


RECORD = StartRecord(Target("a", "one"))
NEXT = Target("b", "one")
CRASH = Failure("engine_bug", "it crashed", None)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Preparing(RECORD, "s1.1"), "a"),
        (Starting(RECORD, "s1.1"), "a"),
        (Backoff(RECORD, "s1.1", CRASH, 9.0), "a"),
        (Stopping(RECORD, "s1.1", None, CRASH), "a"),
        (Draining(RECORD, "s1.1", 7, 0.0, NEXT), "b"),
        (Stopping(RECORD, "s1.1", NEXT), "b"),
        (Stopping(RECORD, "s1.1", NEXT, CRASH), "b"),
        (Ready(RECORD, "s1.1", 7, 0.0), None),
        (Draining(RECORD, "s1.1", 7, 0.0, None), None),
        (Stopping(RECORD, "s1.1", None), None),
        (Stopped(RECORD), None),
        (Failed(RECORD, "s1.1", CRASH, 9.0), None),
    ],
)
def test_what_starts_or_comes_back_by_itself_needs_no_switch(state: State, expected: str | None) -> None:
    assert on_its_way(state) == expected
