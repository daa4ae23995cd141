"""A profile that became slower is told with what has changed; one that did not is not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.bench_simulation import NOISES, Noise
from benchmarks.decline_simulation import (
    BEFORE,
    answers_until_told,
    drifting_history,
    healthy_history,
    slower_history,
    told_at,
)
from orchestrator.core.course.decline import find_decline
from tests.unit.core.course.histories import DAY_S, NEW_DRIVER, ON, days, mark

SLOWER = [*days(6, 50.0), *days(3, 45.0, NEW_DRIVER, first=6)]


def test_what_has_changed_since_is_named() -> None:
    found = find_decline(SLOWER)
    assert found is not None
    assert [each.what for each in found.changed] == ["driver"]
    assert (round(found.ratio, 2), found.low < found.ratio < found.high < 1) == (0.9, True)
    assert (len(found.best.marks), len(found.now.marks)) == (5, 3)


def test_a_change_that_costs_nothing_is_not_told() -> None:
    assert find_decline([*days(6, 50.0), *days(6, 49.0, NEW_DRIVER, first=6)]) is None
    assert find_decline([*days(6, 50.0), *days(6, 60.0, NEW_DRIVER, first=6)]) is None


def test_where_nothing_known_has_changed_it_is_told_once_most_of_a_window_is_slow() -> None:
    unchanged = [*days(8, 50.0), *days(2, 44.0, first=8)]
    assert find_decline(unchanged) is None
    found = find_decline([*unchanged, mark(10, 44.0)])
    assert found is not None and found.changed == ()


def test_one_bad_day_is_not_told() -> None:
    assert find_decline([*days(6, 50.0), mark(6, 30.0, NEW_DRIVER)]) is None
    assert find_decline([*days(6, 50.0), mark(6, 30.0), *days(4, 50.0, first=7)]) is None


def test_few_answers_are_not_enough() -> None:
    few = [mark(6, 40.0, NEW_DRIVER, answers=8), mark(7, 40.0, NEW_DRIVER, answers=8)]
    assert find_decline([*days(6, 50.0), *few]) is None
    assert find_decline([*days(6, 50.0), *[replace(each, answers=16) for each in few]]) is not None


def test_what_was_never_held_is_not_compared_with() -> None:
    assert find_decline([*days(2, 50.0), *days(6, 40.0, NEW_DRIVER, first=2)]) is None
    assert find_decline([]) is None


def test_it_ends_when_the_speed_comes_back_and_when_it_is_accepted() -> None:
    assert find_decline([*SLOWER, *days(5, 50.0, ON, first=9)]) is None
    assert find_decline(SLOWER, accepted_s=6 * DAY_S) is None
    again = [*SLOWER, *days(4, 45.0, NEW_DRIVER, first=9), *days(3, 40.0, ON, first=13)]
    found = find_decline(again, accepted_s=6 * DAY_S)
    assert found is not None and round(found.best.rate) == 45


def test_two_benches_are_enough_after_a_change_and_three_without() -> None:
    bench = [mark(0, 50.0, bench=1), mark(1, 44.0, NEW_DRIVER, bench=2)]
    found = find_decline(bench)
    assert found is not None and [each.what for each in found.changed] == ["driver"]
    assert find_decline([bench[0], mark(1, 48.0, NEW_DRIVER, bench=2)]) is None
    assert find_decline([bench[0], replace(bench[1], low_tok_s=38.0, high_tok_s=51.0)]) is None  # it is not sure itself
    unchanged = [mark(0, 50.0, bench=1), mark(1, 44.0, bench=2)]
    assert find_decline(unchanged) is None
    assert find_decline([*unchanged, mark(2, 44.0, bench=3)]) is not None


def test_figures_that_are_none_are_compared_with_nothing() -> None:
    nan = float("nan")
    assert find_decline([replace(each, step_ms=nan) for each in SLOWER]) is None
    assert find_decline([replace(SLOWER[0], step_ms=0.0), *SLOWER]) == find_decline(SLOWER) is not None
    bench = [mark(0, 50.0, bench=1), mark(1, 44.0, NEW_DRIVER, bench=2)]
    for low, high in ((0.0, 51.0), (-1.0, 51.0), (38.0, 0.0), (nan, nan)):
        assert find_decline([bench[0], replace(bench[1], low_tok_s=low, high_tok_s=high)]) is None


@pytest.mark.parametrize("noise", NOISES, ids=lambda each: each.name)
def test_a_healthy_profile_is_hardly_ever_told(noise: Noise) -> None:
    """The thousand histories behind docs/truth.md are `python -m benchmarks.decline_simulation`."""
    chance = random.Random(3)
    told = sum(told_at(healthy_history(chance, noise, 40)) is not None for _ in range(60))
    assert told <= 3


@pytest.mark.parametrize("noise", NOISES, ids=lambda each: each.name)
def test_a_tenth_is_found_within_200_answers_after_a_change(noise: Noise) -> None:
    chance = random.Random(4)
    late = 0
    for _ in range(40):
        marks = slower_history(chance, noise, BEFORE + 12, 0.1, changed=True)
        late += (answers_until_told(marks) or 1000) > 200

    assert late <= 2


@pytest.mark.parametrize("changes_every", [60, 3])
def test_a_slow_drift_is_found_however_often_something_changes(changes_every: int) -> None:
    chance = random.Random(5)
    histories = [drifting_history(chance, NOISES[1], 60, 0.15, changes_every) for _ in range(5)]
    assert all(told_at(marks) is not None for marks in histories)


def test_what_changed_within_the_best_window_is_named() -> None:
    found = find_decline([*days(3, 50.0), *days(7, 44.0, NEW_DRIVER, first=3)])
    assert found is not None and [each.what for each in found.changed] == ["driver"]
