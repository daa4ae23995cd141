"""Each engine that serves is asked for its figures, one beside the other; those in focus are the daemon's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest

from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.fleet_states import DownRequested, LoadRequested, Looked
from orchestrator.core.fleet.lifecycle_states import Exited
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Launch
from orchestrator.daemon.telemetry import engine_samples
from orchestrator.daemon.telemetry.engine_samples import EngineSamples, Work
from orchestrator.daemon.telemetry.pace import Pace
from tests.unit.core.fleet.lifecycle_machine import TERMINATED, B
from tests.unit.daemon.running_owner import become_ready, request_start, running_owner, until
from tests.unit.daemon.telemetry.idle_parts import Clients, run_on

pytestmark = pytest.mark.asyncio

SLOT = {"n_ctx": 4096, "is_processing": True, "n_past": 1}


@dataclass
class Engines:
    """Answers for each instance, whoever asks; one of them may hang."""

    hung: str | None = None
    asked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def probe(self, launch: Launch) -> AsyncIterator[EngineAnswers]:
        yield EngineAnswers(self, launch.instance)


@dataclass
class EngineAnswers:
    engines: Engines
    instance: str

    async def metrics(self, timeout_s: float) -> str | None:
        self.engines.asked.append(self.instance)
        if self.instance == self.engines.hung:
            await anyio.sleep_forever()

        return ""

    async def slots(self, timeout_s: float) -> object:
        number = 7 if self.instance.startswith("s") else 8
        return [{**SLOT, "id": 0, "id_task": number}]


@dataclass
class Sampled:
    owner: Owner
    engines: Engines
    samples: EngineSamples
    first: str
    second: str

    def tasks(self) -> dict[str | None, list[int | None]]:
        return {work.instance: [slot.task for slot in work.slots] for work in self.samples.works}


@asynccontextmanager
async def two_engines(
    monkeypatch: pytest.MonkeyPatch, *, hung: str = "", cut_after: int | None = None
) -> AsyncIterator[Sampled]:
    """A in focus and B beside it, both with something to do.

    :param cut_after: the loop is broken off after so many turns, and begins anew
    """
    async with running_owner() as (owner, effects):
        first = await request_start(owner, effects)
        await become_ready(owner, first)
        await owner.ask(LoadRequested(B, "t"))
        await owner.ask(Looked(memory=MemoryLook()))
        second = effects.instance
        assert second != first
        await become_ready(owner, second)
        runs, clients = EngineRuns(), Clients(active=1)
        for instance in (first, second):
            runs.add(run_on(1, instance))

        engines = Engines(hung={"first": first, "second": second}.get(hung))
        monkeypatch.setattr(engine_samples, "engine_probe", engines.probe)
        samples = EngineSamples(owner, runs, clients, Pace(clients))
        if cut_after is not None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(samples.run)
                for _ in range(cut_after):
                    await anyio.lowlevel.checkpoint()

                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(samples.run)
            yield Sampled(owner, engines, samples, first, second)
            tasks.cancel_scope.cancel()


async def test_the_slots_of_each_engine_are_known_and_the_work_is_that_of_the_focus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_engines(monkeypatch) as here:
        await until(lambda: here.tasks() == {here.first: [7], here.second: [8]})
        assert here.samples.serving == here.first
        assert here.samples.work.instance == here.first


async def test_an_engine_that_does_not_answer_keeps_nobody_from_the_figures_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_engines(monkeypatch, hung="first") as here:
        await until(lambda: here.tasks().get(here.second) == [8])
        assert here.tasks()[here.first] == []


async def test_of_one_that_is_gone_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_engines(monkeypatch) as here:
        await until(lambda: len(here.tasks()) == 2)
        await here.owner.ask(DownRequested(("a",), force=True))
        await here.owner.ask(Exited(here.first, TERMINATED))
        assert list(here.tasks()) == [here.second]
        await until(lambda: here.samples.work.slots)  # the focus is the other one by now
        assert here.samples.work.instance == here.second
        await here.owner.ask(DownRequested(force=True))
        assert here.samples.works == ()
        assert here.samples.work == Work()


@pytest.mark.parametrize("turns", range(6))
async def test_a_loop_that_begins_anew_asks_them_all_again(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    async with two_engines(monkeypatch, cut_after=turns) as here:
        await until(lambda: here.tasks() == {here.first: [7], here.second: [8]})
