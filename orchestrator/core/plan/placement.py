"""Which device a layer's weights and cache are on, as each engine decides it."""

from __future__ import annotations

from collections.abc import Sequence
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
    count = geometry.block_count
    wanted = ALL if shape.gpu_layers is None else shape.gpu_layers
    acting = min(wanted, count + 1)
    if shape.devices < 1 or not acting:
        return Placement((HOST,) * count, HOST)

    start = max(0, count + 1 - wanted if kind == "upstream" else count - wanted)
    points = _points(shape, free)
    layers = tuple(HOST if index < start else _device(points, (index - start) / acting) for index in range(count))
    output = HOST
    if kind == "upstream" or wanted > count:
        output = _device(points, (count - start) / acting)

    return Placement(layers, output)


def _points(shape: PlanShape, free: Sequence[float]) -> list[float]:
    """The ends of the devices' shares, the last being 1."""
    split = list(shape.tensor_split[: shape.devices])
    if not any(split):
        split = list(free[: shape.devices])

    if not any(split):
        split = [1.0] * shape.devices

    split += [0.0] * (shape.devices - len(split))
    ends, so_far = [], 0.0
    for each in split:
        so_far += each
        ends.append(so_far)

    return [end / so_far for end in ends]


def _device(points: Sequence[float], place_: float) -> int:
    return next((index for index, end in enumerate(points) if place_ < end), len(points) - 1)
