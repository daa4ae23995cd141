"""The RPC protocol of ggml, as far as memory goes.

A request is a command byte, eight bytes of size, and a payload; a reply is eight bytes of size and a payload. Whether a
command is answered at all differs between versions, and is told by the client's and the server's loop in
`ggml/src/ggml-rpc/ggml-rpc.cpp`; the version is what the answer to the first command, HELLO, begins with. All numbers
are little-endian, all structures packed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple


class Command(IntEnum):
    """`enum rpc_cmd`; the numbers up to GRAPH_RECOMPUTE are the same in versions 3 to 7."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    SET_TENSOR_HASH = 7
    GET_TENSOR = 8
    COPY_TENSOR = 9
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    INIT_TENSOR = 12
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15
    GRAPH_RECOMPUTE = 16
    MEMSET_TENSOR = 17


_ANSWERED_ALWAYS = frozenset({
    Command.ALLOC_BUFFER,
    Command.GET_ALIGNMENT,
    Command.GET_MAX_SIZE,
    Command.BUFFER_GET_BASE,
    Command.SET_TENSOR_HASH,
    Command.GET_TENSOR,
    Command.COPY_TENSOR,
    Command.GET_DEVICE_MEMORY,
    Command.GET_ALLOC_SIZE,
    Command.HELLO,
    Command.DEVICE_COUNT,
})  # fmt: skip

ANSWERED: Mapping[int, frozenset[Command]] = {
    3: _ANSWERED_ALWAYS | {Command.FREE_BUFFER, Command.BUFFER_CLEAR, Command.INIT_TENSOR},
    7: _ANSWERED_ALWAYS,
}
"""Major version to the commands that have a reply: 3.5.2 is the fork's, 7.0.0 upstream's of autumn 2026."""

HEADER = struct.Struct("<BQ")
SIZE = struct.Struct("<Q")

_VERSION = struct.Struct("<3B")
_HELLO_CAPABILITIES = {24: 0, 28: 4}
"""Length of a HELLO to the offset of its 24 bytes of transport capabilities (request, reply); version 3 has none."""

_ALLOC_REQUEST = struct.Struct("<IQ")
_ALLOC_REPLY = struct.Struct("<QQ")
_FREE_REQUEST = struct.Struct("<Q")
_DEVICE_MEMORY = struct.Struct("<QQ")


class ProtocolError(Exception):
    """Raised when bytes are not what the protocol allows, or the version is not known."""


class Allocation(NamedTuple):
    """What an allocation gave: `pointer` names the buffer and is 0 when it was refused."""

    pointer: int
    size_bytes: int


def command_of(byte: int) -> Command:
    """:raises ProtocolError: when there is no such command"""
    try:
        return Command(byte)
    except ValueError as error:
        raise ProtocolError(f"no such command: {byte}") from error


def answered_in(hello_reply: bytes) -> frozenset[Command]:
    """The commands that have a reply in the version that this answer to HELLO tells.

    :raises ProtocolError: when the version is not known
    """
    major, minor, patch = _VERSION.unpack_from(_at_least(hello_reply, _VERSION))
    if major not in ANSWERED:
        raise ProtocolError(f"protocol version {major}.{minor}.{patch} is not known; known are {sorted(ANSWERED)}")

    return ANSWERED[major]


def without_capabilities(hello: bytes) -> bytes:
    """A HELLO that offers no other transport: with RDMA agreed on, the rest would pass the relay by."""
    offset = _HELLO_CAPABILITIES.get(len(hello))
    return hello if offset is None else hello[:offset] + bytes(len(hello) - offset)


def wanted_bytes(request: bytes) -> int:
    """The size that ALLOC_BUFFER asks for."""
    size: int = _exactly(request, _ALLOC_REQUEST)[1]
    return size


def allocation_of(reply: bytes) -> Allocation:
    return Allocation(*_exactly(reply, _ALLOC_REPLY))


def allocation_reply(allocation: Allocation) -> bytes:
    return _ALLOC_REPLY.pack(*allocation)


def freed_pointer(request: bytes) -> int:
    pointer: int = _exactly(request, _FREE_REQUEST)[0]
    return pointer


def device_memory_reply(free_bytes: int, total_bytes: int) -> bytes:
    return _DEVICE_MEMORY.pack(free_bytes, total_bytes)


def _exactly(payload: bytes, form: struct.Struct) -> tuple[int, ...]:
    if len(payload) != form.size:
        raise ProtocolError(f"a payload of {len(payload)} bytes; expected are {form.size}")

    return form.unpack(payload)


def _at_least(payload: bytes, form: struct.Struct) -> bytes:
    if len(payload) < form.size:
        raise ProtocolError(f"a payload of {len(payload)} bytes; expected are at least {form.size}")

    return payload
