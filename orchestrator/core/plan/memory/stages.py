"""What the graph of a context holds at one time, stage by stage.

An activation is a row for each token of the batch, kept as long as a later operation needs it. The size of a compute
buffer is what its greediest stage holds: feed-forward, experts, attention, recurrence or logits, beside the masks and
the rows that live through the whole graph. Each formula counts what is alive at the stage's peak, in the order in which
`src/models/*.cpp` and `llama-graph.cpp` (b11434) build it and `ggml-alloc.c` places it; compared with the engine's own
figures in `benchmarks/plan_error.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.plan.geometry import Geometry, LayerGeometry, kept_of_geometry
from orchestrator.core.plan.memory.caches import Cells, quantised, row_bytes
from orchestrator.core.plan.memory.placement import HOST, place
from orchestrator.core.plan.shape import PlanShape

_ROTATIONS = (64, 128, 256, 512)
"""Widths of the Hadamard matrices that rotate a quantised cache."""

_SMALL_BYTES = 64
"""Positions, indices and ids of a token, at most."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Bytes.

    :param rows: one activation of the model's width
    :param queries: one of all heads' queries, of the layer that has the most
    :param inputs: rows that live through the whole graph
    :param small: positions, indices and rotations, at most
    :param attention: without the copies of a quantised cache
    :param copies: keys and values in f16, of one layer
    :param cache: one layer's keys and values as they are kept
    :param recurrence: its state and rows
    :param recurrence_luck: what the allocator may save or waste of it
    :param gated: whether queries come with gates
    :param alike: whether copies of keys and values leave like holes: both quantised, and heads of one length
    """

    tokens: int
    slots: int
    mask: int
    rows: int
    queries: int
    inputs: int
    small: int
    feed_forward: int
    experts: int
    attention: int
    copies: int
    cache: int
    recurrence: int
    recurrence_luck: tuple[int, int]
    logits: int
    gated: bool
    alike: bool

    @property
    def constant(self) -> int:
        return self.mask + self.inputs

    @property
    def least(self) -> int:
        """The greediest stage, where the allocator is lucky."""
        odd = self.queries if self.copies and not self.alike else 0
        fixed = max(self.feed_forward, self.experts, self.attention + self.copies - odd, self.logits)
        return max(fixed, self.recurrence - self.recurrence_luck[0])

    @property
    def most(self) -> int:
        """The greediest stage, where the allocator finds no hole that fits."""
        fixed = max(self.feed_forward, self.experts, self.attention + self.copies, self.logits)
        # Holes of copies that are small beside a row, and those that logits leave, may not fit what comes next.
        if self.copies and not self.alike:
            fixed += self.queries + self.rows

        wide = self.queries > self.rows and 0 < self.copies < 4 * self.rows - self.mask
        if self.gated and (wide or self.logits == fixed):
            fixed += self.rows

        near = self.recurrence_luck[1] // 2 if self.slots > 1 else 0
        return self.recurrence + self.recurrence_luck[1] if self.recurrence + near >= fixed else fixed


def batch_tokens(shape: PlanShape, cells: Cells) -> int:
    """Return the tokens of the batch that is reserved: a multiple of the slots."""
    tokens = shape.ubatch_in(shape.context_tokens)
    return tokens + -tokens % max(1, shape.slots)


@kept_of_geometry
def stages_of(geometry: Geometry, shape: PlanShape, cells: Cells, *, mtp: bool = False) -> Stages:
    """Return what the graph of the main context holds, or that of the context in which MTP drafts."""
    layers = geometry.mtp if mtp else geometry.trunk
    tokens = batch_tokens(shape, cells)
    slots = max(1, shape.slots)
    outputs = shape.outputs or slots * (1 if mtp else 1 + shape.draft_max)
    keys = (shape.draft_kv_k, shape.draft_kv_v) if mtp else (shape.kv_k, shape.kv_v)
    rows = 4 * geometry.embedding * tokens
    attending = {layer for layer in layers if layer.attends}
    own_inputs = 0 if mtp else geometry.layer_inputs * tokens
    recurrence, luck = _recurrence(geometry, layers, tokens, slots, 1 if mtp else 1 + shape.draft_max)
    return Stages(
        tokens=tokens,
        slots=slots,
        mask=_mask_bytes(geometry, shape, cells, tokens),
        rows=rows,
        queries=4 * tokens * max((layer.heads * layer.key_length for layer in attending), default=0),
        inputs=(2 if mtp else 4) * rows + _transposed(geometry, shape, attending, tokens) + 4 * own_inputs,
        small=_SMALL_BYTES * tokens + _rotation_bytes(attending, keys) * (2 if geometry.window else 1),
        feed_forward=max((_feed_forward(layer, tokens) for layer in layers if not layer.expert_bytes), default=0),
        experts=_expert_bytes(geometry, layers, tokens),
        attention=max((_attention(geometry, shape, cells, layer, tokens) for layer in attending), default=0),
        copies=_copies(geometry, shape, cells, layers, keys, mtp=mtp),
        cache=max((_cache(cells, layer, keys) for layer in attending), default=0),
        recurrence=recurrence,
        recurrence_luck=luck,
        logits=4 * geometry.vocabulary * min(outputs, tokens),
        gated=geometry.gated_attention,
        alike=all(map(quantised, keys)) and len({layer.key_length for layer in attending}) < 2,
    )


def _mask_bytes(geometry: Geometry, shape: PlanShape, cells: Cells, tokens: int) -> int:
    """The attention masks: one for each size of cache; wider without flash attention."""
    size = 2 if shape.flash_attention else 4
    full = size * cells.full // cells.streams * tokens
    return full + (size * cells.window // cells.streams * tokens if geometry.window else 0)


def _transposed(geometry: Geometry, shape: PlanShape, layers: set[LayerGeometry], tokens: int) -> int:
    """Indices into values that are kept transposed, as they are without flash attention."""
    width = max((layer.value_width for layer in layers), default=0)
    return 0 if shape.flash_attention else 8 * tokens * width * (2 if geometry.window else 1)


def _feed_forward(layer: LayerGeometry, tokens: int) -> int:
    """Gate, up and their product; without a gate, its function is computed in place."""
    return 4 * tokens * layer.feed_forward * (3 if layer.gated else 1)


def _expert_bytes(geometry: Geometry, layers: Sequence[LayerGeometry], tokens: int) -> int:
    """What a layer of experts holds for each expert used: gate, up and their product, and the rows that come of them.

    Those rows take the room of gate and up where they fit there.
    """
    if not any(layer.expert_bytes for layer in layers):
        return 0

    inner, width = geometry.expert_feed_forward, geometry.embedding
    return 4 * geometry.experts_used * tokens * (3 * inner + (width if width > 2 * inner else 0))


def _attention(geometry: Geometry, shape: PlanShape, cells: Cells, layer: LayerGeometry, tokens: int) -> int:
    """Queries and what becomes of them; wider queries than the model's rows find no hole of a row."""
    width = layer.heads * layer.key_length
    wide = 1 if width > geometry.embedding else 0
    if shape.flash_attention:
        return 4 * tokens * width * ((4 if geometry.gated_attention else 1) + wide)

    own = (cells.window if layer.window else cells.full) // cells.streams
    held = 1 + wide + (1 if geometry.gated_attention else 0)
    return 4 * tokens * (layer.heads * own + width * held)


def _copies(
    geometry: Geometry,
    shape: PlanShape,
    cells: Cells,
    layers: Sequence[LayerGeometry],
    keys: tuple[str, str],
    *,
    mtp: bool,
) -> int:
    """Keys and values in f16 for flash attention, where they are kept otherwise: of the layer that needs the most.

    Over RPC a client remembers sizes by the result's shape: the first layer there decides for all, MTP's included.
    """
    if not shape.flash_attention:
        return 0

    if shape.remote:
        firsts: dict[tuple[int, int, int], LayerGeometry] = {}
        for device, layer in zip(place(geometry, shape, "upstream").layers, geometry.trunk, strict=False):
            if layer.attends and device != HOST:
                firsts.setdefault((device, layer.heads, layer.value_length), layer)

        results = {(layer.heads, layer.value_length) for layer in layers if layer.attends}
        deciding = [first for (_, *result), first in firsts.items() if tuple(result) in results]
        if deciding:
            return max(_layer_copies(cells, first, (shape.kv_k, shape.kv_v)) for first in deciding)

    return max((_layer_copies(cells, layer, keys) for layer in layers if layer.attends), default=0)


def _layer_copies(cells: Cells, layer: LayerGeometry, keys: tuple[str, str]) -> int:
    own = cells.window if layer.window else cells.full
    if not layer.value_width:
        return 4 * own * layer.key_width * (keys[0] != "f16")  # the values are a part of the keys, and copied as well

    return 2 * own * (layer.key_width * (keys[0] != "f16") + layer.value_width * (keys[1] != "f16"))


def _cache(cells: Cells, layer: LayerGeometry, keys: tuple[str, str]) -> int:
    rows = [row_bytes(kind, width) or 0 for kind, width in zip(keys, (layer.key_width, layer.value_width), strict=True)]
    return (cells.window if layer.window else cells.full) * sum(rows)


def _recurrence(
    geometry: Geometry, layers: Sequence[LayerGeometry], tokens: int, slots: int, snapshots: int
) -> tuple[int, tuple[int, int]]:
    """A recurrent layer's rows, the states that it reads, and those that it writes for each drafted token."""
    state = geometry.state
    if state is None or not any(layer.recurrent for layer in layers):
        return 0, (0, 0)

    held = 4 * tokens * state.row + 4 * slots * state.recurrence * (1 + snapshots)
    kept = 8 * slots * state.convolution
    if tokens * state.convolved <= slots * state.recurrence:
        return held, (0, kept)  # the rows are small beside the states, and find their room

    return held, (4 * tokens * state.convolved, 8 * tokens * state.keys + kept)


def _rotation_bytes(layers: set[LayerGeometry], keys: tuple[str, str]) -> int:
    """The matrices that rotate a quantised cache: keys by the widest that divides a head, values by the narrowest."""
    longest = max((layer.key_length for layer in layers), default=0)
    if not any(map(quantised, keys)) or not longest:
        return 0

    widest = max((width for width in _ROTATIONS if longest % width == 0), default=0)
    return 4 * (widest * widest + _ROTATIONS[0] * _ROTATIONS[0])
