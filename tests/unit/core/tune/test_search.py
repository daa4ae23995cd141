"""The search: what it starts, in which order, what it proposes, and what it never does."""

from __future__ import annotations

from math import exp

import pytest

from benchmarks.bench_simulation import NOISES
from benchmarks.tune_simulation import tune_one
from orchestrator.core.tune.search import TuneFound, TuneStart, TuneTrial, next_start
from orchestrator.core.tune.space import Point, Space
from tests.unit.core.tune.spaces import SPACE, axis, dies, searched, tried, true_rate

LIVING = [point for point in SPACE.planned_points(SPACE.current) if not dies(point)]
BEST = max(map(true_rate, LIVING))


def test_the_settings_as_they_are_are_started_first() -> None:
    assert next_start(SPACE, [], lambda point: 0.0, 20) == TuneStart(SPACE.current, "the settings as they are")


def test_the_best_is_found_without_a_forecast_and_with_a_right_one() -> None:
    for forecast in (lambda point: 0.0, true_rate):
        found, trials = searched(forecast=forecast)
        assert true_rate(found.point) == pytest.approx(BEST, abs=0.011)
        assert len(trials) <= 20


def test_what_is_claimed_is_the_rate_over_that_of_the_settings_as_they_are() -> None:
    found, _ = searched()
    assert found.claimed == pytest.approx(true_rate(found.point) - true_rate(SPACE.current))


def test_what_the_plan_says_cannot_fit_is_never_started() -> None:
    def forecast(point: Point) -> float | None:
        return None if point[2] > 2 else 0.0

    _, trials = searched(forecast=forecast)
    assert all(trial.point[2] <= 2 for trial in trials)


def test_a_death_bars_the_same_settings_with_more_of_the_device_filled() -> None:
    _, trials = searched()
    dead: list[Point] = []
    for trial in trials:
        more = [point for point in dead if point[:2] == trial.point[:2] and point[3] == trial.point[3]]
        assert all(trial.point[2] < point[2] for point in more)
        if trial.outcome == "died":
            dead.append(trial.point)

    assert dead


def test_a_choice_by_which_alone_a_start_failed_is_not_tried_again_elsewhere() -> None:
    space = Space((axis("drafts", "drafts", 3, 0), axis("ubatch", "speed", 3, 1), axis("threads", "speed", 3, 0)))
    trials: list[TuneTrial] = []
    while isinstance(step := next_start(space, trials, lambda point: 0.0, 30), TuneStart):
        drafts, ubatch, threads = step.point
        unfit = drafts > 0
        logs = () if unfit else (0.2 * threads + 0.1 * (ubatch == 2),) * 6
        trials.append(TuneTrial(step.point, "unfit" if unfit else "measured", logs, "nothing was drafted"))

    assert step.point == (0, 2, 2)
    assert sum(trial.outcome == "unfit" for trial in trials) == 1


def test_a_search_that_is_broken_off_anywhere_goes_on_to_the_same_end() -> None:
    found, trials = searched()
    for count in range(len(trials)):
        step = next_start(SPACE, trials[:count], lambda point: 0.0, 20)
        assert isinstance(step, TuneStart)
        assert step.point == trials[count].point

    assert next_start(SPACE, trials, lambda point: 0.0, 20) == found


def test_after_the_last_start_the_best_so_far_is_proposed() -> None:
    trials = [tried(SPACE.current), tried((1, 1, 1, 0))]
    found = next_start(SPACE, trials, lambda point: 0.0, 2)
    assert isinstance(found, TuneFound)
    assert found.point == (1, 1, 1, 0)
    assert found.claimed == pytest.approx(0.2)


def test_what_is_not_better_by_a_step_is_not_proposed() -> None:
    trials = [tried(SPACE.current)]
    better = tried(SPACE.current)
    same = [type(better)((0, 2, 1, 0), "measured", tuple(value + 0.005 for value in better.logs))]
    assert next_start(SPACE, trials + same, lambda point: 0.0, 2) == TuneFound(SPACE.current, 0.0)


def test_a_proposal_that_a_full_context_killed_is_not_proposed_again() -> None:
    found, trials = searched()
    again = next_start(SPACE, trials, lambda point: 0.0, len(trials), [found.point])
    assert isinstance(again, TuneFound)
    assert again.point != found.point


def test_settings_that_die_as_they_are_leave_no_figure_to_claim_against() -> None:
    dead = type(tried(SPACE.current))(SPACE.current, "died")
    found = next_start(SPACE, [dead, tried((1, 1, 1, 0))], lambda point: 0.0, 2)
    assert found == TuneFound((1, 1, 1, 0), None)


@pytest.mark.parametrize(("error", "median", "most"), [(0.05, 0.02, 0.08), (None, 0.04, 0.3)])
def test_on_simulated_cards_little_is_missed_and_nothing_dead_is_proposed(
    error: float | None, median: float, most: float
) -> None:
    found = [tune_one(f"test {k}", NOISES[1], 20, forecast_error=error) for k in range(12)]
    regrets = sorted(each.regret for each in found)
    assert regrets[len(found) // 2] < median
    assert regrets[-2] < most
    assert not any(each.saved_dies for each in found)
    assert all(each.starts <= 20 for each in found)


def test_a_flat_machine_is_called_faster_by_chance_alone() -> None:
    found = [tune_one(f"flat {k}", NOISES[1], 12, flat=True, forecast_error=None) for k in range(30)]
    assert sum(each.saved for each in found) <= 3
    assert max(exp(each.claimed) - 1 for each in found) > 0.01  # the search alone would have claimed something
