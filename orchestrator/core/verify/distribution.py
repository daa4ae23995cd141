"""Whether what an engine drew has the distribution that it should have. Pure.

The G-test (Sokal and Rohlf, Biometry, 4th ed., chapter 17): twice the sum of observed times log(observed / expected) is
distributed as chi-square when the draws have the expected probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

LEVEL = 1e-5
"""Of each test: a healthy engine fails one of 100 000."""

_LEAST_EXPECTED = 5.0
"""Rarer outcomes are counted together, as the approximation by chi-square needs."""


class Fit(NamedTuple):
    """:param statistic: G, summed over all rows; `limit` is what it exceeds with probability `LEVEL`"""

    statistic: float
    degrees: int
    limit: float

    @property
    def ok(self) -> bool:
        return self.statistic <= self.limit


def fit_of_draws(rows: Mapping[int, Mapping[int, int]], truth: Mapping[int, Mapping[int, float]]) -> Fit:
    """Return how well draws fit their probabilities.

    States whose outcomes have the same probabilities are counted together, by the rank of the outcome.

    :param rows: state to outcome to how often it was drawn
    :param truth: state to outcome to probability; an outcome that is absent cannot be, and gives an infinite statistic
    """
    pooled: dict[tuple[float, ...], list[int]] = {}
    for state, counts in rows.items():
        if any(outcome not in truth[state] for outcome in counts):
            return Fit(math.inf, 1, chi_square_limit(1))

        ranked = sorted(truth[state].items(), key=lambda each: (-each[1], each[0]))
        found = pooled.setdefault(tuple(round(probability, 9) for _, probability in ranked), [0] * len(ranked))
        for rank, (outcome, _) in enumerate(ranked):
            found[rank] += counts.get(outcome, 0)

    statistic, degrees = 0.0, 0
    for probabilities, counted in pooled.items():
        total = sum(counted)
        cells = _enough([(count, total * share) for count, share in zip(counted, probabilities, strict=True)])
        degrees += len(cells) - 1
        statistic += 2 * sum(count * math.log(count / expected) for count, expected in cells if count)

    return Fit(statistic, degrees, chi_square_limit(degrees) if degrees else 0.0)


def spread_of_texts(texts: Sequence[Sequence[tuple[float, bool]]]) -> Fit:
    """Return whether texts differ among each other as independent draws do.

    A text in which every step drew the same random number is all likeliest or all unlikely, while the sum over many
    texts may be right.

    :param texts: of each text, the steps: the probability of the likeliest outcome, and whether that was drawn
    """
    statistic, degrees = 0.0, 0
    for steps in texts:
        spread = sum(probability * (1 - probability) for probability, _ in steps)
        if spread >= 1.0:
            off = sum(drawn - probability for probability, drawn in steps)
            statistic += off * off / spread
            degrees += 1

    return Fit(statistic, degrees, chi_square_limit(degrees) if degrees else 0.0)


def _enough(cells: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Join cells, the likeliest first, until each has the least that is expected of one."""
    joined: list[tuple[int, float]] = []
    count, expected = 0, 0.0
    for more, share in cells:
        count, expected = count + more, expected + share
        if expected >= _LEAST_EXPECTED:
            joined.append((count, expected))
            count, expected = 0, 0.0

    if joined and (count or expected):
        last = joined.pop()
        joined.append((last[0] + count, last[1] + expected))

    return joined or [(count, expected)]


def chi_square_limit(degrees: int, level: float = LEVEL) -> float:
    """Return what chi-square exceeds with this probability (Wilson and Hilferty, 1931: within 2 %)."""
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + NormalDist().inv_cdf(1 - level) * math.sqrt(part)) ** 3)
