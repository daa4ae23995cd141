"""How much faster B is than A, from blocks of measurements in pairs: estimate, interval and verdict.

Each block is one residency of one target, in which the same prompts are measured. A measurement is the logarithm of a
rate. Prompts differ by far more than targets do, and a block shares what its residency brought (placement, heat): its
requests are no independent samples, and what is compared is one value a block, in pairs of neighbours.

The levels of the looks, the factor and the trimming were calibrated together: `benchmarks/bench_simulation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, floor, log, sqrt
from typing import Literal

from orchestrator.core.bench.student import two_sided_quantile

Side = Literal["a", "b"]
Verdict = Literal["a_faster", "b_faster", "same", "undecided"]

TRIMMED = 0.2
"""Share of a block's prompts that is left out at each end."""

SAME_WITHIN = log(1.03)
"""A difference that is not worth a change of engine."""


@dataclass(frozen=True, slots=True)
class Look:
    """When the verdict is asked for, and how sure it must be."""

    blocks: int
    level: float
    """Two-sided; what the looks spend in sum keeps false differences below 5 %."""


LOOKS = (Look(6, 0.005), Look(10, 0.015), Look(16, 0.04))

FACTORS = {4: 1.2, 6: 1.15, 10: 1.10, 16: 1.08}
"""By blocks: what the interval is widened by, as the medians of the prompts are estimated from the same blocks."""


@dataclass(frozen=True, slots=True)
class Block:
    """The measurements of one residency: logarithms, in the order of the prompts."""

    side: Side
    logs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BenchEstimate:
    """The logarithm of B's rate over A's, with its interval."""

    mean: float
    low: float
    high: float
    level: float
    by_prompt: tuple[float, ...]
    """Of each prompt, B over A: medians over blocks."""

    @property
    def ratio(self) -> float:
        return exp(self.mean)


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def trimmed_mean(values: Sequence[float]) -> float:
    """Return the mean without the smallest and the largest fifth."""
    cut = floor(len(values) * TRIMMED)
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def prompt_ratios(blocks: Sequence[Block]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return, by prompt, the middle between A's and B's medians, and B's median less A's."""
    of_a = list(zip(*(block.logs for block in blocks if block.side == "a"), strict=True))
    of_b = list(zip(*(block.logs for block in blocks if block.side == "b"), strict=True))
    medians = [(median(a), median(b)) for a, b in zip(of_a, of_b, strict=True)]
    return tuple((a + b) / 2 for a, b in medians), tuple(b - a for a, b in medians)


def block_values(blocks: Sequence[Block]) -> list[float]:
    """Return one value a block: what its prompts have in common, less what is special to each prompt."""
    centres, ratios = prompt_ratios(blocks)
    common = sum(ratios) / len(ratios)
    values = []
    for block in blocks:
        sign = 0.5 if block.side == "b" else -0.5
        values.append(
            trimmed_mean(
                [
                    y - centre - sign * (ratio - common)
                    for y, centre, ratio in zip(block.logs, centres, ratios, strict=True)
                ]
            )
        )

    return values


def factor(blocks: int) -> float:
    """Return what the interval of so many blocks is widened by."""
    return max((value for least, value in FACTORS.items() if least >= blocks), default=FACTORS[16])


def interval_of(values: Sequence[float], level: float) -> tuple[float, float]:
    """Return the mean of two or more values, and half of the width of its interval by Student's t.

    :param level: two-sided
    """
    mean = sum(values) / len(values)
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, two_sided_quantile(level, len(values) - 1) * deviation / sqrt(len(values))


def estimate(blocks: Sequence[Block], level: float) -> BenchEstimate | None:
    """Return B over A with the interval of this two-sided level, or nothing with fewer than two pairs.

    :param blocks: in the order in which they were measured; the first two are a pair, and so on
    """
    blocks = blocks[: len(blocks) // 2 * 2]
    if len(blocks) < 4:
        return None

    values = block_values(blocks)
    differences = [(values[k + 1] - values[k]) * (1 if blocks[k].side == "a" else -1) for k in range(0, len(blocks), 2)]
    mean, half = interval_of(differences, level)
    half *= factor(len(blocks))
    return BenchEstimate(mean, mean - half, mean + half, level, prompt_ratios(blocks)[1])


def verdict_at(blocks: Sequence[Block], level: float) -> Verdict:
    """Return what the blocks say at this level.

    `same` takes an interval of twice the level within the difference that is not worth having.
    """
    found, wide = estimate(blocks, level), estimate(blocks, 2 * level)
    if found is None or wide is None:
        return "undecided"

    if found.low > 0:
        return "b_faster"

    if found.high < 0:
        return "a_faster"

    return "same" if wide.low > -SAME_WITHIN and wide.high < SAME_WITHIN else "undecided"


def look_of(blocks: int) -> Look | None:
    """Return the look that falls on this number of blocks."""
    return next((look for look in LOOKS if look.blocks == blocks), None)


def level_of(blocks: int) -> float:
    """Return the level of the interval that is shown for so many blocks: that of the last look they have reached."""
    return next((look.level for look in reversed(LOOKS) if look.blocks <= blocks), LOOKS[0].level)
