"""From a spawned process to one that answers, where the process misbehaves in an unlucky moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import anyio
import pytest

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.readiness import LoadingLook, no_drafts
from orchestrator.daemon.questions.canary import send_canary
from orchestrator.daemon.questions.loading import check_identity, watch_loading


class Process:
    """Says who owns its port, one look after the other; the last one goes on."""

    def __init__(self, *owners: bool | None) -> None:
        self._owners = list(owners)
        self.looks = 0

    def owns(self, port: int) -> bool | None:
        self.looks += 1
        return self._owners.pop(0) if len(self._owners) > 1 else self._owners[0]

    def look(self, listens: bool | None, healthy: bool) -> LoadingLook:
        return LoadingLook(listens, healthy, self.looks)

    def last_line(self) -> str:
        return ""


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections and answers none, as a stopped engine does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def watched(process: Process, limit_s: float) -> Failure | None:
    probe = EngineProbe("127.0.0.1", 1, None)
    try:
        with anyio.fail_after(limit_s):
            return await watch_loading(process, probe, 1, 60.0, lambda: None)
    finally:
        await probe.aclose()


@pytest.mark.asyncio
async def test_somebody_else_on_the_port_is_told() -> None:
    ended = await watched(Process(None, False), 10.0)
    assert ended is not None and ended.failure_class == "port_in_use"


@pytest.mark.asyncio
async def test_a_process_that_is_just_dying_is_not_taken_for_somebody_else() -> None:
    process = Process(False, None)  # its files are gone, its listener for one more moment is not
    with pytest.raises(TimeoutError):
        await watched(process, 0.5)

    assert process.looks > 2


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["completion", "embeddings", "reranking"])
async def test_a_canary_that_nobody_answers_has_an_end(mute: int, kind: str) -> None:
    probe = EngineProbe("127.0.0.1", mute, None)
    try:
        with anyio.fail_after(10.0):
            ended = await send_canary(
                probe,
                embeddings=kind == "embeddings",
                reranking=kind == "reranking",
                mtp=False,
                drafts_in_log=lambda: 0,
                undrafted=lambda answers: no_drafts("p", answers),
                timeout_s=0.2,
            )
    finally:
        await probe.aclose()

    assert ended is not None and "within 0.2 s" in ended.message
    assert ended.action == "restart"


class Answering:
    """A server on loopback that answers every request with the same bytes."""

    def __init__(self, head: str, body: str) -> None:
        text = f"HTTP/1.1 200 OK\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._answer = f"{text}Connection: close\r\n\r\n{body}".encode()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("head", "body", "kind", "build_number", "words"),
    [
        ("Server: llama.cpp\r\n", '{"build_info": "b11434-abc"}', "upstream", 11434, None),
        ("Server: llama.cpp\r\n", '{"build_info": "b0-unknown"}', "upstream", 11549, None),
        ("Server: ik_llama.cpp\r\n", "{}", "ik", None, None),
        ("", "{}", "upstream", 11434, None),
        ("Server: ik_llama.cpp\r\n", "{}", "upstream", 11434, "ik_llama.cpp"),
        ("Server: llama.cpp\r\n", "{}", "ik", 4409, "llama.cpp"),
        ("Server: llama.cpp\r\n", '{"build_info": "b9000-abc"}', "upstream", 11434, "build 9000"),
    ],
)
@pytest.mark.asyncio
async def test_an_engine_that_is_not_the_build_that_was_started_is_told(
    head: str, body: str, kind: Kind, build_number: int | None, words: str | None
) -> None:
    server = await asyncio.start_server(Answering(head, body), "127.0.0.1", 0)
    probe = EngineProbe("127.0.0.1", server.sockets[0].getsockname()[1], None)
    try:
        ended = await check_identity(probe, kind, build_number)
    finally:
        await probe.aclose()
        server.close()

    assert (ended is None) == (words is None)
    assert ended is None or words is None or words in ended.message
