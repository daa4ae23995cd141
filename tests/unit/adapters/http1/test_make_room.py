"""Connections that have nothing to say lock nobody out of the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from orchestrator.adapters.http1 import HttpLimits, HttpServer, Request, Response
from orchestrator.adapters.http1.hub import MakeRoom

LIMIT = 8


async def ask(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def answer(request: Request, response: Response) -> None:
    if request.path == "/follow":
        response.start(200, [])
        response.write(b"x")
        await asyncio.sleep(60)

    response.send(200, [], b"here")


async def serve(path: str, *, make_room: MakeRoom | None) -> HttpServer:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(64)
    sock.setblocking(False)
    server = HttpServer(answer, HttpLimits(connections=LIMIT), {os.geteuid()}, make_room=make_room)
    await server.serve(sock)
    return server


SAID = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "half a body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
    "a whole request before": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a stream without end": b"GET /follow HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("said", SAID)
async def test_whoever_comes_is_let_in_and_the_oldest_goes(tmp_path: Path, said: str) -> None:
    path = str(tmp_path / "s")
    server = await serve(path, make_room="any")
    others = [await asyncio.open_unix_connection(path) for _ in range(LIMIT)]
    for _, writer in others:
        writer.write(SAID[said])

    await asyncio.sleep(0.05)
    for _ in range(3 * LIMIT):
        assert (await ask(path)).endswith(b"here")

    assert server.connections <= LIMIT
    for _, writer in others:
        writer.close()

    await server.shutdown(0.1)


@pytest.mark.asyncio
async def test_who_is_being_answered_stays_while_another_is_idle(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = await serve(path, make_room="any")
    reader, follower = await asyncio.open_unix_connection(path)
    follower.write(SAID["a stream without end"])
    await reader.readuntil(b"x")
    idle = [await asyncio.open_unix_connection(path) for _ in range(LIMIT)]
    assert (await ask(path)).endswith(b"here")
    assert not reader.at_eof()
    for writer in (follower, *(each for _, each in idle)):
        writer.close()

    await server.shutdown(0.1)


@pytest.mark.asyncio
async def test_without_it_the_new_one_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = await serve(path, make_room=None)
    idle = [await asyncio.open_unix_connection(path) for _ in range(LIMIT)]
    await asyncio.sleep(0.05)
    with contextlib.suppress(ConnectionError):
        assert not await ask(path)

    for _, writer in idle:
        writer.close()

    await server.shutdown(0.1)
