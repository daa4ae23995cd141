"""What trials add to a forecast."""

from __future__ import annotations

import pytest

from orchestrator.core.tune.corrections import Corrections, fitted


def test_without_trials_nothing_is_added() -> None:
    assert fitted([]) == Corrections()
    assert fitted([]).at((1, 2)) == 0


def test_what_two_axes_bring_is_told_apart() -> None:
    rows = [((a, b), 1.0 + (0.0, 0.2)[a] + (0.0, 0.1, -0.3)[b]) for a in range(2) for b in range(3) if (a, b) != (1, 2)]
    found = fitted(rows)
    for point, value in rows:
        assert found.at(point) == pytest.approx(value, abs=0.03)

    assert found.at((1, 2)) == pytest.approx(0.9, abs=0.05)


def test_one_trial_says_little_of_a_choice_that_was_never_tried() -> None:
    found = fitted([((0, 0), 0.5), ((1, 0), 0.7)])
    assert found.at((1, 1)) < found.at((1, 0))
    assert found.at((0, 1)) == pytest.approx(found.level + found.choices[0, 0])
