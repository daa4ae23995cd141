"""What a gate says of a new build's speed, and that a bench with a tolerance ends once that is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.bench.blocks import BenchOver, BenchProgress, Measure, add_event, estimator_blocks, next_step
from orchestrator.core.bench.estimator import Block
from orchestrator.core.bench.gate import judge_speed
from tests.unit.core.bench.benches import PLAN, block, pairs

GATE = replace(PLAN, tolerate_slower=0.03)


def blocks(count: int, new_over_old: float, shake: float = 0.0) -> list[Block]:
    return estimator_blocks(PLAN, pairs(count, 100.0, 100.0 * new_over_old, shake))


@pytest.mark.parametrize(
    ("new_over_old", "expected"),
    [(1.0, "fast_enough"), (0.98, "fast_enough"), (1.2, "fast_enough"), (0.96, "too_slow"), (0.5, "too_slow")],
)
def test_a_narrow_interval_lies_on_one_side_of_the_limit(new_over_old: float, expected: str) -> None:
    assert judge_speed(blocks(3, new_over_old, 0.001), 0.03, 16) == expected


def test_what_is_tolerated_is_a_share_of_the_current_builds_rate() -> None:
    assert judge_speed(blocks(3, 0.92, 0.001), 0.1, 16) == "fast_enough"
    assert judge_speed(blocks(3, 0.999), 0.0, 16) == "too_slow"


@pytest.mark.parametrize(("new_over_old", "expected"), [(0.96, "probably_fast_enough"), (0.93, "probably_too_slow")])
def test_after_the_last_block_the_estimate_decides(new_over_old: float, expected: str) -> None:
    shaken = blocks(8, new_over_old, 0.06)
    assert judge_speed(shaken, 0.03, 20) == "unknown"
    assert judge_speed(shaken, 0.03, 16) == expected


def test_a_machine_that_was_too_busy_refuses_no_build() -> None:
    assert judge_speed(blocks(8, 0.8, 0.3), 0.03, 16) == "too_noisy"
    assert judge_speed(blocks(8, 0.9, 0.13), 0.03, 16) == "too_noisy"  # as fast, or too slow: nobody can tell
    assert judge_speed(blocks(8, 0.2, 0.3), 0.03, 16) == "too_slow"  # this is seen through any noise


def test_nothing_is_known_of_one_pair() -> None:
    assert judge_speed(blocks(1, 0.5), 0.03, 16) == "unknown"
    assert judge_speed([], 0.03, 16) == "unknown"


def ended(tolerate_slower: float | None, b_tok_s: float, shake: float) -> tuple[BenchOver, int]:
    """How a bench ends, and after how many blocks; B is faster by `shake` in each third pair."""
    plan, progress = replace(PLAN, tolerate_slower=tolerate_slower), BenchProgress()
    while isinstance(step := next_step(plan, progress), Measure):
        tok_s = 100.0 if step.side == "a" else b_tok_s * (1 + shake * (step.pair % 3 == 0))
        progress = add_event(progress, block(step.pair, step.side, tok_s))

    assert isinstance(step, BenchOver)
    return step, len(progress.measured)


def test_a_gate_ends_at_the_first_look_that_answers_it() -> None:
    assert ended(0.03, 80.0, 0.001) == (BenchOver("a_faster"), 6)
    assert ended(0.03, 100.0, 0.001) == (BenchOver("same"), 6)


def test_a_gate_goes_on_where_a_bench_would_have_its_verdict() -> None:
    """Slower for sure, and not yet known to be slower than is tolerated."""
    assert ended(None, 95.5, 0.006) == (BenchOver("a_faster"), 6)
    assert ended(0.03, 95.5, 0.006) == (BenchOver("a_faster"), 10)
