"""Speed against depth and clients."""

from __future__ import annotations

import pytest

from orchestrator.core.bench.curves import depth_summary, depths_up_to, find_break, fit_line, load_summary
from tests.unit.core.bench.benches import answer


def test_a_line_is_found() -> None:
    line = fit_line([(512.0, 10.5), (1024.0, 11.0), (4096.0, 14.0)])
    assert line is not None
    assert (line.at_zero, line.per_k) == pytest.approx((10.0, 1.0))
    assert fit_line([(512.0, 10.0), (512.0, 11.0)]) is None


def test_growth_along_a_line_is_no_break_and_a_step_is_one() -> None:
    steady = [(float(depth), 10 + depth / 1024) for depth in (512, 1024, 2048, 4096, 8192, 16384)]
    assert find_break(steady) is None
    assert find_break([(x, y * (1.5 if x >= 8192 else 1)) for x, y in steady]) == 8192.0
    assert find_break([(x, y * (1.1 if x >= 8192 else 1)) for x, y in steady]) is None


@pytest.mark.parametrize(
    ("limit", "depths"),
    [(512, [512]), (600, [512, 600]), (4096, [512, 1024, 2048, 4096]), (5000, [512, 1024, 2048, 4096, 5000])],
)
def test_depths_double_and_the_last_is_the_limit(limit: int, depths: list[int]) -> None:
    assert depths_up_to(limit) == depths


def test_a_summary_has_medians_the_line_and_where_it_breaks() -> None:
    rows = [(depth, answer("p", rate)) for depth, rate in ((512, 100.0), (512, 90.0), (512, 99.0), (1024, 80.0))]
    found = depth_summary(rows)
    assert [each["decode_tok_s"] for each in found["points"]] == [99.0, 80.0]
    assert found["breaks_at"] is None


def test_throughput_is_tokens_over_the_whole_span() -> None:
    found = load_summary(2, [answer("p", 50.0), answer("p", 25.0)], 4.0, 1)
    assert found["tok_s"] == 202 / 4
    assert (found["clients"], found["requests"], found["failed"]) == (2, 2, 1)
    assert found["turn_p50_s"] <= found["turn_p95_s"]
    assert load_summary(2, [], 4.0, 2)["tok_s"] is None
