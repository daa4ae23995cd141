"""The watch as it goes: looks are cheap while nothing happens, and what is noticed is told once."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import cast

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.process.child import Child
from orchestrator.api.types import PageCacheStatus
from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.events import Degraded, LayersOffloaded, LogRecord
from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.memory.host_spans import HostPart
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.profile.settings import Value
from orchestrator.core.starts.start import plan_start
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry import cold_read_watch
from orchestrator.daemon.telemetry.cold_read_watch import ColdReadWatch
from orchestrator.engines.read_back import ReadBack
from orchestrator.gateway.contract import Finished
from tests.true_geometry import header
from tests.unit.daemon.telemetry.idle_parts import Clients, run_on

pytestmark = pytest.mark.anyio

MIB = 1 << 20


class Engine:
    """An engine with counters that a test moves, and a clock; the watch over it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.read_mib, self.faults, self.looks = 100.0, 0, 0, 0
        self.resident_mib = 900
        self.experts_mib: int | None = 0
        self.family = frozenset({os.getpid()})
        self.events: list[tuple[str, str]] = []
        self.notices = 0
        self.clients = Clients()
        self.run: EngineRun = run_on(1, "a.1")
        self.run.child = cast(Child, type("Process", (), {"pid": os.getpid()})())
        runs = EngineRuns()
        runs.add(self.run)
        monkeypatch.setattr(cold_read_watch, "process_reads", self.reads)
        monkeypatch.setattr(cold_read_watch, "monotonic", lambda: self.now)
        monkeypatch.setattr(cold_read_watch, "io_pressure", lambda: None)
        monkeypatch.setattr(cold_read_watch, "serving_runs", lambda *_: {"a.1": self.run})
        monkeypatch.setattr(ColdReadWatch, "_read", lambda *_: self.figure())
        self.watch = ColdReadWatch(
            find_paths({"ORCH_HOME": "/nonexistent"}), cast(Owner, None), runs, self.clients,
            lambda kind, text: self.events.append((kind, text)), self.noticed, lambda pid: self.family,
        )  # fmt: skip

    def noticed(self) -> None:
        self.notices += 1

    def reads(self, _: int) -> tuple[int, int]:
        self.looks += 1
        return self.read_mib * MIB, self.faults

    def figure(self) -> PageCacheStatus:
        return PageCacheStatus(part_mib=900, resident_mib=self.resident_mib, experts_mib=self.experts_mib,
                               experts_resident_mib=self.experts_mib, where="")  # fmt: skip

    async def seconds(self, count: int, *, read_mib: int = 0) -> None:
        """Let time pass; what is read is read in each second."""
        for _ in range(count):
            self.now += 1.0
            self.read_mib += read_mib
            self.faults += 1 if read_mib else 0
            await self.watch._look("a.1", self.run)

    def answered(self) -> None:
        self.watch.finished(cast(Finished, type("Record", (), {"instance": "a.1"})()))


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


async def test_an_engine_at_rest_is_looked_at_every_ten_seconds(engine: Engine) -> None:
    await engine.seconds(60)
    assert engine.looks == 6
    assert engine.events == []


async def test_a_healthy_engine_that_answers_is_left_alone(engine: Engine) -> None:
    engine.clients.active = 1
    await engine.seconds(60)
    assert engine.looks == 60
    assert (engine.events, engine.notices, engine.watch.notice("a.1")) == ([], 0, None)


async def test_a_request_between_two_looks_counts(engine: Engine) -> None:
    await engine.seconds(1)
    engine.answered()
    engine.resident_mib = 300
    await engine.seconds(1, read_mib=50)
    [(kind, text)] = engine.events
    assert kind == "went_cold"
    assert "50 MiB in 10 s, 33% of the host's part" in text
    assert engine.watch.notice("a.1") in text  # type: ignore[operator]
    assert engine.notices == 1


async def test_it_is_told_once_and_is_over_when_all_has_come_back(engine: Engine) -> None:
    engine.clients.active = 1
    engine.resident_mib = 500
    await engine.seconds(20, read_mib=50)
    engine.clients.active = 0
    await engine.seconds(30)
    assert [kind for kind, _ in engine.events] == ["went_cold"]
    engine.resident_mib = 900
    await engine.seconds(12)
    assert [kind for kind, _ in engine.events] == ["went_cold", "warmed"]
    assert engine.watch.notice("a.1") is None


async def test_a_share_of_what_may_be_on_a_device_is_not_told_and_ends_nothing(engine: Engine) -> None:
    engine.clients.active = 1
    engine.experts_mib = None
    await engine.seconds(20, read_mib=50)
    engine.clients.active = 0
    await engine.seconds(60)
    [(kind, text)] = engine.events
    assert kind == "went_cold" and "host's part" not in text
    engine.clients.active = 1
    await engine.seconds(12)
    assert [kind for kind, _ in engine.events] == ["went_cold", "warmed"]


async def test_under_a_fit_the_log_tells_what_is_on_the_host_and_nothing_else() -> None:
    run = run_on(1, "a.1")
    profile = replace(run.launch.profile, settings={"memory.fit": True})
    plan = plan_start(geometry_of([header("small-dense-1b")]), profile, PlanBuild("upstream"))
    assert cold_read_watch._placement_of(run) is None  # not yet read back
    run.read_back = cast(ReadBack, type("Read", (), {"plan": plan})())
    assert plan.fitted and cold_read_watch._placement_of(run) is None  # the log says nothing
    events = (Degraded("fit_given_up", mended=True), LayersOffloaded(8, 17))
    run.log_cursor.activity = add_records(EngineActivity(), [LogRecord(1, "", "I", events)])
    placed = cold_read_watch._placement_of(run)
    assert placed is not None and placed.where == "layers 0-8"
    run.read_back = cast(ReadBack, type("Read", (), {"plan": replace(plan, certain=False)})())
    assert cold_read_watch._placement_of(run) is None
    run.read_back = cast(ReadBack, type("Read", (), {"plan": replace(plan, fitted=False)})())
    placed = cold_read_watch._placement_of(run)
    assert placed is not None and placed.where == ""


async def test_what_is_not_mapped_is_read_back_from_swap(engine: Engine) -> None:
    await engine.seconds(1)
    engine.watch._watched["a.1"].part = HostPart({}, {})
    engine.answered()
    await engine.seconds(1, read_mib=50)
    assert "read back from swap" in engine.events[0][1]


@pytest.mark.parametrize("setting", [("memory.defer_experts", True), ("memory.lazy", "on"), ("cpu.numa", "distribute")])
async def test_a_first_reading_that_the_profile_leaves_for_later_is_healthy(
    engine: Engine, setting: tuple[str, Value]
) -> None:
    launch = engine.run.launch
    profile = replace(launch.profile, settings=dict([setting]))
    engine.run.launch = replace(launch, profile=profile, model_bytes=900 * MIB)
    engine.clients.active = 1
    await engine.seconds(10, read_mib=100)  # the first look begins the count
    assert engine.events == []
    await engine.seconds(1, read_mib=100)
    assert [kind for kind, _ in engine.events] == ["went_cold"]


async def test_while_it_is_noticed_an_engine_at_rest_is_looked_at_every_ten_seconds(engine: Engine) -> None:
    engine.resident_mib = 500
    await engine.seconds(1)
    engine.answered()
    await engine.seconds(1, read_mib=50)
    before = engine.looks
    await engine.seconds(60)
    assert engine.looks == before + 6
    assert engine.watch.notice("a.1") is not None


async def test_what_any_process_of_an_engine_reads_counts(engine: Engine) -> None:
    engine.family = frozenset({os.getpid(), os.getpid() + 1})  # a wrapper script, and the engine
    await engine.seconds(1)
    engine.answered()
    await engine.seconds(1, read_mib=50)
    assert "100 MiB in 10 s" in engine.events[0][1]


async def test_what_the_host_has_of_a_model_is_looked_up_once_for_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        read = ColdReadWatch._read
        engine = Engine(patched)
        patched.setattr(ColdReadWatch, "_read", read)
        looked_up: list[EngineRun] = []

        def part_of(_: ColdReadWatch, run: EngineRun) -> HostPart:
            looked_up.append(run)
            return HostPart({}, {})

        patched.setattr(ColdReadWatch, "_part_of", part_of)
        for families, times in ((1, 1), (1, 1), (2, 2)):
            engine.family = frozenset(range(families))
            engine.now += 20.0
            assert await engine.watch.page_cache("a.1") is None
            assert len(looked_up) == times

        engine.run.read_back = cast(ReadBack, object())
        engine.now += 20.0
        assert await engine.watch.page_cache("a.1") is None
        assert len(looked_up) == 3
