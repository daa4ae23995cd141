"""The largest context, and the fewest layers on the host, with which a start fits.

Need grows with the context in straight lines, so the answer is computed from the line between two needs, and checked:
it fits, and the next step does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import CELLS_STEP
from orchestrator.core.plan.need import COLD_GROWTH_MIB, COLD_OVERHEAD_MIB, Need, PlanBuild, need_of
from orchestrator.core.plan.shape import PlanShape

MOST_CONTEXT = 1 << 20
"""Where a model does not say for how long a context it was made."""

NeedOf = Callable[[PlanShape], Need]
"""From a shape to its need, with what was learned about the build and the card."""


def needs(
    geometry: Geometry,
    build: PlanBuild,
    *,
    overhead_mib: int = COLD_OVERHEAD_MIB,
    growth_mib: int = COLD_GROWTH_MIB,
    free: Sequence[float] = (),
) -> NeedOf:
    """Return a function from shapes to needs, for a model, a build and what was learned of the device."""
    return lambda shape: need_of(geometry, shape, build, overhead_mib=overhead_mib, growth_mib=growth_mib, free=free)


def fits(need: Need, free_bytes: Sequence[int], margin_bytes: int = 0) -> bool:
    """Return whether every device has room for the upper bound of what it needs."""
    if len(need.devices) > len(free_bytes):
        return False

    return all(
        need.device_total(index).high_bytes <= free - margin_bytes
        for index, free in enumerate(free_bytes[: len(need.devices)])
    )


def largest_context(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    free_bytes: Sequence[int],
    margin_bytes: int = 0,
    *,
    limit: int = 0,
    need: NeedOf | None = None,
) -> int | None:
    """Return the largest context that fits, a multiple of 256 up to the model's own; None when not even 256 tokens fit.

    :param limit: another largest context than the model's own, for one that is stretched
    """
    need = need or needs(geometry, build)
    step = CELLS_STEP
    most = (limit or geometry.trained_context or MOST_CONTEXT) // step

    def missing(steps: int) -> int:
        """Bytes that the fullest device lacks; 0 or less fits."""
        found = need(replace(shape, context_tokens=steps * step))
        return max(
            (found.device_total(index).high_bytes - free + margin_bytes for index, free in enumerate(free_bytes)
             if index < len(found.devices)),
            default=0,
        )  # fmt: skip

    low, high = 1, max(1, most)
    below, above = missing(low), missing(high)
    if below > 0:
        return None

    if above <= 0:
        return high * step

    while high - low > 1:
        # The line between the two, a step to the safe side; never outside, and never less than a tenth of the way.
        guess = low + int((high - low) * -below / (above - below)) if above > below else (low + high) // 2
        tenth = max(1, (high - low) // 10)
        guess = min(max(guess, low + 1), high - 1)
        lacking = missing(guess)
        if lacking <= 0:
            low, below = guess, lacking
            near = low + tenth if high - low > 2 * tenth else (low + high) // 2
        else:
            high, above = guess, lacking
            near = high - tenth if high - low > 2 * tenth else (low + high) // 2

        if low < near < high:
            lacking = missing(near)
            if lacking <= 0:
                low, below = near, lacking
            else:
                high, above = near, lacking

    return low * step


def smallest_n_cpu_moe(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    free_bytes: Sequence[int],
    margin_bytes: int = 0,
    *,
    need: NeedOf | None = None,
) -> int | None:
    """Return the fewest first blocks whose experts have to be on the host; None when no number of them is enough."""
    need = need or needs(geometry, build)

    def fit(count: int) -> bool:
        return fits(need(replace(shape, n_cpu_moe=count)), free_bytes, margin_bytes)

    if fit(0):
        return 0

    if not geometry.expert_layers:
        return None

    # The first block on the host brings buffers for copies with it; from there on, each one more needs less.
    low, high = geometry.expert_layers[0], geometry.expert_layers[-1] + 1
    return _smallest(fit, low, high)


def most_gpu_layers(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    free_bytes: Sequence[int],
    margin_bytes: int = 0,
    *,
    need: NeedOf | None = None,
) -> int | None:
    """Return the most layers that can be on devices, the output counted as one; None when not even one can."""
    need = need or needs(geometry, build)
    every = geometry.block_count + 1

    def fit(fewer: int) -> bool:
        return fits(need(replace(shape, gpu_layers=every - fewer)), free_bytes, margin_bytes)

    if fit(0):
        return every

    found = _smallest(fit, 0, every - 1)
    return None if found is None else every - found


def _smallest(fit: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number in (low, high] that fits, where every larger one does."""
    if not fit(high):
        return None

    while high - low > 1:
        middle = (low + high) // 2
        if fit(middle):
            high = middle
        else:
            low = middle

    return high
