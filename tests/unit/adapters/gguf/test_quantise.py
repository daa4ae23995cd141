"""Blocks stand for the values that the reference implementation reads from them."""

from __future__ import annotations

import random

import gguf
import numpy
import pytest

from orchestrator.adapters.gguf.quantise import TYPES, block_of, quantise

OFF_BY = {"f32": 1e-6, "f16": 2e-3, "q8_0": 0.02, "q4_0": 0.3, "q4_1": 0.3, "q4_K": 0.3, "q6_K": 0.08, "iq4_xs": 0.4}
"""Of a standard deviation, at most."""


def rows() -> list[list[float]]:
    chance = random.Random(7)
    plain = [chance.gauss(0, 1) for _ in range(512)]
    return [plain, [0.0] * 512, [each * 1e-3 for each in plain], [1.0, -1.0] * 256, [abs(each) for each in plain]]


@pytest.mark.parametrize("type", TYPES)
def test_the_values_are_those_that_the_reference_reads(type: str) -> None:
    for row in rows():
        made = quantise(type, row)
        known = gguf.GGMLQuantizationType[type.upper()]
        data = numpy.frombuffer(made.data, dtype=numpy.uint8)
        read = gguf.quants.dequantize(data, known).ravel()
        assert numpy.allclose(read, numpy.array(made.values), atol=1e-6, rtol=1e-6)
        scale = max(float(numpy.std(row)), 1e-9)
        assert max(abs(a - b) for a, b in zip(row, made.values, strict=True)) <= OFF_BY[type] * scale + 1e-9


def test_a_row_of_half_a_block_is_refused() -> None:
    for type in TYPES:
        with pytest.raises(ValueError, match=f"blocks of {block_of(type)}"):
            quantise(type, [0.0] * (block_of(type) // 2))
