"""Questions to an engine that is dying: whatever the moment, there is an answer and no exception."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import uvloop

from orchestrator.adapters.engine_probe import EngineProbe
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
