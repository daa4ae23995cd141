"""What measurements leave open: the interval of a sum of products whose factors are known only through other such sums.

Each measurement says that a_1 c_1 + a_2 c_2 + ... lay between two values, with costs c that are not negative. The costs
that agree with all of them form a polyhedron; the least and the largest value of another sum lie in its corners, which
are few enough here to visit them all (a linear programme with two or three unknowns).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

_TOLERANCE = 1e-9
_WIDER = 1.25
_WIDENED = 12
"""Measurements that contradict each other are taken for less exact, up to 14 times."""


class MeasuredSum(NamedTuple):
    """A sum that was measured.

    :param amounts: what each cost is multiplied by; `high` may be infinite
    """

    amounts: Sequence[float]
    low: float
    high: float


def interval(measured: Sequence[MeasuredSum], amounts: Sequence[float]) -> tuple[float, float] | None:
    """Return between which values a sum lies; the upper one is infinite where nothing bounds it.

    :return: None when the measurements cannot all be true, however inexact
    """
    rows = list(measured)
    for _ in range(_WIDENED):
        corners = _corners(rows, len(amounts))
        if corners:
            values = [sum(map(float.__mul__, map(float, amounts), corner)) for corner in corners]
            open_ = any(
                amount > 0 and not any(row.amounts[index] > 0 and row.high < math.inf for row in rows)
                for index, amount in enumerate(amounts)
            )
            return min(values), math.inf if open_ else max(values)

        rows = [MeasuredSum(row.amounts, row.low / _WIDER, row.high * _WIDER) for row in rows]

    return None


def _corners(rows: Sequence[MeasuredSum], unknowns: int) -> list[list[float]]:
    """Return the corners of what the rows allow."""
    planes = [([float(index == other) for other in range(unknowns)], 0.0) for index in range(unknowns)]
    for row in rows:
        planes += [(list(map(float, row.amounts)), bound) for bound in {row.low, row.high} if bound < math.inf]

    corners = (_meeting(chosen) for chosen in combinations(planes, unknowns))
    return [corner for corner in corners if corner is not None and _allowed(corner, rows)]


def _allowed(corner: Sequence[float], rows: Sequence[MeasuredSum]) -> bool:
    if min(corner) < -_TOLERANCE:
        return False

    for row in rows:
        value = sum(a * c for a, c in zip(row.amounts, corner, strict=True))
        slack = _TOLERANCE * max(1.0, abs(row.low))
        if not row.low - slack <= value <= row.high + slack:
            return False

    return True


def _meeting(planes: Sequence[tuple[list[float], float]]) -> list[float] | None:
    """Return the point where the planes meet, by elimination; None where there is none, or more than one."""
    rows = [[*amounts, value] for amounts, value in planes]
    count = len(rows)
    for column in range(count):
        pivot = max(range(column, count), key=lambda index: abs(rows[index][column]))
        if abs(rows[pivot][column]) < _TOLERANCE:
            return None

        rows[column], rows[pivot] = rows[pivot], rows[column]
        for index in range(count):
            if index != column:
                factor = rows[index][column] / rows[column][column]
                rows[index] = [a - factor * b for a, b in zip(rows[index], rows[column], strict=True)]

    return [rows[index][count] / rows[index][index] for index in range(count)]
