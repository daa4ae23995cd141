"""Bytes of KV caches and recurrent states, for each layer: exact, from the header and the settings."""

from __future__ import annotations

from typing import Literal, NamedTuple

from orchestrator.core.dialect.tensor_types import TENSOR_TYPES
from orchestrator.core.plan.geometry import ALIGNMENT, Geometry, LayerGeometry
from orchestrator.core.plan.shape import PlanShape

_ROW = 512
"""Values to which a device completes quantised rows."""

CELLS_STEP = 256
"""Cells come in multiples of this, with flash attention in the fork and always upstream."""

_TYPES = {known.name.lower(): known for known in TENSOR_TYPES.values()}


class Cells(NamedTuple):
    """Cells of the caches: in all streams together, and how many streams there are."""

    full: int
    window: int
    streams: int


def up(value: int, step: int) -> int:
    """Return the next multiple of a step."""
    return value + -value % step


def cells_of(geometry: Geometry, shape: PlanShape, kind: Literal["upstream", "ik"]) -> Cells:
    """Return the cells of the cache of whole contexts and of the one of windows."""
    if kind == "ik":
        # One cache for all slots, and windows are not used to save memory.
        full = up(shape.context_tokens, CELLS_STEP if shape.flash_attention else 32)
        return Cells(full, full, 1)

    slots = max(1, shape.slots)
    streams = 1 if shape.unified_kv else slots
    full = up(up(shape.context_tokens, CELLS_STEP) // streams, CELLS_STEP)
    window = full
    if geometry.window and not shape.swa_full:
        seen = geometry.window * (slots if shape.unified_kv else 1) + shape.ubatch_in(shape.context_tokens)
        window = up(min(full, seen), CELLS_STEP)

    return Cells(full * streams, window * streams, streams)


def row_bytes(type_name: str, values: int) -> int | None:
    """Return the bytes of a row of a cache; None for a type that is not known, or a row that does not divide."""
    known = _TYPES.get(type_name.lower())
    if known is None or values % known.block:
        return None

    return values // known.block * known.block_bytes + (known.row_bytes if values else 0)


def quantised(type_name: str) -> bool:
    """Return whether a cache's type is one of blocks."""
    known = _TYPES.get(type_name.lower())
    return known is not None and known.block > 1


def layer_kv_bytes(
    layer: LayerGeometry, cells: Cells, key_type: str, value_type: str, *, least_value_width: int = 0
) -> int | None:
    """Return the bytes of one attention layer's keys and values; None when a type is not known.

    :param least_value_width: values are as wide at least
    """
    if not layer.attends:
        return 0

    width = max(layer.value_width, least_value_width)
    key, value = row_bytes(key_type, layer.key_width), row_bytes(value_type, width)
    if key is None or value is None:
        return None

    return (cells.window if layer.window else cells.full) * (key + value)


def kv_padding(layer: LayerGeometry, key_type: str, value_type: str, kind: Literal["upstream", "ik"]) -> int:
    """Return what a device adds to a layer's quantised keys and values: it completes rows to 512 values.

    The fork's rows are keys of one head; it keeps values as one row.
    """
    rows = ((key_type, layer.key_width), (value_type, layer.value_width))
    if kind == "ik":
        rows = ((key_type, layer.key_length), (value_type, 0))

    added = 0
    for type_name, width in rows:
        missing = -width % _ROW
        if missing and quantised(type_name):
            added += up(row_bytes(type_name, missing) or 0, ALIGNMENT)

    return added


def layer_state_bytes(geometry: Geometry, shape: PlanShape, kind: Literal["upstream", "ik"]) -> int:
    """Return the bytes that a recurrent layer keeps: for each slot, and upstream also for each drafted token."""
    snapshots = 1 + shape.draft_max if kind == "upstream" else 1
    values = geometry.state.values if geometry.state else 0
    return 4 * values * max(1, shape.slots) * snapshots
