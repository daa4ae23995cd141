"""Tensor types of GGUF files: the union of ggml's and ik_llama.cpp's, what a row of each takes, and who knows which.

Sources: upstream's `ggml.h` and `gguf-py/gguf/constants.py` (b11434), the fork's `ggml.h`, `ggml-common.h` and the type
table of `ggml.c` (8337e4cd3). A type that is not here is named `type N`; its tensors' sizes follow from their offsets.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.core.dialect.capabilities import Kind


class TensorType(NamedTuple):
    """A row of n values takes `n / block * block_bytes + row_bytes` bytes."""

    name: str
    block: int
    block_bytes: int
    row_bytes: int = 0


_TABLE: dict[int, tuple[str, int, int] | tuple[str, int, int, int]] = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 30: ("bf16", 1, 2), 28: ("f64", 1, 8),
    24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8),
    2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22), 7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34),
    10: ("q2_K", 256, 84), 11: ("q3_K", 256, 110), 12: ("q4_K", 256, 144), 13: ("q5_K", 256, 176),
    14: ("q6_K", 256, 210),
    16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    29: ("iq1_m", 256, 56),
    31: ("q4_0_4_4", 32, 18), 32: ("q4_0_4_8", 32, 18), 33: ("q4_0_8_8", 32, 18),
    34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18),
    # The fork's own.
    133: ("q6_0", 32, 26), 134: ("iq1_bn", 64, 13, 2), 135: ("iq2_bn", 64, 16, 4),
    137: ("iq2_k", 256, 76), 138: ("iq3_k", 256, 110), 139: ("iq4_k", 256, 144), 140: ("iq5_k", 256, 176),
    141: ("iq6_k", 256, 212),
    144: ("iq4_ks", 256, 136, 4), 145: ("iq2_ks", 256, 70, 2), 146: ("iq4_kss", 256, 128, 4), 151: ("q8_KV", 32, 32, 8),
    152: ("iq5_ks", 256, 168, 4), 153: ("iq2_kt", 256, 68, 4), 154: ("iq3_kt", 256, 100, 4),
    155: ("iq4_kt", 256, 128, 4),
    156: ("iq3_ks", 256, 102, 2), 157: ("iq2_kl", 256, 86, 2), 158: ("iq1_kt", 256, 56, 4),
    202: ("q4_0_r8", 32, 18), 206: ("q5_0_r4", 32, 22), 208: ("q8_0_r8", 32, 34),
    210: ("q2_k_r4", 256, 84), 211: ("q3_k_r4", 256, 110), 212: ("q4_k_r4", 256, 144), 213: ("q5_k_r4", 256, 176),
    214: ("q6_k_r4", 256, 210), 216: ("iq2_xxs_r4", 256, 66), 217: ("iq2_xs_r4", 256, 74), 218: ("iq3_xxs_r4", 256, 98),
    219: ("iq1_s_r4", 32, 6, 2), 220: ("iq4_nl_r4", 32, 18), 221: ("iq3_s_r4", 256, 110), 222: ("iq2_s_r4", 256, 82),
    223: ("iq4_xs_r8", 256, 136), 229: ("iq1_m_r4", 32, 7, 2), 230: ("bf16_r16", 1, 2), 233: ("q6_0_r4", 32, 26),
    335: ("iq2_bn_r4", 64, 16, 4), 337: ("iq2_k_r4", 256, 76), 338: ("iq3_k_r4", 256, 110), 339: ("iq4_k_r4", 256, 144),
    340: ("iq5_k_r4", 256, 176), 344: ("iq4_ks_r4", 256, 136, 4), 352: ("iq5_ks_r4", 256, 168, 4),
    353: ("mxfp4_r8", 32, 17),
    397: ("q8_k_r16", 256, 258), 398: ("q8_KV_r8", 32, 32, 4), 399: ("q8_k_r8", 256, 258),
}  # fmt: skip

TENSOR_TYPES: dict[int, TensorType] = {number: TensorType(*row) for number, row in _TABLE.items()}


Q2_0 = 42
"""Upstream's since b9867; another fork gave the number to blocks of another size, so no size is assumed."""

Q2_0_BLOCK, Q2_0_BLOCK_BYTES = 64, 18

_FIRST_OF_FORK = 133
"""Numbers from here on are the fork's; below they are ggml's."""

_REMOVED = frozenset({31, 32, 33})
"""Layouts for single processors that upstream no longer loads: the engine repacks q4_0 itself."""

_LAST_OF_UPSTREAM, _LAST_OF_FORK = 42, 158
_ROOM_FOR_NEW = 16
"""A number so little above the last that we know may be a newer build's: it is left to the build."""


def fork_only(number: int) -> bool:
    """Return whether a type is one that ik_llama.cpp alone knows."""
    return number in TENSOR_TYPES and number >= _FIRST_OF_FORK


def may_load(kind: Kind, number: int) -> bool:
    """Return whether a build of this kind may load tensors of this type, as far as is known."""
    if kind == "unknown":
        return True

    if kind == "upstream":
        known = number in TENSOR_TYPES and not fork_only(number) and number not in _REMOVED
        return known or _LAST_OF_UPSTREAM <= number <= _LAST_OF_UPSTREAM + _ROOM_FOR_NEW

    return number in TENSOR_TYPES or number == Q2_0 or _LAST_OF_FORK < number <= _LAST_OF_FORK + _ROOM_FOR_NEW


def type_advice(number: int, kind: Kind) -> str:
    """Return what to do about a type that a build of this kind does not load."""
    if fork_only(number) and kind != "ik":
        return (
            f"type {number} is {type_name(number)} of ik_llama.cpp: the fork loads it, `orch up NAME --engine ik-fork`"
        )

    if number in _REMOVED:
        return f"{type_name(number)} was removed: take the file's q4_0, which the engine repacks itself"

    if number in TENSOR_TYPES or number == Q2_0:
        return f"{type_name(number)} needs a newer build: `orch engines update`; or `orch up NAME` on the other engine"

    return (
        f"type {number} is a quantisation of some other fork: the file is whole, and neither engine can read it; "
        "take another quantisation of the model"
    )


def type_name(number: int) -> str:
    """Return the name of a tensor type, `type N` for one that is not known."""
    known = TENSOR_TYPES.get(number)
    if known is None:
        return "q2_0" if number == Q2_0 else f"type {number}"

    return known.name
