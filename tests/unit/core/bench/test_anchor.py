"""Drift and blocks that lie far from the others."""

from __future__ import annotations

from math import log

from orchestrator.core.bench.anchor import drifts, far_blocks
from orchestrator.core.bench.estimator import Block, Side

SIDES: tuple[Side, ...] = ("a", "b", "b", "a", "a", "b", "b", "a", "b", "a")


def made(*own: float) -> list[Block]:
    return [Block(side, (4 + each, 5 + each, 4.5 + each)) for side, each in zip(SIDES, own, strict=False)]


def test_a_steady_machine_is_neither() -> None:
    steady = made(0.01, 0.0, -0.01, 0.02, 0.0, 0.01, -0.02, 0.0, 0.01, 0.0)
    assert drifts(steady) == []
    assert far_blocks(steady) == []


def test_a_target_that_became_a_tenth_slower_has_drifted() -> None:
    found = drifts(made(0.0, 0.0, -0.03, -0.06, -0.09, -0.05, -0.06, -0.12))
    assert [each.side for each in found] == ["a"]
    assert found[0].change < -log(1.1)


def test_a_block_far_below_the_others_is_found() -> None:
    found = far_blocks(made(0.01, 0.0, -0.01, -0.35, 0.0, 0.01, -0.02, 0.0))
    assert [each.index for each in found] == [3]


def test_a_block_that_is_no_tenth_away_stays_however_close_the_others_are() -> None:
    assert far_blocks(made(0.0, 0.0, 0.0, -0.08, 0.0, 0.0, 0.0, 0.0)) == []


def test_a_few_blocks_say_nothing() -> None:
    assert far_blocks(made(0.0, 0.5, 0.0, 0.0)) == []
    assert drifts(made(0.0, 0.0, 0.0, 0.5)) == []
