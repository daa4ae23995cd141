"""Questions to an engine that is dying: whatever the moment, there is an answer and no exception."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest
import uvloop

from orchestrator.adapters.engine_probe import MAX_ANSWER_BYTES, EngineProbe
from orchestrator.adapters.http1 import UpstreamError, UpstreamPool

POOL_ROUNDS = 8000
"""One in a thousand finds its fresh connection closed before it has written to it."""

ROUNDS = 300
"""Without care, one in twenty finds the connection gone between its two halves of being opened."""


@pytest.fixture
def dying() -> Iterator[int]:
    """A port whose connections are reset as soon as they are there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def reset_all() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if ended.is_set():
                    return

                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    ended = threading.Event()
    thread = threading.Thread(target=reset_all)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield port
    finally:
        ended.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listener.close()


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "a body that drips": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks that drip": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a head that drips": (OK, b"X-A: b\r\n"),
    "a body without an end": (OK + b"\r\n", b" " * 65536),
    "more than anybody asked for": (OK + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65536),
    "nested beyond use": (OK + b"Content-Length: 400\r\n\r\n" + b"[" * 200 + b"]" * 200, b""),
    "nested to death": (OK + b"Content-Length: 400000\r\n\r\n" + b"[" * 200000 + b"]" * 200000, b""),
    "compressed": (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", b""),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("how", HOSTILE)
async def test_an_answer_has_a_deadline_a_size_and_a_depth(how: str) -> None:
    begin, rest = HOSTILE[how]
    sent = 0
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        tasks.append(asyncio.current_task())
        with suppress(OSError):
            writer.write(begin)
            while rest:
                writer.write(rest)
                await writer.drain()
                sent += len(rest)
                await asyncio.sleep(0.02 if len(rest) < 100 else 0)

        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    probe = EngineProbe("127.0.0.1", server.sockets[0].getsockname()[1], None)
    with anyio.fail_after(30):
        assert await probe.slots(0.3) is None
        if rest:
            assert await probe.health(0.3) == "silent"
            assert await probe.metrics(0.3) is None

        assert (await probe.identity(0.3)).build_info is None
        assert not (await probe.complete("x", 1, 0.3)).ok
        assert not (await probe.embed(0.3)).ok

    await probe.aclose()
    await asyncio.gather(*[task for task in tasks if task is not None])
    server.close()
    assert sent < 8 * MAX_ANSWER_BYTES  # of five questions


def test_an_engine_that_dies_while_it_is_connected_to_is_an_answer(dying: int) -> None:
    found: Counter[str] = Counter()

    async def ask() -> None:
        probe = EngineProbe("127.0.0.1", dying, None)
        for _ in range(ROUNDS):
            found[await probe.health(5.0)] += 1

        assert await probe.slots(5.0) is None
        assert not (await probe.complete("x", 1, 5.0)).ok
        await probe.aclose()

    uvloop.run(ask())
    assert set(found) <= {"refused", "silent"}
    assert found.total() == ROUNDS


def test_a_request_whose_fresh_connection_is_closed_at_once_is_an_error_of_the_engine(dying: int) -> None:
    found: Counter[str] = Counter()

    async def ask() -> None:
        pool = UpstreamPool("127.0.0.1", dying)
        for _ in range(POOL_ROUNDS):
            with pytest.raises(UpstreamError) as raised:
                await pool.request("POST", "/completion", [], b"{}")

            found[raised.value.stage] += 1

        pool.close()

    uvloop.run(ask())
    assert set(found) <= {"connect", "before_response"}
    assert found.total() == POOL_ROUNDS
