"""Which bytes of a model's files an engine reads from host memory while it computes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.placement import HOST, place
from orchestrator.core.plan.shape import PlanShape

Span = tuple[int, int]
"""Offset in a file and length, bytes."""

_LAYER = re.compile(r"blk\.(\d+)\.(.*)")
_EXPERTS = re.compile(r"ffn_(?:up|down|gate|gate_up)_(?:ch|)exps\.")
_DENSE_FFN = re.compile(r"ffn_(?:up|down|gate|gate_up)\.")


@dataclass(frozen=True, slots=True)
class HostPart:
    """What of a model's files is mapped and read from host memory, by file.

    :param experts: the expert weights among it; empty for a dense model
    :param where: which layers that is, for people; empty where the placement is the engine's own choice
    """

    weights: Mapping[str, tuple[Span, ...]]
    experts: Mapping[str, tuple[Span, ...]]
    where: str = ""


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor in one of the files of a model."""

    path: str
    name: str
    offset: int
    size_bytes: int


def host_part(
    tensors: Iterable[FileTensor],
    mapped: Mapping[str, Sequence[Span]],
    placed: tuple[Geometry, PlanShape, Kind] | None,
) -> HostPart:
    """Return the tensors that are in host memory, as far as the engine has them mapped.

    :param mapped: what the engine's process has mapped, by file; a model that was copied has nothing
    :param placed: the model and the shape of the start; None where the engine chose the placement: then all that is
        mapped counts, also what lies between tensors of the host and is on a device
    """
    weights: dict[str, list[Span]] = {}
    experts: dict[str, list[Span]] = {}
    for tensor in sorted(tensors, key=lambda each: (each.path, each.offset)):
        if placed is not None and not _on_host(tensor.name, *placed):
            continue

        for at, length in mapped.get(tensor.path, ()):
            first, end = max(at, tensor.offset), min(at + length, tensor.offset + tensor.size_bytes)
            if first < end:
                _append(weights.setdefault(tensor.path, []), first, end)
                if _EXPERTS.search(tensor.name):
                    _append(experts.setdefault(tensor.path, []), first, end)

    return HostPart(_fixed(weights), _fixed(experts), _where(*placed) if placed is not None else "")


def _fixed(spans: Mapping[str, Sequence[Span]]) -> dict[str, tuple[Span, ...]]:
    return {path: tuple(each) for path, each in spans.items()}


def _append(spans: list[Span], first: int, end: int) -> None:
    """Add a range; one that begins where the last one ends, but for alignment, makes that longer."""
    if spans and first - sum(spans[-1]) < 4096:
        spans[-1] = (spans[-1][0], end - spans[-1][0])
    else:
        spans.append((first, end - first))


def _on_host(name: str, geometry: Geometry, shape: PlanShape, kind: Kind) -> bool:
    layers, output = place(geometry, shape, "ik" if kind == "ik" else "upstream")
    match = _LAYER.match(name)
    if match is None:
        # Rows of the input embedding are looked up on the host, wherever the layers are.
        return output == HOST if name.startswith("output") else name.startswith("token_embd") or HOST in layers[:1]

    layer = int(match[1])
    if HOST in layers[min(layer, len(layers) - 1) :][:1]:  # blocks of MTP go with the last layer
        return True

    if _EXPERTS.match(match[2]):
        return layer < shape.n_cpu_moe

    return layer < shape.n_cpu_ffn and _DENSE_FFN.match(match[2]) is not None


def _where(geometry: Geometry, shape: PlanShape, kind: Kind) -> str:
    """Return which layers are on the host, for people."""
    layers, _ = place(geometry, shape, "ik" if kind == "ik" else "upstream")
    whole = [index for index, device in enumerate(layers) if device == HOST]
    if len(whole) == len(layers):
        return "all layers"

    parts = [f"layers {_runs(whole)}"] if whole else []
    experts = [index for index in geometry.expert_layers if index < shape.n_cpu_moe and index not in whole]
    if experts:
        parts.append(f"experts of layers {_runs(experts)}")

    return ", ".join(parts)


def _runs(numbers: Sequence[int]) -> str:
    """Return numbers, which are one run in all placements, as `0-25`."""
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
