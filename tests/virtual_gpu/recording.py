"""A conversation between llama-server and the relay as text: one message a line, bulk data left out.

    1 > ALLOC_BUFFER 12 000000000000a00000000000
    1 < ALLOC_BUFFER 16 80d2c5e5a05500000000a00000000000
    1 > SET_TENSOR 1048889 -

Connection, direction as the client sees it, command, length of the payload, and the payload in hex where the relay
reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.virtual_gpu.protocol import Command, allocation_of, freed_pointer
from tests.virtual_gpu.relay import Message


class MemoryUse(NamedTuple):
    """What a recorded client took: number of buffers, and the most bytes that it held at once."""

    buffers: int
    peak_bytes: int


def to_lines(messages: Iterable[Message]) -> Iterator[str]:
    for each in messages:
        payload = "-" if each.payload is None else each.payload.hex() or "."
        yield f"{each.connection} {each.direction} {each.command.name} {each.size_bytes} {payload}"


def from_lines(lines: Iterable[str]) -> Iterator[Message]:
    for line in lines:
        connection, direction, name, size, payload = line.split()
        data = None if payload == "-" else bytes.fromhex(payload.strip("."))
        yield Message(int(connection), direction, Command[name], int(size), data)


def memory_use(messages: Sequence[Message]) -> MemoryUse:
    """Count from the recording alone; the connections of one client follow each other."""
    held: dict[int, int] = {}
    connection = buffers = peak_bytes = 0
    for each in messages:
        if each.connection != connection:
            connection = each.connection
            held.clear()

        if each.command is Command.ALLOC_BUFFER and each.direction == "<":
            allocation = allocation_of(each.payload or b"")
            held[allocation.pointer] = allocation.size_bytes
            buffers += 1
        elif each.command is Command.FREE_BUFFER and each.direction == ">":
            del held[freed_pointer(each.payload or b"")]

        peak_bytes = max(peak_bytes, sum(held.values()))

    return MemoryUse(buffers, peak_bytes)
