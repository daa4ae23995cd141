"""The timer for slow clients: it runs only while there is somebody to wait for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.adapters.http1 import HttpLimits, HttpServer, Request, Response

pytestmark = pytest.mark.asyncio


async def answer(request: Request, response: Response) -> None:
    response.send(200, [], b"yes")


async def test_a_server_without_connections_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    armed: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def noting(delay_s: float, call: Callable[..., Any], *words: Any, **more: Any) -> asyncio.TimerHandle:
        handle = call_later(delay_s, call, *words, **more)
        if getattr(call, "__self__", None) is server:
            armed.append(handle)

        return handle

    monkeypatch.setattr(loop, "call_later", noting)
    server = HttpServer(answer, HttpLimits(header_timeout_s=0.08, idle_timeout_s=0.08))
    sock = socket.create_server(("127.0.0.1", 0))
    await server.serve(sock)
    assert armed == []
    for _ in range(2):  # the second meets a server whose timer has stopped
        before = len(armed)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        await asyncio.wait_for(reader.read(), 10.0)  # it says nothing, and its time is up
        writer.close()
        await writer.wait_closed()
        assert server.connections == 0 and len(armed) > before
        last = armed[-1]
        await asyncio.sleep(max(last.when() - loop.time(), 0.0) + 0.05)
        assert armed[-1] is last  # it has been, and armed no other

    await server.shutdown(0.1)
