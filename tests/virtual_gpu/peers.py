"""Both ends of the protocol in Python: a client that asks, and a server that has all the memory in the world."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.protocol import ANSWERED, HEADER, SIZE, Allocation, Command, allocation_of, wanted_bytes
from tests.virtual_gpu.relay import HOST, Message

VERSION_7 = bytes([7, 0, 0, 0]) + bytes(24)
VERSION_3 = bytes([3, 5, 2])


class Peer:
    """One end of the protocol."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.connection.settimeout(20)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            if not part:
                raise EOFError

            data += part

        return data

    def read_reply(self) -> bytes:
        (size,) = SIZE.unpack(self.read(SIZE.size))
        return self.read(size)

    def send(self, command: Command | int, request: bytes = b"") -> None:
        self.connection.sendall(HEADER.pack(command, len(request)) + request)

    def ask(self, command: Command, request: bytes = b"") -> bytes:
        self.send(command, request)
        return self.read_reply()

    def allocate(self, size_bytes: int) -> Allocation:
        return allocation_of(self.ask(Command.ALLOC_BUFFER, struct.pack("<IQ", 0, size_bytes)))


class Server:
    """A device with all the memory in the world; it rounds allocations up, and keeps what it was asked.

    :ivar received: each request: command and payload
    """

    ROUND = 64

    def __init__(self, hello: bytes = VERSION_7, script: Sequence[Message] = ()) -> None:
        self.received: list[tuple[Command, bytes]] = []
        self._hello = hello
        self._replies = iter([each for each in script if each.direction == "<"])
        self._scripted = bool(script)
        self._pointer = 4096
        self._listener = socket.create_server((HOST, 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed

            with connection:
                try:
                    self._converse(Peer(connection))
                except (EOFError, ConnectionError):
                    continue

    def _converse(self, peer: Peer) -> None:
        answered = ANSWERED.get(self._hello[0], ANSWERED[7])
        while True:
            command, size = HEADER.unpack(peer.read(HEADER.size))
            request = peer.read(size)
            self.received.append((Command(command), request))
            if command in answered:
                reply = self._scripted_reply() if self._scripted else self._reply(Command(command), request)
                peer.connection.sendall(SIZE.pack(len(reply)) + reply)

    def _reply(self, command: Command, request: bytes) -> bytes:
        match command:
            case Command.HELLO:
                return self._hello
            case Command.ALLOC_BUFFER:
                self._pointer += 4096
                size = wanted_bytes(request)
                return struct.pack("<QQ", self._pointer, size + -size % self.ROUND)
            case Command.GET_DEVICE_MEMORY:
                return struct.pack("<QQ", 1 << 40, 1 << 41)
            case Command.GET_TENSOR:
                return bytes(range(256)) * (3 * MIB // 256)
            case _:
                return b""

    def _scripted_reply(self) -> bytes:
        reply = next(self._replies)
        return bytes(reply.size_bytes) if reply.payload is None else reply.payload


@contextmanager
def serving(hello: bytes = VERSION_7, script: Sequence[Message] = ()) -> Iterator[Server]:
    server = Server(hello, script)
    try:
        yield server
    finally:
        server.close()
