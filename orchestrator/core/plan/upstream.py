"""Upstream's compute buffers: what `llama_context::sched_reserve` reserves for the largest batch.

A graph's activations are rows of the batch, kept as long as a later operation needs them, so the size of a buffer is
what its greediest stage holds at one time: feed-forward, attention or logits, beside the masks and the inputs that live
through the whole graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.plan.amounts import MIB, Amount
from orchestrator.core.plan.caches import Cells, quantised
from orchestrator.core.plan.geometry import Geometry, LayerGeometry
from orchestrator.core.plan.placement import HOST, Placement
from orchestrator.core.plan.shape import PlanShape

OFFLOAD_FROM = 32
"""Tokens of a batch from which operations on weights of the host are run on a device."""

_ROTATIONS = (64, 128, 256, 512)
"""Widths of the Hadamard matrices that rotate a quantised cache."""

_COPIES_LUCK = 20 * MIB
"""What the allocator leaves unused between copies of weights, at most: measured."""

_UNMEASURED_FACTOR = 2
"""How many times the largest stage an architecture may take whose graph was not compared with an engine's."""


@dataclass(frozen=True, slots=True)
class ComputeBuffers:
    """The compute buffers of one context: of each device, and of the host."""

    devices: tuple[Amount, ...]
    host: Amount


@dataclass(frozen=True, slots=True)
class Stages:
    """Bytes that the graph of one context holds: through the whole graph, and in each of its stages.

    :param rows: one activation of the model's width
    :param inputs: the rows of the inputs
    :param small: positions and indices
    """

    tokens: int
    mask: int
    rows: int
    inputs: int
    small: int
    feed_forward: int
    experts: int
    attention: int
    logits: int
    quantised: bool

    @property
    def constant(self) -> int:
        return self.mask + self.inputs + self.small

    @property
    def greediest(self) -> int:
        return max(self.feed_forward, self.experts, self.attention, self.logits)


def batch_tokens(shape: PlanShape, cells: Cells) -> int:
    """Return the tokens of the batch that is reserved: a multiple of the slots."""
    tokens = shape.ubatch_in(cells.full)
    return tokens + -tokens % max(1, shape.slots)


def stages_of(geometry: Geometry, shape: PlanShape, cells: Cells, *, mtp: bool) -> Stages:
    """Return what the graph of the main context holds, or that of the context in which MTP drafts."""
    layers = geometry.mtp if mtp else geometry.trunk
    tokens = batch_tokens(shape, cells)
    slots = max(1, shape.slots)
    outputs = shape.outputs or slots * (1 if mtp else 1 + shape.draft_max)
    keys = (shape.draft_kv_k, shape.draft_kv_v) if mtp else (shape.kv_k, shape.kv_v)
    rows = 4 * geometry.embedding * tokens
    return Stages(
        tokens=tokens,
        mask=_mask_bytes(geometry, shape, cells, tokens),
        rows=rows,
        inputs=(2 if mtp else 4) * rows,
        small=64 * tokens + _rotation_bytes(layers, keys),
        feed_forward=12 * tokens * max((layer.feed_forward for layer in layers if not layer.expert_bytes), default=0),
        experts=_expert_bytes(geometry, layers, tokens),
        attention=_attention_bytes(geometry, shape, cells, layers, tokens, keys),
        logits=4 * geometry.vocabulary * min(outputs, tokens),
        quantised=any(map(quantised, keys)),
    )


def main_compute(geometry: Geometry, shape: PlanShape, cells: Cells, placement: Placement) -> ComputeBuffers:
    """Return the compute buffers of the main context."""
    stages = stages_of(geometry, shape, cells, mtp=False)
    size = stages.constant
    if all(place == HOST for place in placement.layers):
        host = Amount(stages.mask, size + stages.greediest + 4 * stages.rows, "interval")
        return ComputeBuffers(_offloaded_alone(geometry, shape, stages), host)

    devices = tuple(_device(geometry, shape, stages, placement, index) for index in range(shape.devices))
    away = HOST in placement.layers[: len(geometry.trunk)] or not shape.kv_offload or _experts_away(geometry, shape)
    if not away:
        return ComputeBuffers(devices, _measured(geometry, size, size + stages.rows // 64, stages))

    return ComputeBuffers(devices, Amount(stages.mask, size + stages.greediest + 3 * stages.rows, "interval"))


def mtp_compute(geometry: Geometry, shape: PlanShape, cells: Cells) -> ComputeBuffers:
    """Return the compute buffers of the context in which MTP drafts."""
    stages = stages_of(geometry, shape, cells, mtp=True)
    feed_forward = max(stages.feed_forward, stages.experts)
    full = stages.constant + feed_forward
    # Its only attention layer comes first: the room of its mask is used again where it is large.
    spared = (2 * stages.experts // 3 if stages.experts else stages.feed_forward // 3) + 2 * stages.rows
    low = full - spared if stages.mask >= 2 * spared else full
    low = max(low, stages.mask + stages.attention if stages.quantised else 0)
    device = Amount(min(low, full), max(full, stages.constant + stages.attention) + 2 * stages.rows, "interval")
    host = stages.constant
    return ComputeBuffers((device,), Amount(host - stages.rows, host + stages.rows // 64, "computed"))


def _measured(geometry: Geometry, low: int, high: int, stages: Stages) -> Amount:
    if geometry.measured:
        return Amount(low, high, "computed")

    return Amount(0, high + _UNMEASURED_FACTOR * stages.greediest, "interval")


def _device(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement, index: int) -> Amount:
    """The compute buffer of one device."""
    low = stages.constant + stages.greediest
    luck = stages.rows if stages.quantised or not shape.flash_attention else 0
    if not shape.kv_offload:
        attention = stages.attention
        return Amount(low - attention, low + attention + 3 * stages.rows, "interval")

    trunk = placement.layers[: len(geometry.trunk)]
    if HOST in trunk or _experts_away(geometry, shape) or shape.n_cpu_ffn:
        return _with_copies(geometry, shape, stages, placement, low, luck)

    if shape.devices > 1:
        # The last device alone has the logits; several devices that work at once keep four copies of their inputs.
        return Amount(stages.mask, low + 3 * (stages.mask + stages.inputs) + luck, "interval")

    return _measured(geometry, low - luck, low + luck + stages.rows // 64, stages)


def _with_copies(
    geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement, on_device: int, luck: int
) -> Amount:
    """A buffer that also takes weights of the host for large batches: how many at a time is the allocator's luck."""
    floor = min(on_device, stages.mask + stages.rows)
    if not shape.op_offload or stages.tokens < OFFLOAD_FROM:
        return Amount(floor, on_device + luck + 2 * stages.rows, "interval")

    largest = everything = 0
    for index, layer in enumerate(geometry.trunk):
        if placement.layers[index] == HOST:
            everything = max(everything, layer.weights_bytes)
        elif index < shape.n_cpu_moe and not layer.expert_biases:
            everything = max(everything, sum(layer.expert_tensors))
            largest = max(largest, *layer.expert_tensors, 0)
        elif index < shape.n_cpu_ffn:
            everything = max(everything, layer.ffn_bytes)

    if HOST not in placement.layers:
        floor = max(on_device - luck, stages.mask + stages.inputs + largest + 2 * stages.experts // 3)

    output = geometry.output_bytes if placement.output == HOST else 0
    copied = stages.constant + max(everything, output) + stages.greediest + _COPIES_LUCK
    return Amount(min(floor, on_device), max(on_device + luck, copied) + 2 * stages.rows, "interval")


def _offloaded_alone(geometry: Geometry, shape: PlanShape, stages: Stages) -> tuple[Amount, ...]:
    """The buffers of devices that hold no layer: large operations are still brought to them."""
    if shape.devices < 1:
        return ()

    if not shape.op_offload or stages.tokens < OFFLOAD_FROM:
        return (Amount(0, stages.constant, "interval"),) * shape.devices

    most = max((layer.weights_bytes for layer in geometry.trunk), default=0)
    high = stages.constant + max(most, geometry.output_bytes) + stages.greediest + _COPIES_LUCK
    return (Amount(0, high, "interval"),) * shape.devices


def _experts_away(geometry: Geometry, shape: PlanShape) -> bool:
    return any(index < shape.n_cpu_moe for index in geometry.expert_layers)


def _mask_bytes(geometry: Geometry, shape: PlanShape, cells: Cells, tokens: int) -> int:
    """The attention masks: one for each size of cache; wider without flash attention."""
    size = 2 if shape.flash_attention else 4
    full = size * cells.full // cells.streams * tokens
    return full + (size * cells.window // cells.streams * tokens if geometry.window else 0)


def _expert_bytes(geometry: Geometry, layers: Sequence[LayerGeometry], tokens: int) -> int:
    """What a layer of experts holds: its rows for each expert used, and what the experts make of them."""
    biased = any(layer.expert_biases for layer in layers)
    if not any(layer.expert_bytes for layer in layers):
        return 0

    inner = (2 if biased else 3) * geometry.expert_feed_forward
    return 4 * geometry.experts_used * tokens * (geometry.embedding + inner)


def _attention_bytes(
    geometry: Geometry,
    shape: PlanShape,
    cells: Cells,
    layers: Sequence[LayerGeometry],
    tokens: int,
    keys: tuple[str, str],
) -> int:
    """What the greediest attention layer holds: queries, and keys and values in f16 where they are quantised."""
    most = 0
    for layer in {layer for layer in layers if layer.attends}:
        queries = 4 * tokens * layer.heads * layer.key_length
        own = cells.window if layer.window else cells.full
        if shape.flash_attention:
            stage = queries * (5 if geometry.gated_attention else 2)
            for type_name, width in zip(keys, (layer.key_width, layer.value_width), strict=True):
                stage += 2 * own * width if quantised(type_name) else 0
        else:
            stage = 4 * layer.heads * (own // cells.streams) * tokens + 2 * queries

        most = max(most, stage)

    return most


def _rotation_bytes(layers: Sequence[LayerGeometry], keys: tuple[str, str]) -> int:
    """The matrices that rotate a quantised cache, upstream since b8607."""
    lengths = {layer.key_length for layer in layers if layer.attends}
    if not any(map(quantised, keys)) or not lengths:
        return 0

    widths = [width for width in _ROTATIONS if max(lengths) % width == 0]
    return 4 * sum(width * width for width in {64, *widths[-1:]})
