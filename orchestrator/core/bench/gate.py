"""Whether a new build may take the place of the current one, by the speed that a bench found. Pure.

A bench asks which of two is faster. A gate asks less: is the new one (B) not slower than the current one (A) by more
than is tolerated? It goes by the same blocks, looks and intervals, and ends as soon as the interval lies on one side of
the limit. How often it errs: `benchmarks/bench_simulation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p
from typing import Literal

from orchestrator.core.bench.estimator import Block, estimate, level_of

GateSpeed = Literal["fast_enough", "too_slow", "probably_fast_enough", "probably_too_slow", "too_noisy", "unknown"]

PASSES: frozenset[GateSpeed] = frozenset({"fast_enough", "probably_fast_enough", "too_noisy"})
"""What a build is made current with."""


def judge_speed(blocks: Sequence[Block], tolerate_slower: float, most_blocks: int) -> GateSpeed:
    """Return what the blocks say of B's speed.

    `unknown` while the interval holds the limit and more blocks are to come. Where it still does at the end, the
    estimate itself decides, and the answer is `probably` only. Where the interval holds 0 as well, the machine was too
    busy to tell a build as fast as the other one from one that is too slow: none is refused for that.

    :param blocks: in the order in which they were measured, in pairs
    :param tolerate_slower: share of A's rate, 0.03 for 3 %
    :param most_blocks: where the bench ends
    """
    found = estimate(blocks, level_of(len(blocks)))
    if found is None:
        return "unknown"

    limit = log1p(-tolerate_slower)
    if found.low > limit:
        return "fast_enough"

    if found.high < limit:
        return "too_slow"

    if len(blocks) < most_blocks:
        return "unknown"

    if found.mean > limit:
        return "probably_fast_enough"

    return "probably_too_slow" if found.high < 0 else "too_noisy"
