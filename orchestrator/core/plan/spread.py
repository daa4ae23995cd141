"""How to split a model's layers over several devices so that more of it fits than with shares by free memory.

Experts leave the first layers first, so that a device with those is emptied while the last one stays full: with a split
of its own each number of layers on the host is used to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import NeedOf, fits


def spread(
    geometry: Geometry, shape: PlanShape, free_bytes: Sequence[int], margin_bytes: int, need: NeedOf
) -> PlanShape | None:
    """Return the shape with a split that fits; None when none does, or one is set, or there is one device.

    Each device gets as many layers as it has room for, the last one the rest.
    """
    devices = len(free_bytes)
    if devices < 2 or shape.tensor_split or shape.gpu_layers is not None:
        return None

    counts: list[int] = []
    left = geometry.block_count + 1  # the output counts as a layer
    for index in range(devices - 1):
        low, high = 0, left
        while low < high:
            middle = (low + high + 1) // 2
            tried = need(_split(shape, (*counts, middle, left - middle), devices))
            if tried.device_total(index).high_bytes <= free_bytes[index] - margin_bytes:
                low = middle
            else:
                high = middle - 1

        counts.append(low)
        left -= low

    found = _split(shape, (*counts, left), devices)
    return found if fits(need(found), free_bytes, margin_bytes) else None


def spread_experts(
    geometry: Geometry, shape: PlanShape, free_bytes: Sequence[int], margin_bytes: int, need: NeedOf
) -> PlanShape | None:
    """Return the shape with the fewest first layers' experts on the host for which a split fits; None without one."""
    if len(free_bytes) < 2 or not geometry.expert_layers:
        return None

    best: PlanShape | None = None
    low, high = geometry.expert_layers[0], geometry.expert_layers[-1] + 1
    while high - low > 1 or best is None:
        middle = high if best is None else (low + high) // 2
        found = spread(geometry, replace(shape, n_cpu_moe=middle), free_bytes, margin_bytes, need)
        if found is None and best is None:
            return None

        if found is None:
            low = middle
        else:
            best, high = found, middle

    return best


def _split(shape: PlanShape, counts: Sequence[int], devices: int) -> PlanShape:
    return replace(shape, tensor_split=(*map(float, counts), *[0.0] * (devices - len(counts))))
