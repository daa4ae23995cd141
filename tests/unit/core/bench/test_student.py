"""Quantiles of Student's t against printed tables."""

from __future__ import annotations

import pytest

from orchestrator.core.bench.student import two_sided_quantile


@pytest.mark.parametrize(
    ("level", "freedom", "expected"),
    [
        (0.05, 1, 12.706205),
        (0.05, 2, 4.302653),
        (0.01, 2, 9.924843),
        (0.05, 4, 2.776445),
        (0.01, 7, 3.499483),
        (0.1, 15, 1.753050),
        (0.05, 120, 1.979930),
    ],
)
def test_quantiles_are_those_of_the_tables(level: float, freedom: int, expected: float) -> None:
    assert two_sided_quantile(level, freedom) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("level", "freedom"), [(0.0, 3), (1.0, 3), (0.05, 0)])
def test_what_has_no_quantile_is_refused(level: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        two_sided_quantile(level, freedom)
