"""What measurements leave open of another sum of the same costs."""

from __future__ import annotations

import math
import random

import pytest

from orchestrator.core.plan.speed.bounds import MeasuredSum, interval


def measured(*amounts: float, low: float, high: float) -> MeasuredSum:
    return MeasuredSum(amounts, low, high)


def test_what_was_measured_is_its_own_forecast() -> None:
    found = interval([measured(1.0, 2.0, 3.0, low=9.0, high=11.0)], (1.0, 2.0, 3.0))
    assert found == pytest.approx((9.0, 11.0))


def test_one_measurement_leaves_open_which_part_took_the_time() -> None:
    """Twice the bytes take as long when the time was fixed, and twice as long when it was the bytes'."""
    assert interval([measured(1.0, 2.0, low=10.0, high=10.0)], (1.0, 4.0)) == pytest.approx((10.0, 20.0))
    assert interval([measured(1.0, 2.0, low=10.0, high=10.0)], (1.0, 1.0)) == pytest.approx((5.0, 10.0))


def test_two_measurements_fix_two_costs() -> None:
    rows = [measured(1.0, 1.0, low=7.0, high=7.0), measured(1.0, 4.0, low=13.0, high=13.0)]  # 5 and 2
    assert interval(rows, (1.0, 10.0)) == pytest.approx((25.0, 25.0))


def test_what_was_never_measured_has_no_upper_bound() -> None:
    found = interval([measured(1.0, 2.0, 0.0, low=10.0, high=10.0)], (1.0, 2.0, 1.0))
    assert found is not None
    assert found[0] == pytest.approx(10.0)
    assert found[1] == math.inf


def test_a_ceiling_bounds_from_below_alone() -> None:
    assert interval([measured(0.0, 1.0, low=2.0, high=math.inf)], (1.0, 3.0)) == (6.0, math.inf)


def test_contradictions_are_taken_for_noise_and_widen_the_interval() -> None:
    rows = [measured(1.0, 1.0, low=10.0, high=10.0), measured(1.0, 1.0, low=14.0, high=14.0)]
    found = interval(rows, (1.0, 1.0))
    assert found is not None
    low, high = found
    assert 10.0 / 1.25 <= low <= 14.0
    assert 10.0 <= high <= 14.0 * 1.25


def test_what_no_noise_explains_is_no_interval() -> None:
    rows = [measured(1.0, low=1.0, high=1.0), measured(1.0, low=1e6, high=1e6)]
    assert interval(rows, (1.0,)) is None


def test_the_truth_lies_within_for_any_costs() -> None:
    chance = random.Random(7)
    for _ in range(300):
        costs = [chance.uniform(0, 5) * (chance.random() > 0.2) for _ in range(3)]

        def amounts() -> tuple[float, float, float]:
            return 1.0, chance.uniform(0.1, 20), chance.uniform(0, 20)

        rows = []
        for _ in range(chance.randint(1, 5)):
            of = amounts()
            value = sum(a * c for a, c in zip(of, costs, strict=True))
            rows.append(MeasuredSum(of, value * chance.uniform(0.9, 1.0), value * chance.uniform(1.0, 1.1)))

        wanted = amounts()
        truth = sum(a * c for a, c in zip(wanted, costs, strict=True))
        found = interval(rows, wanted)
        assert found is not None
        assert found[0] - 1e-6 <= truth <= found[1] + 1e-6
