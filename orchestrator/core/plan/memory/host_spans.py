"""Which bytes of a model's files an engine reads from host memory while it computes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.plan.memory.host_placement import EXPERTS, HostPlacement

Span = tuple[int, int]
"""Offset in a file and length, bytes."""


@dataclass(frozen=True, slots=True)
class HostPart:
    """What of a model's files is mapped and read from host memory, by file.

    :param experts: the expert weights among it, none for a dense model; None where the placement is not known
    :param where: which layers that is, for people; empty where it is not known
    """

    weights: Mapping[str, tuple[Span, ...]]
    experts: Mapping[str, tuple[Span, ...]] | None
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
    placed: HostPlacement | None,
) -> HostPart:
    """Return the tensors that are in host memory, as far as the engine has them mapped.

    :param mapped: what the engine's process has mapped, by file; a model that was copied has nothing
    :param placed: None where that is not known: then all that is mapped counts, also what lies between tensors of the
        host and is on a device
    """
    weights: dict[str, list[Span]] = {}
    experts: dict[str, list[Span]] = {}
    for tensor in sorted(tensors, key=lambda each: (each.path, each.offset)):
        if placed is not None and not placed.has(tensor.name):
            continue

        for at, length in mapped.get(tensor.path, ()):
            first, end = max(at, tensor.offset), min(at + length, tensor.offset + tensor.size_bytes)
            if first < end:
                _append(weights.setdefault(tensor.path, []), first, end)
                if EXPERTS.search(tensor.name):
                    _append(experts.setdefault(tensor.path, []), first, end)

    return (
        HostPart(_fixed(weights), None) if placed is None else HostPart(_fixed(weights), _fixed(experts), placed.where)
    )


def _fixed(spans: Mapping[str, Sequence[Span]]) -> dict[str, tuple[Span, ...]]:
    return {path: tuple(each) for path, each in spans.items()}


def _append(spans: list[Span], first: int, end: int) -> None:
    """Add a range; one that begins where the last one ends, but for alignment, makes that longer."""
    if spans and first - sum(spans[-1]) < 4096:
        spans[-1] = (spans[-1][0], end - spans[-1][0])
    else:
        spans.append((first, end - first))
