"""Upstream's compute buffers: what `llama_context::sched_reserve` reserves for the largest batch (b11434)."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.plan.amounts import Amount, AmountKind
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import Cells
from orchestrator.core.plan.memory.placement import HOST, Placement
from orchestrator.core.plan.memory.stages import Stages, stages_of
from orchestrator.core.plan.shape import PlanShape

OFFLOAD_FROM = 32
"""Tokens of a batch from which operations on weights of the host are run on a device."""

FIRST_REDUCED = 9737
"""Upstream's first build that is known to have masks in 16 bits (pull request 23764), logits for the outputs alone
(23861), and the copies of a quantised cache in the compute buffer (23907); the one known before it is b9246."""

COPIES = 4
"""Copies of the inputs where several devices work at once (`GGML_SCHED_MAXCOPIES`)."""

_FIRST_ROWS, NEXT_ROWS = 15, 10
"""Rows that live through the graph then, on the first device and on the others; up to two more."""

_UNMEASURED_FACTOR = 2
"""How many times its greediest stage an architecture may take whose graph was not compared with an engine's."""


@dataclass(frozen=True, slots=True)
class ComputeBuffers:
    """The compute buffers of one context: of each device, and of the host."""

    devices: tuple[Amount, ...]
    host: Amount


def main_compute(geometry: Geometry, shape: PlanShape, cells: Cells, placement: Placement) -> ComputeBuffers:
    """Return the compute buffers of the main context."""
    stages = stages_of(geometry, shape, cells)
    trunk = placement.layers[: len(geometry.trunk)]
    if all(place == HOST for place in trunk):
        devices = (_without_layers(geometry, shape, stages, placement),) * shape.devices
        return ComputeBuffers(devices, _host_alone(geometry, shape, stages))

    devices = tuple(_device(geometry, shape, stages, placement, index) for index in range(shape.devices))
    return ComputeBuffers(devices, _host(geometry, shape, stages, placement))


def before_it_was_reduced(
    compute: ComputeBuffers, geometry: Geometry, shape: PlanShape, cells: Cells
) -> ComputeBuffers:
    """Return the bounds of a build from before masks and logits took less (`FIRST_REDUCED`).

    Its masks were kept in 32 bits beside those in 16, and logits were reserved for the whole batch.
    """
    stages = stages_of(geometry, shape, cells)
    more = 2 * stages.mask + 4 * geometry.vocabulary * stages.tokens + 2 * stages.rows

    def wider(amount: Amount, added: int) -> Amount:
        return Amount(max(0, amount.low_bytes - stages.copies), amount.high_bytes + added, "interval")

    devices = tuple(wider(amount, more) for amount in compute.devices)
    return ComputeBuffers(devices, wider(compute.host, more if not shape.devices else 2 * stages.mask))


def _device(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement, index: int) -> Amount:
    """The compute buffer of one device."""
    low, high = stages.constant + stages.least, stages.constant + stages.most + stages.small
    if not shape.kv_offload:
        # One layer's cache at a time is brought to the device.
        own = stages.attention + stages.copies + stages.cache
        low = stages.constant + max(stages.feed_forward, stages.experts, own) - 4 * stages.rows
        high = stages.constant + max(stages.most, own + stages.cache // 2 + 2 * stages.rows) + 4 * stages.rows
        return Amount(low, high, "interval")

    if _copies_weights(geometry, shape, placement):
        return _with_copies(geometry, shape, stages, placement)

    if shape.devices > 1:
        return _one_of_several(geometry, shape, stages, placement, index)

    if not geometry.measured:
        return Amount(stages.mask, high + _UNMEASURED_FACTOR * stages.most, "interval")

    if not shape.flash_attention:
        mixed = len({layer.key_length for layer in geometry.trunk if layer.attends}) > 1
        return Amount(low, high + stages.rows + stages.queries * mixed, "computed")

    return Amount(low, high, "computed")


def pipelined(geometry: Geometry, shape: PlanShape) -> bool:
    """Return whether several devices work at once, each on its own copies of the inputs (`pipeline_parallel`)."""
    whole = shape.gpu_layers is None or shape.gpu_layers > geometry.block_count
    return shape.devices > 1 and whole and shape.kv_offload and not shape.n_cpu_moe and not shape.n_cpu_ffn


def _one_of_several(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement, index: int) -> Amount:
    """One of several devices. The first also has the copies of the embeddings."""
    if index not in placement.layers and index != placement.output:
        return Amount(0, stages.constant + stages.most + stages.small, "interval")

    # A device without a layer that sees the whole context needs no mask for it.
    own = [layer for place, layer in zip(placement.layers, geometry.trunk, strict=False) if place == index]
    masked = any(layer.attends and not layer.window for layer in own)
    if not pipelined(geometry, shape):
        return Amount(
            stages.mask if masked else 0, stages.constant + stages.most + stages.small + 2 * stages.rows, "interval"
        )

    first = index == min(place for place in placement.layers if place != HOST)
    constant = COPIES * stages.mask + (_FIRST_ROWS if first else NEXT_ROWS) * stages.rows
    constant += COPIES * (stages.inputs - 4 * stages.rows)
    # Which layer comes first on a device decides over RPC whether there are copies; only the last has the logits.
    low = constant + max(stages.feed_forward, stages.experts, stages.attention + stages.copies * (not shape.remote))
    high = constant + stages.most + COPIES * stages.small + 2 * stages.rows
    kind: AmountKind = "computed" if geometry.measured and masked else "interval"
    return Amount(min(low, high) if masked else 0, high, kind)


def _copies_weights(geometry: Geometry, shape: PlanShape, placement: Placement) -> bool:
    """Return whether some of the trunk's weights are on the host."""
    away = HOST in placement.layers[: len(geometry.trunk)] or shape.n_cpu_ffn > 0
    return away or any(index < shape.n_cpu_moe for index in geometry.expert_layers)


def offloads(shape: PlanShape, stages: Stages) -> bool:
    """Return whether large operations on weights of the host are brought to a device; over RPC they never are."""
    return shape.op_offload and not shape.remote and stages.tokens >= OFFLOAD_FROM


def _with_copies(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement) -> Amount:
    """A buffer that also takes weights of the host for large batches: how many at a time is the allocator's luck."""
    whole = stages.constant + stages.most + stages.small
    held = stages.constant + stages.least
    if not offloads(shape, stages):
        return Amount(min(stages.mask, held), whole + 4 * stages.rows, "interval")

    largest, experts, dense = 0, 0, 0
    for index, layer in enumerate(geometry.trunk):
        if placement.layers[index] == HOST:
            dense = max(dense, layer.weights_bytes)
        elif index < shape.n_cpu_moe and not layer.expert_biases:
            # Copied one after the other: each may find the room of the one before it taken in part.
            experts = max(experts, sum(sorted(layer.expert_tensors)[-2:]))
            largest = max(largest, *layer.expert_tensors, 0)
        elif index < shape.n_cpu_ffn:
            dense = max(dense, layer.ffn_bytes)

    low = held - stages.rows
    if largest:
        # While one tensor of experts is there: its rows, and what it makes of them.
        inner = 4 * geometry.experts_used * stages.tokens * (geometry.embedding + geometry.expert_feed_forward)
        beside = stages.constant + inner
        low = max(held, beside + largest)
        whole = max(whole + largest, beside + experts)

    output = geometry.output_bytes if placement.output == HOST else 0
    high = max(whole + dense + 3 * stages.rows, stages.constant + output + stages.logits)
    if HOST not in placement.layers and not dense and not largest:
        low = min(held, stages.mask + stages.inputs)

    return Amount(min(low, high), high, "interval")


def _without_layers(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement) -> Amount:
    """The buffer of a device that holds no layer: large operations are still brought to it."""
    if not offloads(shape, stages):
        return Amount(0, stages.constant + stages.most, "interval")

    most = max((layer.weights_bytes for layer in geometry.trunk), default=0)
    output = geometry.output_bytes if placement.output == HOST else 0
    return Amount(0, stages.constant + max(stages.most + most + stages.rows, output + stages.logits), "interval")


def _host_alone(geometry: Geometry, shape: PlanShape, stages: Stages) -> Amount:
    """The host's buffer where no layer is on a device: all stages, without the copies of a quantised cache."""
    fixed = max(stages.feed_forward, stages.experts, stages.attention, stages.logits)
    size = stages.constant + stages.rows + fixed
    high = max(size, stages.constant + stages.rows + stages.recurrence + stages.recurrence_luck[1])
    if shape.devices:
        return Amount(stages.mask + 4 * stages.rows, high + stages.small + stages.rows, "interval")

    luck = stages.rows if stages.logits == fixed or not shape.flash_attention or high > size else 0
    return Amount(size, high + luck + stages.small, "computed" if geometry.measured else "interval")


def _host(geometry: Geometry, shape: PlanShape, stages: Stages, placement: Placement) -> Amount:
    """The host's buffer beside devices that hold layers: the graph's inputs, and what weights of the host compute."""
    size = stages.constant
    cached = 0 if shape.kv_offload else 2 * stages.queries + stages.recurrence
    if pipelined(geometry, shape):
        size = COPIES * (stages.mask + stages.inputs - 2 * stages.rows) + 2 * stages.rows
        return Amount(size, size + COPIES * stages.small + stages.rows, "computed")

    if not _copies_weights(geometry, shape, placement):
        # The rows of layers' own inputs are gathered beside the others.
        cached += stages.rows if geometry.layer_inputs else 0
        return Amount(size, size + cached + stages.small, "interval" if not shape.kv_offload else "computed")

    on_host = max(stages.feed_forward, stages.experts) + 2 * stages.rows
    if HOST in placement.layers:
        dense = max(stages.feed_forward, stages.experts, stages.attention)
        on_host = max(dense, stages.recurrence + stages.recurrence_luck[1]) + stages.inputs

    high = stages.mask + max(stages.inputs, on_host) + stages.rows + cached
    return Amount(size, high + stages.small, "interval")
