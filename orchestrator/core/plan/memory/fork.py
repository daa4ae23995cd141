"""The fork's compute buffers (0.1.5): logits for the whole batch, whatever is asked for."""

from __future__ import annotations

from orchestrator.core.plan.amounts import Amount, AmountKind
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.architectures import MEASURED_FORK
from orchestrator.core.plan.memory.caches import Cells
from orchestrator.core.plan.memory.placement import HOST, Placement
from orchestrator.core.plan.memory.stages import stages_of
from orchestrator.core.plan.memory.upstream import ComputeBuffers
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.quantities import MIB

_LUCK = 20 * MIB


def fork_compute(
    geometry: Geometry, shape: PlanShape, cells: Cells, placement: Placement, *, dry_run: bool = False
) -> ComputeBuffers:
    """Return the compute buffers of a context.

    :param dry_run: as `--dry-run` reports them: it copies the embeddings to the device, which a real start does not
    """
    stages = stages_of(geometry, shape, cells)
    logits = 4 * geometry.vocabulary * min(stages.tokens, shape.outputs or stages.tokens)
    logits_stage = logits + stages.rows
    layer_stage = stages.mask + stages.rows + max(stages.feed_forward, stages.experts)
    low = max(logits_stage, stages.mask)
    high = max(logits_stage + stages.rows, layer_stage + 3 * stages.rows) + stages.small
    embeddings = geometry.input_bytes + stages.mask + stages.rows + stages.small if dry_run else 0
    masks = stages.mask + stages.small
    trunk = placement.layers[: len(geometry.trunk)]
    if all(place == HOST for place in trunk):
        host = Amount(low, high + stages.constant + stages.most, "interval")
        return ComputeBuffers(
            (Amount(0, high + _weights_copied(geometry, shape, placement), "interval"),) * shape.devices, host
        )

    away = HOST in trunk or any(index < shape.n_cpu_moe for index in geometry.expert_layers) or shape.n_cpu_ffn > 0
    if away or not shape.kv_offload or not shape.flash_attention:
        brought = (shape.op_offload and not shape.remote) or (dry_run and HOST in trunk)
        copied = _weights_copied(geometry, shape, placement) if brought else 0
        elsewhere = placement.output == HOST and not copied and not dry_run
        floor = stages.mask if HOST in trunk or shape.devices > 1 else low - stages.rows
        held = max(stages.most, 0 if elsewhere else logits) + stages.feed_forward
        high = max(layer_stage if elsewhere else high, embeddings, stages.constant + copied + held + _LUCK)
        on_host = max(high, logits_stage + stages.rows) + (_host_weights(geometry, placement) if dry_run else 0)
        host = Amount(stages.mask, masks + on_host, "interval")
        return ComputeBuffers((Amount(min(floor, high), high, "interval"),) * shape.devices, host)

    layers = Amount(stages.mask, layer_stage + 3 * stages.rows + stages.small, "interval")
    if geometry.architecture in MEASURED_FORK:
        # A layer that takes more than the logits may use the room of its mask again: measured, and without a rule.
        kind: AmountKind = "computed" if logits_stage >= layer_stage else "interval"
        device = Amount(max(low, embeddings - stages.small if dry_run else 0), max(high, embeddings), kind)
    else:
        device = Amount(0, max(high + stages.most, embeddings), "interval")

    devices = tuple(device if index == placement.output else layers for index in range(shape.devices))
    gathered = 0 if dry_run else stages.rows  # the embeddings, gathered on the host
    return ComputeBuffers(devices, Amount(stages.mask + gathered, masks + gathered, "computed"))


def _weights_copied(geometry: Geometry, shape: PlanShape, placement: Placement) -> int:
    """The most weights of the host that are on the device at one time: of one layer, or of the output."""
    most = geometry.output_bytes if placement.output == HOST else 0
    for index, layer in enumerate(geometry.trunk):
        if placement.layers[index] == HOST:
            most = max(most, layer.weights_bytes)
        elif index < shape.n_cpu_moe:
            most = max(most, sum(layer.expert_tensors))
        elif index < shape.n_cpu_ffn:
            most = max(most, layer.ffn_bytes)

    return most


def _host_weights(geometry: Geometry, placement: Placement) -> int:
    return sum(layer.weights_bytes for index, layer in enumerate(geometry.trunk) if placement.layers[index] == HOST)
