from __future__ import annotations

import pytest

from orchestrator.core.fleet.demand import Demand, DemandPolicy, next_profile

POLICY = DemandPolicy(min_stay_s=5.0, patience_s=30.0)
LONG_S = 1000.0


def test_without_waiting_requests_nothing_is_switched() -> None:
    assert next_profile([], "a", 0, LONG_S, POLICY) is None


def test_requests_for_the_profile_that_serves_are_no_reason_to_switch() -> None:
    assert next_profile([Demand("a", 9, LONG_S)], "a", 0, LONG_S, POLICY) is None


def test_where_nothing_serves_the_first_request_is_followed_at_once() -> None:
    assert next_profile([Demand("b", 1, 0.0)], None, 0, 0.0, POLICY) == "b"


def test_the_profile_whose_oldest_request_waited_longest_is_next() -> None:
    waiting = [Demand("b", 50, 2.0), Demand("c", 1, 3.0), Demand("a", 1, 9.0)]
    assert next_profile(waiting, "a", 0, LONG_S, POLICY) == "c"


def test_the_choice_between_equals_does_not_depend_on_their_order() -> None:
    waiting = [Demand("b", 1, 2.0), Demand("c", 1, 2.0), Demand("d", 2, 2.0)]
    assert {next_profile(order, "a", 0, LONG_S, POLICY) for order in (waiting, waiting[::-1])} == {"d"}


@pytest.mark.parametrize(("stayed_s", "expected"), [(0.0, None), (4.9, None), (5.0, "b")])
def test_what_serves_stays_for_a_while(stayed_s: float, expected: str | None) -> None:
    assert next_profile([Demand("b", 1, LONG_S)], "a", 0, stayed_s, POLICY) == expected


@pytest.mark.parametrize(
    ("in_flight", "oldest_s", "expected"), [(0, 0.0, "b"), (1, 29.9, None), (1, 30.0, "b"), (8, 31.0, "b")]
)
def test_a_busy_profile_stays_until_somebody_has_waited_long_enough(
    in_flight: int, oldest_s: float, expected: str | None
) -> None:
    assert next_profile([Demand("b", 1, oldest_s)], "a", in_flight, LONG_S, POLICY) == expected


def test_clients_that_alternate_are_served_in_turn_and_none_waits_for_ever() -> None:
    serving, stayed_s, oldest_s = "a", 0.0, {"a": 0.0, "b": 0.0}
    turns = []
    for _ in range(200):
        waiting = [Demand(name, 1, waited) for name, waited in oldest_s.items() if name != serving]
        chosen = next_profile(waiting, serving, 1, stayed_s, POLICY)  # never idle
        if chosen is not None:
            turns.append(chosen)
            serving, stayed_s = chosen, 0.0
            oldest_s = dict.fromkeys(oldest_s, 0.0)

        stayed_s += 1.0
        oldest_s = {name: 0.0 if name == serving else waited + 1.0 for name, waited in oldest_s.items()}

    assert turns[:4] == ["b", "a", "b", "a"]
    assert len(turns) == 6, "each waits for the patience of 30 s"
