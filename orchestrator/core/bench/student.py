"""Quantiles of Student's t distribution with whole degrees of freedom, by the finite sums of Abramowitz and Stegun."""

from __future__ import annotations

from functools import cache
from math import cos, pi, sin, tan

STEPS = 60
"""Bisections of the angle: more than a double can tell apart."""


def probability_within(theta: float, freedom: int) -> float:
    """Return P(|T| <= tan(theta) * sqrt(freedom)): formulas 26.7.3 (odd) and 26.7.4 (even).

    :param theta: an angle between 0 and pi / 2
    """
    square = cos(theta) ** 2
    if freedom % 2:
        term, total = cos(theta), 0.0
        for k in range(3, freedom + 1, 2):
            total += term
            term *= square * (k - 1) / k

        return 2 / pi * (theta + sin(theta) * total)

    term, total = 1.0, 0.0
    for k in range(2, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k

    return sin(theta) * total


@cache
def two_sided_quantile(level: float, freedom: int) -> float:
    """Return the t that |T| passes with probability `level`: 2.776 at .05 with 4 degrees of freedom."""
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"no quantile of t at level {level} with {freedom} degrees of freedom")

    low, high = 0.0, pi / 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if probability_within(middle, freedom) < 1 - level else (low, middle)

    return float(tan(low) * freedom**0.5)
