"""Compute buffers of the context in which MTP drafts, upstream (b11434)."""

from __future__ import annotations

from orchestrator.core.plan.amounts import Amount
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import Cells
from orchestrator.core.plan.memory.placement import HOST, Placement
from orchestrator.core.plan.memory.stages import Stages, stages_of
from orchestrator.core.plan.memory.upstream import COPIES, NEXT_ROWS, ComputeBuffers, offloads, pipelined
from orchestrator.core.plan.shape import PlanShape


def mtp_compute(geometry: Geometry, shape: PlanShape, cells: Cells, placement: Placement) -> ComputeBuffers:
    """Return the compute buffers of that context: of the device that has MTP's blocks, and of the host."""
    stages = stages_of(geometry, shape, cells, mtp=True)
    if pipelined(geometry, shape):
        low, high = _pipelined(stages)
        host = COPIES * stages.mask + 5 * stages.rows
    else:
        low, high = _alone(shape, stages)
        host = stages.mask + stages.inputs

    if not shape.kv_offload:
        high += 2 * stages.cache + 2 * stages.rows

    most_host = host
    trunk = len(geometry.trunk)
    if HOST in placement.layers[trunk:] or trunk < shape.n_cpu_moe:
        # Its weights, or their experts, compute on the host, or are brought over for large batches.
        low, host = 0, stages.mask
        most_host = stages.constant + max(stages.feed_forward, stages.experts, stages.attention) + 2 * stages.rows
        if offloads(shape, stages):
            high += max(sum(layer.expert_tensors) or layer.weights_bytes for layer in geometry.mtp)

    device = Amount(min(low, high), high + stages.small, "computed" if geometry.measured else "interval")
    return ComputeBuffers((device,), Amount(host, most_host + stages.small, "computed" if low else "interval"))


def _alone(shape: PlanShape, stages: Stages) -> tuple[int, int]:
    """The bounds on one device.

    Its only attention layer comes first, so the room of its mask is free again for the feed-forward: all of that fits
    there when the mask is large, nothing when it is smaller than the pieces.
    """
    feed_forward = max(stages.feed_forward, stages.experts)
    rows, queries, mask = stages.rows, stages.queries, stages.mask
    if shape.flash_attention:
        attending = mask + stages.inputs + stages.copies + 4 * queries
        narrow = 0 if queries > rows else queries
    else:
        attending = mask + stages.inputs + stages.attention + queries
        narrow = 3 * queries

    low = max(attending - narrow, 2 * rows + feed_forward, 2 * rows + stages.logits)
    if mask < 2 * rows or (stages.experts and mask == 2 * rows):
        return max(low, mask + 2 * rows + feed_forward), _most(stages, attending, feed_forward)

    if mask >= feed_forward + 2 * rows:
        return low, attending + (queries if stages.copies else 0)

    return max(attending - narrow, low - rows // 2), _most(stages, attending, feed_forward)


def _most(stages: Stages, attending: int, feed_forward: int) -> int:
    """Where nothing finds room that is free again."""
    apart = stages.mask + 2 * stages.rows + max(feed_forward, stages.logits)
    if stages.copies:
        return max(attending + stages.queries, apart) + stages.rows

    return max(attending, apart) + (min(stages.mask, stages.rows) if stages.slots > 1 else 0)


def _pipelined(stages: Stages) -> tuple[int, int]:
    """The bounds where several devices work at once."""
    feed_forward = max(stages.feed_forward, stages.experts)
    masks = COPIES * stages.mask
    low = masks + max(feed_forward, stages.copies) + 2 * stages.rows
    stage = max(feed_forward, stages.copies + 5 * stages.queries)
    return low, masks + COPIES * stages.small + (NEXT_ROWS + 2) * stages.rows + stage
