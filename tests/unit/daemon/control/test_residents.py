"""The rows of `instances`: one for each resident, with what it waits for, holds and is used for."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.api.types import InstanceStatus
from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.fleet_states import (
    DownRequested,
    FocusRequested,
    LoadRequested,
    Looked,
    PinRequested,
    UnloadRequested,
)
from orchestrator.core.fleet.lifecycle_states import Drained, Exited, NotStarted
from orchestrator.core.fleet.resident_states import SwitchRequested
from orchestrator.core.plan.amounts import NOTHING
from orchestrator.core.starts.readback import MemoryRow
from orchestrator.daemon.control import residents
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.residents import ResidentRows, device_mib
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, TERMINATED, B
from tests.unit.daemon.control.fleet_of_two import have_two, load_beside
from tests.unit.daemon.running_owner import become_ready, request_start, running_owner
from tests.unit.daemon.telemetry.idle_parts import Clients


def rows_of(
    owner: Owner,
    waiting: Mapping[str, tuple[int, float]] | None = None,
    clients: Clients | None = None,
    idle_s: float | None = None,
) -> ResidentRows:
    return ResidentRows(
        owner, EngineRuns(), clients or Clients(), lambda: waiting or {}, Clock(0.0), lambda profile: idle_s
    )


def names(rows: list[InstanceStatus]) -> list[tuple[str, str, bool]]:
    return [(row["profile"], row["state"], row["focus"]) for row in rows]


def test_the_one_in_focus_comes_first_and_one_that_waits_says_for_what() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            assert rows.rows() == []
            await become_ready(owner, await request_start(owner, effects))
            await owner.ask(LoadRequested(B, "t"))
            first, second = rows.rows()
            assert names([first, second]) == [("a", "ready", True), ("b", "preparing", False)]
            assert (first["engine"], first["pid"], first["cause"], first["waits"]) == ("upstream", 42, None, None)
            assert second["waits"] is None  # nobody has looked at the memory so far

            await owner.ask(PinRequested("b", True))
            assert [row["pinned"] for row in rows.rows()] == [False, True]

    anyio.run(work)


def test_a_start_that_is_kept_back_says_what_it_waits_for() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            await become_ready(owner, await request_start(owner, effects))
            await owner.ask(LoadRequested(B, "t"))
            await owner.ask(Looked())
            waits = rows.rows()[1]["waits"]
            assert waits == "the memory is being looked at"
            assert rows.rows()[1]["progress"] == f"b@ik-fork waits to be loaded: {waits}"

    anyio.run(work)


def test_a_failure_is_told_with_its_cause() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            await owner.ask(NotStarted(await load_beside(owner, effects), BAD_MODEL))
            assert names(rows.rows()) == [("a", "ready", True), ("b", "failed", False)]
            assert rows.rows()[1]["cause"] == "the file is no GGUF"

    anyio.run(work)


def test_what_was_unloaded_stays_in_the_list_and_what_was_stopped_does_not() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner, idle_s=1234.56)
            await have_two(owner, effects)
            await owner.ask(UnloadRequested("b"))
            assert rows.rows()[1]["unloaded_since"] is None  # it still ends
            for event in (Drained("t.1"), Exited("t.1", TERMINATED)):
                await owner.ask(event)

            row = rows.rows()[1]
            assert (row["state"], row["unloaded_since"], row["idle_s"]) == ("stopped", row["since"], 1234.6)
            assert row["unloaded_since"] is not None
            await owner.ask(DownRequested(("b",)))
            assert names(rows.rows()) == [("a", "ready", True)]

    anyio.run(work)


def test_requests_that_name_nothing_wait_for_the_one_in_focus() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner, {"b": (2, 0.0)}, Clients(active=7, queued=5))
            await have_two(owner, effects)
            assert [row["queued"] for row in rows.rows()] == [3, 2]
            assert [row["in_flight"] for row in rows.rows()] == [2, 2]

    anyio.run(work)


def test_since_is_when_the_state_was_entered_and_what_happens_elsewhere_does_not_move_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(residents, "monotonic", lambda: now)

    async def work() -> None:
        nonlocal now
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            await have_two(owner, effects)
            before = [row["since"] for row in rows.rows()]
            now = 1001.0
            await owner.ask(UnloadRequested("b"))
            after = [row["since"] for row in rows.rows()]
            assert after[0] == before[0] and after[1] > before[1]

    anyio.run(work)


def reading(processes: Mapping[int, int]) -> GpuReading:
    return GpuReading(0, "x", 900, 1000, processes=processes)


def read(place: str, mib: int | None) -> MemoryRow:
    return MemoryRow(place, "weights", NOTHING, None if mib is None else mib << 20)


@pytest.mark.parametrize(
    ("gpus", "memory", "mib"),
    [
        (
            (GpuReading(0, "x", 900, 1000, processes={7: 400, 8: 1}), GpuReading(1, "y", 9, 9, processes={7: 30})),
            (),
            430,
        ),
        ((reading({}),), (read("CUDA0", 250), read("host", 99)), 250),
        ((), (read("host", 99),), None),
        ((), (read("CUDA0", None),), None),
    ],
    ids=["the driver tells it by process", "the engine told it", "there is no device", "it was not told yet"],
)
def test_device_memory_is_the_drivors_figure_else_the_engines(
    gpus: tuple[GpuReading, ...], memory: tuple[MemoryRow, ...], mib: int | None
) -> None:
    assert device_mib(7, gpus, memory) == mib


def test_who_waits_for_another_focus_is_told_how_far_that_is() -> None:
    async def work() -> None:
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            await become_ready(owner, await request_start(owner, effects))
            await owner.ask(FocusRequested(SwitchRequested(B, "t", "replace"), keep=True))
            (move,) = owner.fleet.moves.values()
            await owner.ask(Looked())
            text = "switching to b@ik-fork: it waits: the memory is being looked at"
            assert rows.progress_towards(move.seat) == text
            await owner.ask(Looked(memory=MemoryLook()))
            assert rows.progress_towards(move.seat) == "switching to b@ik-fork: preparing b@ik-fork"

    anyio.run(work)


def test_what_never_had_a_request_is_idle_since_it_was_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(residents, "monotonic", lambda: now)

    async def work() -> None:
        nonlocal now
        async with running_owner() as (owner, effects):
            rows = rows_of(owner)
            await have_two(owner, effects)
            now = 1060.0
            await owner.ask(UnloadRequested("b"))
            for event in (Drained("t.1"), Exited("t.1", TERMINATED)):
                await owner.ask(event)

            now = 1090.0
            assert rows.rows()[1]["idle_s"] == 90.0

    anyio.run(work)
