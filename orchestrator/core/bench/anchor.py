"""Whether a machine stayed the same while two targets were measured: drift, and blocks that lie far from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from orchestrator.core.bench.estimator import Block, Side, block_values, median

MOST_DRIFT = log(1.10)
MOST_DEVIATIONS = 5.0
LEAST_DEVIATION = 0.02
"""Robust standard deviation at least: a few blocks can lie together by chance, and what is no tenth away stays."""

LEAST_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class AnchorDrift:
    """One target's first and last block differ by more than a tenth."""

    side: Side
    change: float
    """Logarithm of the last block's rate over the first's."""


@dataclass(frozen=True, slots=True)
class FarBlock:
    """A block that lies far from the others of its target."""

    index: int
    distance: float
    """Logarithm of its rate over the median block's."""


def drifts(blocks: Sequence[Block]) -> list[AnchorDrift]:
    """Return the targets whose speed changed by more than a tenth from their first block to their last."""
    found: list[AnchorDrift] = []
    if len(blocks) < LEAST_BLOCKS:
        return found

    values = block_values(blocks)
    sides: tuple[Side, ...] = ("a", "b")
    for side in sides:
        own = [value for block, value in zip(blocks, values, strict=True) if block.side == side]
        if abs(own[-1] - own[0]) > MOST_DRIFT:
            found.append(AnchorDrift(side, own[-1] - own[0]))

    return found


def far_blocks(blocks: Sequence[Block]) -> list[FarBlock]:
    """Return the blocks that lie more than five robust standard deviations from their target's median."""
    if len(blocks) < LEAST_BLOCKS:
        return []

    values = block_values(blocks)
    centre = {
        side: median([value for block, value in zip(blocks, values, strict=True) if block.side == side])
        for side in ("a", "b")
    }
    distances = [value - centre[block.side] for block, value in zip(blocks, values, strict=True)]
    deviation = max(1.4826 * median([abs(distance) for distance in distances]), LEAST_DEVIATION)
    return [FarBlock(k, each) for k, each in enumerate(distances) if abs(each) > MOST_DEVIATIONS * deviation]
