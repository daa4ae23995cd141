"""Quantises rows of weights into ggml's block formats, and says which values the blocks stand for.

Source of the formats: ggml's `ggml-common.h` and `ggml-quants.c`. A block's scale is taken from its extremes, without
the search for a better one that ggml makes: the blocks are as valid, and a little coarser.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

SUPER_BLOCK = 256

_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""`kvalues_iq4nl`: what the sixteen codes of iq4_xs stand for."""

_NEAREST = bytes(min(range(16), key=lambda code: abs(_NONLINEAR[code] - value)) for value in range(-128, 128))


class Quantised(NamedTuple):
    """:param data: the blocks; `values` what they stand for"""

    data: bytes
    values: array[float]


def quantise(type: str, row: Sequence[float]) -> Quantised:
    """Return a row in one of `TYPES`.

    :raises ValueError: when the row does not divide into blocks
    """
    block, make = _MAKERS[type]
    if len(row) % block:
        raise ValueError(f"a row of {len(row)} values does not divide into blocks of {block} ({type})")

    data = bytearray()
    values = array("d")
    for begin in range(0, len(row), block):
        head, numbers = make(row[begin : begin + block])
        data += head
        values.extend(numbers)

    return Quantised(bytes(data), values)


def block_of(type: str) -> int:
    """Return how many values a block of this type holds; a row has whole blocks."""
    return _MAKERS[type][0]


def _f32(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    data = struct.pack(f"<{len(row)}f", *row)
    return data, struct.unpack(f"<{len(row)}f", data)


def _f16(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    data = struct.pack(f"<{len(row)}e", *row)
    return data, struct.unpack(f"<{len(row)}e", data)


def _q8_0(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    scale = _half(max(map(abs, row)) / 127)
    codes = [_code(value, scale, -128, 127) for value in row]
    return struct.pack("<e32b", scale, *codes), (scale * code for code in codes)


def _q4_0(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    scale = _half(max(row, key=abs) / -8)
    codes = [_code(value, scale, -8, 7) + 8 for value in row]
    return struct.pack("<e", scale) + _nibbles(codes), (scale * (code - 8) for code in codes)


def _q4_1(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    least = _half(min(row))
    scale = _half((max(row) - min(row)) / 15)
    codes = [_code(value - least, scale, 0, 15) for value in row]
    return struct.pack("<ee", scale, least) + _nibbles(codes), (scale * code + least for code in codes)


def _q4_k(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    parts = [row[begin : begin + 32] for begin in range(0, SUPER_BLOCK, 32)]
    lows = [max(0.0, -min(part)) for part in parts]
    steps = [(max(part) + low) / 15 for part, low in zip(parts, lows, strict=True)]
    scale, low_scale = _half(max(steps) / 63), _half(max(lows) / 63)
    step_codes = [_code(step, scale, 0, 63) for step in steps]
    low_codes = [_code(low, low_scale, 0, 63) for low in lows]
    codes: list[int] = []
    values: list[float] = []
    for part, step_code, low_code in zip(parts, step_codes, low_codes, strict=True):
        step, low = scale * step_code, low_scale * low_code
        found = [_code(value + low, step, 0, 15) for value in part]
        codes += found
        values += [step * code - low for code in found]

    packed = bytearray(12)
    for index, (step_code, low_code) in enumerate(zip(step_codes, low_codes, strict=True)):
        if index < 4:
            packed[index] |= step_code
            packed[index + 4] |= low_code
        else:
            packed[index + 4] = (step_code & 15) | (low_code & 15) << 4
            packed[index - 4] |= step_code >> 4 << 6
            packed[index] |= low_code >> 4 << 6

    pairs = b"".join(_nibbles(codes[begin : begin + 64]) for begin in range(0, SUPER_BLOCK, 64))
    return struct.pack("<ee", scale, low_scale) + bytes(packed) + pairs, values


def _q6_k(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    parts = [row[begin : begin + 16] for begin in range(0, SUPER_BLOCK, 16)]
    steps = [max(part, key=abs) / -32 for part in parts]
    scale = _half(max(steps, key=abs) / -128)
    step_codes = [_code(step, scale, -128, 127) for step in steps]
    codes: list[int] = []
    values: list[float] = []
    for part, step_code in zip(parts, step_codes, strict=True):
        step = scale * step_code
        found = [_code(value, step, -32, 31) + 32 for value in part]
        codes += found
        values += [step * (code - 32) for code in found]

    low, high = bytearray(), bytearray()
    for begin in (0, 128):
        one, two, three, four = (codes[begin + at : begin + at + 32] for at in (0, 32, 64, 96))
        low += bytes((a & 15) | (c & 15) << 4 for a, c in zip(one, three, strict=True))
        low += bytes((b & 15) | (d & 15) << 4 for b, d in zip(two, four, strict=True))
        high += bytes(
            a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6 for a, b, c, d in zip(one, two, three, four, strict=True)
        )

    return bytes(low + high) + struct.pack("<16be", *step_codes, scale), values


def _iq4_xs(row: Sequence[float]) -> tuple[bytes, Iterable[float]]:
    parts = [row[begin : begin + 32] for begin in range(0, SUPER_BLOCK, 32)]
    steps = [max(part, key=abs) / _NONLINEAR[0] for part in parts]
    scale = _half(max(steps, key=abs) / -32)
    step_codes = [_code(step, scale, -32, 31) for step in steps]
    high = 0
    low = bytearray(4)
    pairs = bytearray()
    values: list[float] = []
    for index, (part, step_code) in enumerate(zip(parts, step_codes, strict=True)):
        step = scale * step_code
        codes = [_NEAREST[_code(value, step, -128, 127) + 128] for value in part]
        pairs += _nibbles(codes)
        values += [step * _NONLINEAR[code] for code in codes]
        low[index // 2] |= (step_code + 32 & 15) << 4 * (index % 2)
        high |= (step_code + 32 >> 4) << 2 * index

    return struct.pack("<eH", scale, high) + bytes(low + pairs), values


def _half(value: float) -> float:
    """Return a number as f16 holds it."""
    return float(struct.unpack("<e", struct.pack("<e", value))[0])


def _code(value: float, step: float, least: int, most: int) -> int:
    return min(max(round(value / step), least), most) if step else 0


def _nibbles(codes: Sequence[int]) -> bytes:
    """Two codes a byte: the first half of them low, the second high."""
    half = len(codes) // 2
    return bytes(low | high << 4 for low, high in zip(codes[:half], codes[half:], strict=True))


_MAKERS: dict[str, tuple[int, Callable[[Sequence[float]], tuple[bytes, Iterable[float]]]]] = {
    "f32": (32, _f32),
    "f16": (32, _f16),
    "q8_0": (32, _q8_0),
    "q4_0": (32, _q4_0),
    "q4_1": (32, _q4_1),
    "q4_K": (SUPER_BLOCK, _q4_k),
    "q6_K": (SUPER_BLOCK, _q6_k),
    "iq4_xs": (SUPER_BLOCK, _iq4_xs),
}

TYPES = tuple(_MAKERS)
