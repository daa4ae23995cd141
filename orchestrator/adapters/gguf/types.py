"""The room that a tensor takes in a GGUF file, by its type."""

from __future__ import annotations

from orchestrator.core.dialect.tensor_types import TENSOR_TYPES


def size_bytes(number: int, shape: tuple[int, ...]) -> int | None:
    """Return the bytes that a tensor takes; None when the type is unknown.

    :raises ValueError: when a row does not divide into blocks
    """
    known = TENSOR_TYPES.get(number)
    if known is None:
        return None

    row = shape[0] if shape else 1
    if row % known.block:
        raise ValueError(f"rows of {row} values do not divide into blocks of {known.block} ({known.name})")

    rows = 1
    for dimension in shape[1:]:
        rows *= dimension

    return rows * (row // known.block * known.block_bytes + known.row_bytes)
