"""A device that has no memory and computes nothing: it counts what engines allocate, and throws away what they upload.

A model of 20 GB whose weights are a hole in its file (`tests/true_geometry.py`) loads onto it on any machine, and the
bytes are those that a card would have to give. Where the answer to GET_ALLOC_SIZE differs between back ends it is that
of CUDA: quantised rows are padded, and attention over a quantised cache has room for copies in 16 bits. Two things are
not as with CUDA: upstream's client remembers those sizes by the result's shape alone, so that with sliding windows and
with MTP the layer that asks first decides; and no operation is brought over whose weights are in host memory.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.virtual_gpu.memory import MIB, DeviceMemory
from tests.virtual_gpu.protocol import HEADER, SIZE, Allocation, Command, allocation_reply, device_memory_reply
from tests.virtual_gpu.relay import HOST

Protocol = Literal[3, 7]
"""The fork's, upstream's."""

_ALIGNMENT = 128
_LARGEST = (1 << 64) - 1
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)

_TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
_FLASH_ATTENTION = 74
"""ggml's number of the operation in protocol 7; the fork never asks for its size."""

_F16 = 1
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 30: (1, 2), 24: (1, 1),
    26: (1, 4), 27: (1, 8), 20: (32, 18), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),
    14: (256, 210), 23: (256, 136), 39: (32, 17), 21: (256, 110), 18: (256, 98),
}  # fmt: skip
"""ggml's number of a type to the elements and bytes of its block."""


class _Tensor:
    """A tensor as the protocol describes it."""

    def __init__(self, data: bytes, index: int) -> None:
        row = _TENSOR.unpack_from(data, 4 + _TENSOR.size * index)
        self.type, self.extents, self.strides, self.operation = row[1], row[3:7], row[7:11], row[11]
        self.block, self.block_bytes = _BLOCKS.get(self.type, (1, 4))

    @property
    def quantised(self) -> bool:
        return self.block > 1

    @property
    def elements(self) -> int:
        first, second, third, fourth = self.extents
        return int(first * second * third * fourth)

    @property
    def size_bytes(self) -> int:
        steps = [(extent - 1) * stride for extent, stride in zip(self.extents, self.strides, strict=True)]
        if self.block == 1:
            return int(self.block_bytes + sum(steps))

        return int(self.extents[0] * self.strides[0] // self.block + sum(steps[1:]))


@dataclass(slots=True)
class NullDevice:
    """The device, as a test sees it.

    :ivar address: for `--rpc`
    :ivar memory: the bytes that are allocated
    :ivar unknown: commands that nobody knows; a test checks that there are none
    """

    address: str
    memory: DeviceMemory
    protocol: Protocol
    unknown: list[int] = field(default_factory=list)
    pointers: Iterator[int] = field(default_factory=lambda: iter(range(1 << 40, 1 << 62, 1 << 44)))


@contextlib.contextmanager
def null_device(
    protocol: Protocol, reported_mib: int, granted_mib: int | None = None, *, linger_s: float = 0.0
) -> Iterator[NullDevice]:
    """A device that reports so much memory, and grants as much unless less is said."""
    granted = reported_mib if granted_mib is None else granted_mib
    memory = DeviceMemory(reported_mib * MIB, granted * MIB, linger_s, time.monotonic)
    listener = socket.create_server((HOST, 0))
    device = NullDevice(f"{HOST}:{listener.getsockname()[1]}", memory, protocol)
    threads = [threading.Thread(target=_accept, args=(listener, device), daemon=True)]
    threads[0].start()
    try:
        yield device
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)

        listener.close()
        threads[0].join(5)

    assert not device.unknown


def _accept(listener: socket.socket, device: NullDevice) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return

        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=(client, device), daemon=True).start()


def _serve(client: socket.socket, device: NullDevice) -> None:
    who = object()
    worked = False
    try:
        with client:
            while True:
                number, size = HEADER.unpack(_read(client, HEADER.size))
                if number in (Command.SET_TENSOR, Command.GRAPH_COMPUTE):
                    _skip(client, size)
                    worked = True
                    continue

                data = _read(client, size)
                if number == Command.GET_TENSOR:
                    _send_zeros(client, struct.unpack("<Q", data[-8:])[0])
                    continue

                reply = _reply(device, who, number, data)
                if reply is not None:
                    client.sendall(SIZE.pack(len(reply)) + reply)
    except (ConnectionError, OSError):
        pass
    finally:
        device.memory.leave(who, worked=worked)


def _reply(device: NullDevice, who: object, number: int, data: bytes) -> bytes | None:
    old = device.protocol == 3
    match number:
        case Command.HELLO:
            return bytes([3, 5, 2]) if old else bytes([7, 0, 0, 0]) + bytes(24)
        case Command.DEVICE_COUNT:
            return struct.pack("<I", 1)
        case Command.GET_ALIGNMENT:
            return SIZE.pack(_ALIGNMENT)
        case Command.GET_MAX_SIZE:
            return SIZE.pack(_LARGEST)
        case Command.GET_DEVICE_MEMORY:
            return device_memory_reply(*device.memory.told())
        case Command.GET_ALLOC_SIZE:
            return SIZE.pack(_size_on_cuda(data))
        case Command.ALLOC_BUFFER:
            return allocation_reply(_allocate(device, who, SIZE.unpack(data[-8:])[0]))
        case Command.BUFFER_GET_BASE:
            return data[:8]
        case Command.FREE_BUFFER:
            device.memory.free(who, SIZE.unpack(data[:8])[0])
            return b"" if old else None
        case Command.SET_TENSOR_HASH | Command.COPY_TENSOR:
            return b"\1"
        case Command.INIT_TENSOR | Command.BUFFER_CLEAR:
            return b"" if old else None
        case Command.GRAPH_RECOMPUTE | Command.MEMSET_TENSOR:
            return None
        case _:
            device.unknown.append(number)
            return None


def _allocate(device: NullDevice, who: object, wanted: int) -> Allocation:
    if not device.memory.reserve(wanted):
        return Allocation(0, 0)

    pointer = next(device.pointers)
    device.memory.settle(who, wanted, pointer, wanted)
    return Allocation(pointer, wanted)


def _size_on_cuda(data: bytes) -> int:
    tensor = _Tensor(data, 0)
    size = tensor.size_bytes
    if tensor.operation == _FLASH_ATTENTION and len(data) > 4 + 4 * _TENSOR.size:
        query, key, value = (_Tensor(data, index) for index in (1, 2, 3))
        vector_kernel = query.extents[1] <= 2 and key.quantised and key.extents[0] <= 256 and not key.extents[0] % 64
        for each in (key, value):
            if each.type != _F16 and not vector_kernel:
                size += -size % _ALIGNMENT + 2 * each.elements

    if tensor.quantised and tensor.extents[0] % 512:
        size += (512 - tensor.extents[0] % 512) // tensor.block * tensor.block_bytes

    return size


def _read(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = source.recv(min(size - len(data), _CHUNK))
        if not part:
            raise ConnectionError

        data += part

    return bytes(data)


def _skip(source: socket.socket, size: int) -> None:
    room = bytearray(_CHUNK)
    while size:
        got = source.recv_into(room, min(size, _CHUNK))
        if not got:
            raise ConnectionError

        size -= got


def _send_zeros(client: socket.socket, size: int) -> None:
    client.sendall(SIZE.pack(size))
    while size:
        client.sendall(_ZEROS[:size])
        size -= min(size, _CHUNK)
