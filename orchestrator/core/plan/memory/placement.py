"""Which device a layer's weights and cache are on, as each engine decides it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.shape import ALL, PlanShape

HOST = -1


class Placement(NamedTuple):
    """The device of each block and of the output layer; HOST is the host."""

    layers: tuple[int, ...]
    output: int


def place(
    geometry: Geometry, shape: PlanShape, kind: Literal["upstream", "ik"], free: Sequence[float] = ()
) -> Placement:
    """Return where the layers go.

    Upstream counts the output as a layer, and the blocks of MTP even when they are not loaded; the fork counts blocks.

    :param free: free memory of each device, by which layers are shared out where no split is given
    """
    wanted = ALL if shape.gpu_layers is None else shape.gpu_layers
    split = shape.tensor_split if any(shape.tensor_split) else tuple(free)
    return _place(geometry.block_count, wanted, shape.devices, split, kind)


@lru_cache(maxsize=512)
def _place(
    count: int, wanted: int, devices: int, split: tuple[float, ...], kind: Literal["upstream", "ik"]
) -> Placement:
    acting = min(wanted, count + 1)
    if devices < 1 or not acting:
        return Placement((HOST,) * count, HOST)

    start = max(0, count + 1 - wanted if kind == "upstream" else count - wanted)
    points = _points(devices, split)
    layers = tuple(HOST if index < start else _device(points, (index - start) / acting) for index in range(count))
    output = HOST
    if kind == "upstream" or wanted > count:
        output = _device(points, (count - start) / acting)

    return Placement(layers, output)


def _points(devices: int, split: Sequence[float]) -> list[float]:
    """The ends of the devices' shares, the last being 1; equal shares where nothing is told."""
    shares = [*split[:devices], *[0.0] * (devices - len(split))]
    if not any(shares):
        shares = [1.0] * devices

    ends = list(accumulate(shares))
    return [end / ends[-1] for end in ends]


def _device(points: Sequence[float], place_: float) -> int:
    return next((index for index, end in enumerate(points) if place_ < end), len(points) - 1)
