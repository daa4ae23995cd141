"""A scrape of /metrics: what the parts know, and what the engine says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.core.fleet.lifecycle_states import Exited
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry import exporter
from orchestrator.daemon.telemetry.exporter import Exporter
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.telemetry import Telemetry
from orchestrator.daemon.telemetry.totals import Totals
from tests.unit.core.fleet.lifecycle_machine import OOM
from tests.unit.daemon.running_owner import NotedEffects, become_ready, make_failed, request_start, running_owner
from tests.unit.daemon.telemetry.idle_parts import Clients, Devices, no_energy, run_on

pytestmark = pytest.mark.asyncio

PAGE = b"# HELP llamacpp:requests_processing Requests.\n# TYPE llamacpp:requests_processing gauge\n"


class Engine:
    """Answers every question with its page, as long as it is not hung; counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self.hung = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            if self.hung:
                await reader.read()
            else:
                body = PAGE + b"llamacpp:requests_processing %d\n" % self.asked
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Scraped:
    """The exporter of a daemon whose owner runs, with one engine to ask."""

    def __init__(self, owner: Owner, effects: NotedEffects, port: int, engine: Engine, directory: Path) -> None:
        self.owner, self.effects, self.engine = owner, effects, engine
        self.clients, self.runs = Clients(), EngineRuns()
        devices = Devices(GpuReading(0, "card", 1000, 2000, "GPU-1"))
        memory = DeviceMemory(devices)
        telemetry = Telemetry(owner, self.runs, self.clients, devices, memory, no_energy(), list)
        history = HistoryWriter(str(directory / "history.sqlite3"))
        self._port = port
        self._exporter = Exporter(owner, self.runs, self.clients, telemetry, Totals(), history)

    async def become_ready(self, instance: str) -> None:
        self.runs.add(run_on(self._port, instance))
        await become_ready(self.owner, instance)

    async def make_ready(self) -> str:
        instance = await request_start(self.owner, self.effects)
        await self.become_ready(instance)
        return instance

    async def lines(self) -> set[str]:
        return set((await self._exporter.page()).decode().splitlines())


@asynccontextmanager
async def scraped(directory: Path) -> AsyncIterator[Scraped]:
    engine = Engine()
    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    try:
        async with running_owner() as (owner, effects):
            yield Scraped(owner, effects, server.sockets[0].getsockname()[1], engine, directory)
    finally:
        server.close()


def processing(count: int) -> str:
    return f'llamacpp:requests_processing{{engine="upstream",profile="a"}} {count}.0'


async def test_with_nothing_running_the_page_says_so_and_nobody_is_asked(tmp_path: Path) -> None:
    async with scraped(tmp_path) as scrape:
        lines = await scrape.lines()
        assert {'orch_state{state="stopped"} 1.0', "orch_ready 0.0", "orch_requests_in_flight 0.0"} <= lines
        assert not any(line.startswith(("orch_instance_info{", "llamacpp:")) for line in lines)
        assert scrape.engine.asked == 0


async def test_an_instance_that_failed_is_named_and_has_no_build(tmp_path: Path) -> None:
    async with scraped(tmp_path) as scrape:
        await make_failed(scrape.owner, scrape.effects)
        lines = await scrape.lines()
        assert {'orch_state{state="failed"} 1.0', "orch_ready 0.0"} <= lines
        assert 'orch_instance_info{build="",engine="upstream",profile="a"} 1.0' in lines


async def test_an_instance_that_is_ready_is_named_and_its_own_figures_are_passed_on(tmp_path: Path) -> None:
    async with scraped(tmp_path) as scrape:
        await scrape.make_ready()
        scrape.clients.active, scrape.clients.queued = 5, 2
        lines = await scrape.lines()
        assert {
            "orch_ready 1.0",
            'orch_instance_info{build="b11434",engine="upstream",profile="a"} 1.0',
            "orch_requests_in_flight 3.0",
            "orch_requests_queued 2.0",
            processing(1),
        } <= lines


async def test_scrapes_that_come_together_ask_the_engine_once(tmp_path: Path) -> None:
    async with scraped(tmp_path) as scrape:
        await scrape.make_ready()
        pages = await asyncio.gather(*(scrape.lines() for _ in range(5)))
        assert all(processing(1) in page for page in pages)
        assert scrape.engine.asked == 1


async def test_an_engine_that_does_not_answer_is_shown_as_it_was_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "FRESH_S", 0.0)
    async with scraped(tmp_path) as scrape:
        await scrape.make_ready()
        assert processing(1) in await scrape.lines()
        scrape.engine.hung = True
        with anyio.fail_after(30):
            assert processing(1) in await scrape.lines()

        monkeypatch.setattr(exporter, "KEPT_S", 0.0)
        assert not any(line.startswith("llamacpp:") for line in await scrape.lines())


async def test_the_figures_of_one_instance_are_not_shown_for_the_next(tmp_path: Path) -> None:
    async with scraped(tmp_path) as scrape:
        first = await scrape.make_ready()
        assert processing(1) in await scrape.lines()
        scrape.engine.hung = True
        await scrape.owner.ask(Exited(first, OOM))
        await scrape.become_ready(scrape.effects.instance)
        assert scrape.effects.instance != first
        assert not any(line.startswith("llamacpp:") for line in await scrape.lines())
