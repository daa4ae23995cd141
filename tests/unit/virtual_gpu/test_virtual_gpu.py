"""The virtual GPU itself: what it counts, refuses and leaves alone. The other side is a small server of our own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ROOT, until
from tests.virtual_gpu.memory import MIB, DeviceMemory
from tests.virtual_gpu.peers import VERSION_3, VERSION_7, Peer, Server, serving
from tests.virtual_gpu.protocol import (
    ANSWERED,
    HEADER,
    Allocation,
    Command,
    ProtocolError,
    answered_in,
    command_of,
    without_capabilities,
)
from tests.virtual_gpu.recording import from_lines, memory_use, to_lines
from tests.virtual_gpu.relay import HOST, Message, Relay, relayed

RECORDED = str(ROOT / "tests" / "virtual_gpu" / "recorded_start.txt")


@contextmanager
def connected(relay: Relay, hello: bytes = bytes(24)) -> Iterator[Peer]:
    with socket.create_connection((HOST, relay.port)) as connection:
        peer = Peer(connection)
        peer.ask(Command.HELLO, hello)
        yield peer


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def device(granted_bytes: int, linger_s: float = 0.0, clock: Sequence[float] = (0.0,)) -> DeviceMemory:
    return DeviceMemory(30 * MIB, granted_bytes, linger_s, lambda: clock[-1])


def test_clients_are_told_the_memory_of_the_virtual_device(server: Server) -> None:
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay, connected(relay) as peer:
        assert peer.ask(Command.GET_DEVICE_MEMORY, bytes(4)) == struct.pack("<QQ", 30 * MIB, 30 * MIB)
        peer.allocate(2 * MIB)
        assert peer.ask(Command.GET_DEVICE_MEMORY, bytes(4)) == struct.pack("<QQ", 28 * MIB, 30 * MIB)


def test_an_allocation_past_the_budget_is_refused_and_the_server_never_hears_of_it(server: Server) -> None:
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=4 * MIB) as relay, connected(relay) as peer:
        assert peer.allocate(3 * MIB).pointer
        assert peer.allocate(MIB + 1) == Allocation(0, 0)
        assert peer.allocate(MIB).pointer
        assert relay.memory.refused_bytes() == [MIB + 1]

    assert [command for command, _ in server.received].count(Command.ALLOC_BUFFER) == 2


def test_the_bytes_counted_are_those_the_server_gave_until_they_are_freed(server: Server) -> None:
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay, connected(relay) as peer:
        first = peer.allocate(1001)
        second = peer.allocate(1)
        assert relay.memory.used_bytes() == 1024 + 64
        peer.send(Command.FREE_BUFFER, struct.pack("<Q", first.pointer))
        peer.ask(Command.GET_ALIGNMENT, bytes(4))  # the free has no reply; this one comes after it
        assert (relay.memory.used_bytes(), relay.memory.peak_bytes()) == (second.size_bytes, 1024 + 64)


def test_a_client_that_is_gone_holds_nothing(server: Server) -> None:
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay:
        with connected(relay) as peer:
            peer.allocate(MIB)

        until(lambda: relay.memory.used_bytes() == 0, "the memory is free")


def test_a_client_that_is_gone_in_the_middle_of_a_message_is_no_failure_of_the_relay(server: Server) -> None:
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay:
        with connected(relay) as peer:
            peer.allocate(MIB)
            peer.connection.sendall(HEADER.pack(Command.SET_TENSOR, 1000) + bytes(10))

        until(lambda: relay.memory.used_bytes() == 0, "the memory is free")


def test_bulk_data_passes_unchanged_both_ways(server: Server) -> None:
    data = bytes(range(251)) * (3 * MIB // 251)
    with relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay, connected(relay) as peer:
        peer.send(Command.SET_TENSOR, data)
        assert peer.ask(Command.GET_TENSOR, b"which") == bytes(range(256)) * (3 * MIB // 256)

    assert server.received[-2:] == [(Command.SET_TENSOR, data), (Command.GET_TENSOR, b"which")]


def test_a_server_that_cannot_allocate_holds_no_bytes() -> None:
    hello = Message(1, "<", Command.HELLO, 28, VERSION_7)
    refused = Message(1, "<", Command.ALLOC_BUFFER, 16, bytes(16))
    with (
        serving(script=(hello, refused)) as server,
        relayed(server.address, reported_bytes=30 * MIB, granted_bytes=14 * MIB) as relay,
        connected(relay) as peer,
    ):
        assert peer.allocate(MIB) == Allocation(0, 0)
        assert (relay.memory.used_bytes(), relay.memory.refused_bytes()) == (0, [])


def test_no_other_transport_is_agreed_on() -> None:
    with (
        serving(VERSION_7[:4] + b"r" * 24) as server,
        relayed(server.address, reported_bytes=MIB, granted_bytes=MIB) as relay,
        socket.create_connection((HOST, relay.port)) as connection,
    ):
        assert Peer(connection).ask(Command.HELLO, b"c" * 24) == VERSION_7

    assert server.received == [(Command.HELLO, bytes(24))]


def test_in_version_3_freeing_is_answered() -> None:
    with (
        serving(VERSION_3) as server,
        relayed(server.address, reported_bytes=MIB, granted_bytes=MIB) as relay,
        connected(relay, b"") as peer,
    ):
        buffer = peer.allocate(1000)
        assert peer.ask(Command.FREE_BUFFER, struct.pack("<Q", buffer.pointer)) == b""
        assert relay.memory.used_bytes() == 0


def test_cutting_the_connections_ends_the_client_and_the_next_one_is_served(server: Server) -> None:
    with relayed(server.address, reported_bytes=MIB, granted_bytes=MIB) as relay:
        with connected(relay) as peer:
            relay.cut()
            with pytest.raises((EOFError, ConnectionError)):
                peer.ask(Command.GET_ALIGNMENT, bytes(4))

        with connected(relay) as peer:
            assert peer.allocate(1000).pointer


@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (HEADER.pack(99, 0), "no such command: 99"),
        (HEADER.pack(Command.ALLOC_BUFFER, 1 << 40), "ALLOC_BUFFER with 1099511627776 bytes"),
        (HEADER.pack(Command.FREE_BUFFER, 3) + b"abc", "a payload of 3 bytes; expected are 8"),
    ],
)
def test_what_is_not_the_protocol_is_a_failure(server: Server, garbage: bytes, complaint: str) -> None:
    relay = Relay([server.address], device(MIB))
    try:
        with connected(relay) as peer:
            peer.connection.sendall(garbage)
            with pytest.raises((EOFError, ConnectionError)):
                peer.read(1)
    finally:
        relay.close()

    assert len(relay.failures) == 1
    assert relay.failures[0].startswith(complaint)


def test_an_unknown_version_is_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match=r"version 6\.0\.0 is not known; known are \[3, 7\]"):
        answered_in(bytes([6, 0, 0]))


def test_version_7_answers_fewer_commands_than_version_3() -> None:
    assert ANSWERED[3] - ANSWERED[7] == {Command.FREE_BUFFER, Command.BUFFER_CLEAR, Command.INIT_TENSOR}


def test_a_hello_of_version_3_has_no_capabilities_to_take_out() -> None:
    assert without_capabilities(b"") == b""
    assert without_capabilities(VERSION_3) == VERSION_3


@given(st.integers(0, 255))
def test_every_byte_is_a_command_or_an_error(byte: int) -> None:
    if byte <= Command.MEMSET_TENSOR:
        assert command_of(byte) == byte
    else:
        with pytest.raises(ProtocolError):
            command_of(byte)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5000)), max_size=40))
def test_whatever_is_asked_for_the_device_never_gives_more_than_its_budget(wishes: list[tuple[int, int]]) -> None:
    memory = device(8000)
    held: dict[int, list[int]] = {}
    for pointer, (client, size) in enumerate(wishes, 1):
        free = 8000 - sum(map(sum, held.values()))
        assert memory.reserve(size) == (size <= free)
        if size <= free:
            memory.settle(client, size, pointer, size)
            held.setdefault(client, []).append(size)
        else:
            memory.leave(client, worked=True)
            held.pop(client, None)

        assert memory.used_bytes() == sum(map(sum, held.values())) <= memory.peak_bytes() <= 8000


def test_the_budget_can_shrink_below_what_is_held() -> None:
    memory = device(8000)
    assert memory.reserve(6000)
    memory.settle("one", 6000, 1, 6000)
    memory.grant(5000)
    assert not memory.reserve(1)
    memory.free("one", 1)
    assert memory.reserve(5000)


def test_memory_lingers_after_its_client_and_then_is_free() -> None:
    clock = [0.0]
    memory = device(8 * MIB, linger_s=3.0, clock=clock)
    assert memory.reserve(6 * MIB)
    memory.settle("one", 6 * MIB, 1, 6 * MIB)
    memory.free("one", 1)
    assert memory.used_bytes() == 0
    memory.leave("one", worked=True)
    clock.append(2.9)
    assert (memory.used_bytes(), memory.told()[0], memory.reserve(3 * MIB)) == (6 * MIB, 24 * MIB, False)
    clock.append(3.0)
    assert (memory.used_bytes(), memory.told()[0], memory.reserve(3 * MIB)) == (0, 30 * MIB, True)


def test_a_client_that_only_looked_leaves_nothing_behind() -> None:
    memory = device(8 * MIB, linger_s=3.0)
    assert memory.reserve(6 * MIB)
    memory.settle("one", 6 * MIB, 1, 6 * MIB)
    memory.leave("one", worked=False)
    assert memory.used_bytes() == 0


def test_the_relay_sees_whether_a_client_put_something_on_the_device(server: Server) -> None:
    with relayed(server.address, reported_bytes=8 * MIB, granted_bytes=8 * MIB, linger_s=3600.0) as relay:
        for worked in (False, True):
            with connected(relay) as peer:
                peer.allocate(MIB)
                if worked:
                    peer.send(Command.SET_TENSOR, b"weights")

                peer.ask(Command.GET_ALIGNMENT, bytes(4))

    # Closing has waited for both connections to end.
    assert relay.memory.used_bytes() == MIB


def recorded() -> list[Message]:
    with open(RECORDED, encoding="ascii") as file:
        return list(from_lines(line for line in file if not line.startswith("#")))


def test_a_recording_reads_back_as_it_was_written() -> None:
    messages = recorded()
    assert list(from_lines(to_lines(messages))) == messages


def test_a_real_start_passes_the_relay_and_its_device_bytes_are_counted_exactly() -> None:
    """llama-server's own conversation, replayed: bulk data is zeros here."""
    messages = recorded()
    use = memory_use(messages)
    assert use.buffers > 3
    with (
        serving(script=messages) as server,
        relayed(server.address, reported_bytes=30 * MIB, granted_bytes=use.peak_bytes) as relay,
    ):
        for number in dict.fromkeys(each.connection for each in messages):
            replay(relay, [each for each in messages if each.connection == number])
            until(lambda: relay.memory.used_bytes() == 0, "the memory is free")

        assert relay.memory.refused_bytes() == []
        assert relay.memory.peak_bytes() == use.peak_bytes

    requests = [each for each in messages if each.direction == ">"]
    assert [command for command, _ in server.received] == [each.command for each in requests]


def replay(relay: Relay, messages: Sequence[Message]) -> None:
    with socket.create_connection((HOST, relay.port)) as connection:
        peer = Peer(connection)
        for each in messages:
            if each.direction == ">":
                peer.send(each.command, bytes(each.size_bytes) if each.payload is None else each.payload)
                continue

            reply = peer.read_reply()
            assert len(reply) == each.size_bytes
            if each.command is not Command.GET_DEVICE_MEMORY:
                assert reply == (bytes(each.size_bytes) if each.payload is None else each.payload)
