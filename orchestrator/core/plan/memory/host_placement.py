"""Which tensors of a model are in host memory: as a plan places them, or as an engine's fit says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.engine_log.fitted_layers import FittedLayers
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.placement import HOST, place
from orchestrator.core.plan.shape import PlanShape

EXPERTS = re.compile(r"ffn_(?:up|down|gate|gate_up)_(?:ch|)exps\.")
_DENSE_FFN = re.compile(r"ffn_(?:up|down|gate|gate_up)\.")
_BOTH = re.compile(f"{EXPERTS.pattern}|{_DENSE_FFN.pattern}")
_LAYER = re.compile(r"blk\.(\d+)\.(.*)")

_ALL_EXPERTS = 4
_ELSEWHERE = {
    1: re.compile(r"ffn_(?:gate|up|gate_up|down)"),
    2: re.compile(r"ffn_(?:gate|gate_up|down)"),
    3: re.compile(r"ffn_down"),
    _ALL_EXPERTS: EXPERTS,
}
"""What upstream's fit keeps off a device of a partial layer, by `overflow_type` (`common/fit.cpp`)."""


@dataclass(frozen=True, slots=True)
class HostPlacement:
    """What is in host memory.

    :param blocks: how many the model has
    :param layers: blocks that are there with everything
    :param parts: of other blocks, by number, which tensors are there
    :param output: whether the output layer is there
    :param where: which layers that is, for people; empty when it is none
    """

    blocks: int
    layers: frozenset[int]
    parts: Mapping[int, re.Pattern[str]]
    output: bool
    where: str

    def has(self, name: str) -> bool:
        """Return whether a tensor is there."""
        match = _LAYER.match(name)
        if match is None:
            # Rows of the input embedding are looked up on the host, wherever the layers are.
            return self.output if name.startswith("output") else name.startswith("token_embd") or 0 in self.layers

        layer = int(match[1])
        if min(layer, self.blocks - 1) in self.layers:  # blocks of MTP go with the last layer
            return True

        return layer in self.parts and self.parts[layer].match(match[2]) is not None


def planned_placement(geometry: Geometry, shape: PlanShape, kind: Kind) -> HostPlacement:
    """Return what is in host memory of a start in which the engine chooses nothing."""
    devices, output = place(geometry, shape, "ik" if kind == "ik" else "upstream")
    whole = frozenset(layer for layer, device in enumerate(devices) if device == HOST)
    parts = {
        layer: _BOTH
        if layer < min(shape.n_cpu_moe, shape.n_cpu_ffn)
        else EXPERTS
        if layer < shape.n_cpu_moe
        else _DENSE_FFN
        for layer in range(len(devices))
        if layer not in whole and layer < max(shape.n_cpu_moe, shape.n_cpu_ffn)
    }
    return _placement(geometry, whole, parts, output=output == HOST)


def fitted_placement(fitted: FittedLayers, geometry: Geometry, shape: PlanShape, kind: Kind) -> HostPlacement | None:
    """Return what is in host memory of a start whose fit chose; None where its lines do not tell."""
    return _fork_placement(fitted, geometry) if kind == "ik" else _upstream_placement(fitted, geometry, shape)


def _fork_placement(fitted: FittedLayers, geometry: Geometry) -> HostPlacement | None:
    """Return what the fork's fit left on the host. Experts that it moves there it copies: then nothing is mapped."""
    needed, free = (fitted.sums_mib.get(which) for which in ("needed", "free"))
    if needed is None or free is None:
        return None

    if fitted.named:
        return _placement(geometry, frozenset(range(geometry.block_count)) - fitted.named, {}, output=False)

    return _placement(geometry, frozenset(), {}, output=False) if needed < free else None


def _upstream_placement(fitted: FittedLayers, geometry: Geometry, shape: PlanShape) -> HostPlacement | None:
    """Return what upstream's fit left on the host: layers before those of the devices, and parts of layers on them."""
    if not fitted.done or fitted.offloaded is None:
        return None

    count, of = fitted.offloaded
    taken = [fitted.taken[device] for device in sorted(fitted.taken)]
    if of != geometry.block_count + 1 or (taken and sum(each.layers for each in taken) != count):
        return None

    parts: dict[int, re.Pattern[str]] = {}
    # The fit counts the blocks of MTP where they are loaded, the loader always.
    at = (geometry.block_count if shape.draft_max else len(geometry.trunk)) + 1 - count
    for number, each in enumerate(taken, 1):
        if each.partial > each.layers or each.part not in _ELSEWHERE:
            return None

        at += each.layers - each.partial
        parts |= dict.fromkeys(range(at, at + each.partial), EXPERTS)
        if each.partial and each.part != _ALL_EXPERTS:
            if number < len(taken):
                del parts[at]  # it goes on the next device
            else:
                parts[at] = _ELSEWHERE[each.part]

        at += each.partial

    return _placement(geometry, frozenset(range(of - count)), parts, output=count == 0)


def _placement(
    geometry: Geometry, layers: frozenset[int], parts: Mapping[int, re.Pattern[str]], *, output: bool
) -> HostPlacement:
    blocks = geometry.block_count
    layers &= frozenset(range(blocks))
    return HostPlacement(blocks, layers, parts, output, _where(geometry, layers, parts))


def _where(geometry: Geometry, layers: frozenset[int], parts: Mapping[int, re.Pattern[str]]) -> str:
    """Return which layers are on the host, for people."""
    if len(layers) == geometry.block_count:
        return "all layers"

    found = [f"layers {_runs(sorted(layers))}"] if layers else []
    others = {layer: parts[layer] for layer in sorted(parts) if layer not in layers and layer < geometry.block_count}
    experts = [layer for layer in geometry.expert_layers if others.get(layer) in (EXPERTS, _BOTH)]
    some = [layer for layer, pattern in others.items() if pattern not in (EXPERTS, _DENSE_FFN, _BOTH)]
    if experts:
        found.append(f"experts of layers {_runs(experts)}")

    if some:
        found.append(f"some tensors of layer {_runs(some)}")

    return ", ".join(found)


def _runs(numbers: Sequence[int]) -> str:
    """Return ascending numbers as `0-25`, or `0-3 and 8-11`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])

    return " and ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
