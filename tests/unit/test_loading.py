"""From a spawned process to one that answers, where the process misbehaves in an unlucky moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import anyio
import pytest

from orchestrator.adapters.http import EngineProbe
from orchestrator.daemon.loading import Ended, send_canary, watch_loading


class Process:
    """Says who owns its port, one look after the other; the last one goes on."""

    def __init__(self, *owners: bool | None) -> None:
        self._owners = list(owners)
        self.looks = 0

    def owns(self, port: int) -> bool | None:
        self.looks += 1
        return self._owners.pop(0) if len(self._owners) > 1 else self._owners[0]

    def work_done(self) -> int:
        return self.looks


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that takes connections and answers none, as a stopped engine does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def watched(process: Process, limit_s: float) -> Ended | None:
    probe = EngineProbe("127.0.0.1", 1, None)
    try:
        with anyio.fail_after(limit_s):
            return await watch_loading(process, probe, 1, 60.0, lambda: None)
    finally:
        await probe.aclose()


@pytest.mark.asyncio
async def test_somebody_else_on_the_port_is_told() -> None:
    ended = await watched(Process(None, False), 10.0)
    assert ended is not None and ended.failure.failure_class == "port_in_use"


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
                timeout_s=0.2,
            )
    finally:
        await probe.aclose()

    assert ended is not None and "within 0.2 s" in ended.failure.message
    assert ended.failure.action == "restart"
