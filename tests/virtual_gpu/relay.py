"""A TCP relay in front of `ggml-rpc-server`: the server computes, the relay decides how much memory there is.

To llama-server (`--rpc HOST:PORT`) the two are a GPU, `RPC0`. It fits models to the free memory that the relay tells,
and fails as with a real device when an allocation is refused: the reply has a null pointer, as that of a server whose
device is full. Everything else passes unchanged.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.virtual_gpu.memory import DeviceMemory
from tests.virtual_gpu.protocol import (
    HEADER,
    SIZE,
    Allocation,
    Command,
    ProtocolError,
    allocation_of,
    allocation_reply,
    answered_in,
    command_of,
    device_memory_reply,
    freed_pointer,
    wanted_bytes,
    without_capabilities,
)

HOST = "127.0.0.1"

_CHUNK_BYTES = 1 << 20
_READ_WHOLE = frozenset({Command.HELLO, Command.ALLOC_BUFFER, Command.FREE_BUFFER, Command.GET_DEVICE_MEMORY})
"""Messages that the relay reads; the rest streams through it."""

_LONGEST_READ = 28


class Message(NamedTuple):
    """One request or reply as the client had it; `payload` is None where it streamed through."""

    connection: int
    direction: str
    command: Command
    size_bytes: int
    payload: bytes | None


class Relay:
    """Listens until closed.

    :param servers: addresses of real servers, one for each client at a time: a further one waits until one is free
    :param memory: what the device has
    :param observe: called with each message, from the connection's thread
    :param port: 0 takes a free one
    :ivar failures: what went wrong with the protocol; a test that uses the relay checks that it is empty
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        memory: DeviceMemory,
        observe: Callable[[Message], None] | None = None,
        port: int = 0,
    ) -> None:
        self.memory = memory
        self.failures: list[str] = []
        self._free: queue.Queue[tuple[str, int] | None] = queue.Queue()
        for server in servers:
            self._free.put(server)

        self._observe = observe or (lambda message: None)
        self._listener = socket.create_server((HOST, port))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="relay")]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def close(self) -> None:
        """Cut every connection and wait for the threads."""
        with self._lock:
            self._closed = True
            # Waking a thread out of accept() takes a shutdown; closing alone leaves it there.
            for each in (self._listener, *self._sockets):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        for _ in self._threads:
            self._free.put(None)  # whoever waits for a server goes

        for thread in list(self._threads):
            thread.join()

        self._listener.close()

    def cut(self) -> None:
        """Drop the connections, as a server does whose back end aborts; new ones are accepted."""
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed

            number += 1
            thread = threading.Thread(target=self._serve, args=(client, number), name=f"relay-{number}")
            with self._lock:
                if self._closed:
                    client.close()
                    return

                self._threads.append(thread)

            thread.start()

    def _serve(self, client: socket.socket, number: int) -> None:
        conversation = None
        try:
            with client, self._connected(client) as server:
                conversation = _Conversation(client, server, number, self.memory, self._observe)
                conversation.run()
        except ProtocolError as error:
            self.failures.append(str(error))
        except OSError as error:
            if not self._closed and not isinstance(error, ConnectionError):
                self.failures.append(str(error))
        finally:
            self.memory.leave(number, worked=conversation is not None and conversation.worked)

    @contextlib.contextmanager
    def _connected(self, client: socket.socket) -> Iterator[socket.socket]:
        address = self._free.get()
        if address is None:
            raise ConnectionError("the relay is closed")

        try:
            with socket.create_connection(address) as server:
                pair = (client, server)
                for each in pair:
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

                with self._lock:
                    self._sockets.update(pair)

                try:
                    yield server
                finally:
                    with self._lock:
                        self._sockets.difference_update(pair)
        finally:
            self._free.put(address)


class _Conversation:
    """One connection: requests one after the other, each with its reply before the next, as the client has it.

    :ivar worked: whether the client has put anything on the device
    """

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        number: int,
        memory: DeviceMemory,
        observe: Callable[[Message], None],
    ) -> None:
        self._client = client
        self._server = server
        self._number = number
        self._memory = memory
        self._observe = observe
        self._answered: frozenset[Command] = frozenset({Command.HELLO})
        self.worked = False

    def run(self) -> None:
        """:raises ProtocolError: what is not the protocol"""
        while (first := self._client.recv(1)) != b"":
            command = command_of(first[0])
            (size,) = SIZE.unpack(_read(self._client, SIZE.size))
            if command in _READ_WHOLE:
                if size > _LONGEST_READ:
                    raise ProtocolError(f"{command.name} with {size} bytes; expected are at most {_LONGEST_READ}")

                self._exchange(command, _read(self._client, size))
            else:
                self.worked = self.worked or command is Command.SET_TENSOR
                self._observe(Message(self._number, ">", command, size, None))
                self._server.sendall(HEADER.pack(command, size))
                _stream(self._client, self._server, size)
                if command in self._answered:
                    self._stream_reply(command)

    def _exchange(self, command: Command, request: bytes) -> None:
        self._observe(Message(self._number, ">", command, len(request), request))
        match command:
            case Command.HELLO:
                reply = self._ask(command, without_capabilities(request))
                self._answered = answered_in(reply)
                self._answer(command, without_capabilities(reply))
            case Command.ALLOC_BUFFER:
                self._answer(command, allocation_reply(self._allocate(request)))
            case Command.GET_DEVICE_MEMORY:
                self._ask(command, request)
                self._answer(command, device_memory_reply(*self._memory.told()))
            case _:
                self._memory.free(self._number, freed_pointer(request))
                self._server.sendall(HEADER.pack(command, len(request)) + request)
                if command in self._answered:
                    self._stream_reply(command)

    def _allocate(self, request: bytes) -> Allocation:
        wanted = wanted_bytes(request)
        if not self._memory.reserve(wanted):
            return Allocation(0, 0)

        got = Allocation(0, 0)
        try:
            got = allocation_of(self._ask(Command.ALLOC_BUFFER, request))
        finally:
            self._memory.settle(self._number, wanted, *got)

        return got

    def _ask(self, command: Command, request: bytes) -> bytes:
        self._server.sendall(HEADER.pack(command, len(request)) + request)
        (size,) = SIZE.unpack(_read(self._server, SIZE.size))
        return _read(self._server, size)

    def _answer(self, command: Command, reply: bytes) -> None:
        self._observe(Message(self._number, "<", command, len(reply), reply))
        self._client.sendall(SIZE.pack(len(reply)) + reply)

    def _stream_reply(self, command: Command) -> None:
        head = _read(self._server, SIZE.size)
        (size,) = SIZE.unpack(head)
        self._observe(Message(self._number, "<", command, size, None))
        self._client.sendall(head)
        _stream(self._server, self._client, size)


def _read(source: socket.socket, size: int) -> bytes:
    """:raises ConnectionError: when the other side ends before that"""
    data = bytearray()
    while len(data) < size:
        part = source.recv(min(size - len(data), _CHUNK_BYTES))
        if not part:
            raise ConnectionError(f"ended after {len(data)} of {size} bytes")

        data += part

    return bytes(data)


def _stream(source: socket.socket, sink: socket.socket, size: int) -> None:
    while size:
        part = source.recv(min(size, _CHUNK_BYTES))
        if not part:
            raise ConnectionError(f"ended {size} bytes early")

        sink.sendall(part)
        size -= len(part)


@contextlib.contextmanager
def relayed(
    server: tuple[str, int],
    *more: tuple[str, int],
    reported_bytes: int,
    granted_bytes: int,
    linger_s: float = 0.0,
    observe: Callable[[Message], None] | None = None,
    port: int = 0,
) -> Iterator[Relay]:
    """A relay that is closed in the end, and has met nothing but the protocol.

    :param more: servers for further clients at the same time, which share the device's memory
    :raises AssertionError: when it has
    """
    relay = Relay((server, *more), DeviceMemory(reported_bytes, granted_bytes, linger_s, time.monotonic), observe, port)
    try:
        yield relay
    finally:
        relay.close()

    assert relay.failures == []
