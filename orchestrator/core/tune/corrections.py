"""What trials add to a forecast: a number for each choice of each axis, as if axes did not know of each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.tune.space import Point

PULL = 0.1
"""Trials without effect that each number is fitted beside: the square of noise (1.5 %) over that of effects (5 %)."""

SWEEPS = 30
"""Passes over all numbers, each fitted while the others stand: more change nothing that matters."""


@dataclass(frozen=True, slots=True)
class Corrections:
    """What is added to a forecast.

    :param level: everywhere; `choices` by axis and number of the choice
    """

    level: float = 0.0
    choices: Mapping[tuple[int, int], float] = field(default_factory=dict)

    def at(self, point: Point) -> float:
        return self.level + sum(self.choices.get(each, 0.0) for each in enumerate(point))


def fitted(residuals: Sequence[tuple[Point, float]]) -> Corrections:
    """Return the corrections that explain what was measured less what was forecast, drawn towards nothing.

    The sums of squares of a ridge regression, by coordinates: the design is small, and nearly orthogonal.
    """
    if not residuals:
        return Corrections()

    level = sum(value for _, value in residuals) / len(residuals)
    choices = {(axis, at): 0.0 for point, _ in residuals for axis, at in enumerate(point)}
    for _ in range(SWEEPS):
        level += sum(value - _told(level, choices, point) for point, value in residuals) / len(residuals)
        for key in choices:
            axis, at = key
            over = [value - _told(level, choices, point) for point, value in residuals if point[axis] == at]
            choices[key] = (sum(over) + len(over) * choices[key]) / (len(over) + PULL)

    return Corrections(level, choices)


def _told(level: float, choices: Mapping[tuple[int, int], float], point: Point) -> float:
    return level + sum(choices[each] for each in enumerate(point))
