"""Whatever a call out of an effect raises, the effect ends in the event that the owner waits for, and it is said."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.process.cgroup import EngineGroups
from orchestrator.adapters.process.child import Child
from orchestrator.adapters.process.guard import OrphanGuard
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.failures import passes
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import (
    AwaitDrain,
    CheckFailed,
    Drained,
    Exited,
    InstanceEvent,
    NotStarted,
    Prepare,
    SendCanary,
    Spawn,
    StopProcess,
    Survived,
    WatchLoading,
)
from orchestrator.daemon.fleet import effect_runner as module
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.effect_runner import EffectRunner, InstanceEffect, InstanceTimeouts
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.preparing import Preparer
from tests.unit.core.fleet.lifecycle_machine import A
from tests.unit.daemon.telemetry.idle_parts import run_on

ERRORS = (
    OSError(28, "No space left on device"),
    RuntimeError("can't start new thread"),
    ValueError("hostile"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("nested too deeply"),
    KeyError("slots"),
    TypeError("a bug of ours, of one instance alone"),
)
errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


class FailingPreparer:
    """Fails wherever it is asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def prepare(self, *args: object) -> object:
        raise self._error

    survived = prepare


class DyingChild:
    """A process whose stop and whose end cannot be learned, but that a signal ends."""

    pid = 2**30
    group = None

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.killed = anyio.Event()

    async def stop(self, grace_s: float) -> object:
        raise self._error

    def signal_group(self, sig: int) -> bool:
        self.killed.set()
        return True

    async def wait(self) -> object:
        if not self.killed.is_set():
            raise self._error

        return None


async def perform(
    effect: InstanceEffect,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    *,
    patch: tuple[str, ...] = (),
    child: DyingChild | None = None,
) -> tuple[list[InstanceEvent], list[tuple[str, str]]]:
    """Perform one effect, in which the named calls raise, and return the events and what was said."""
    events: list[InstanceEvent] = []
    records: list[tuple[str, str]] = []

    async def ask(event: InstanceEvent) -> None:
        events.append(event)

    async def drain(instance: str, limit_s: float) -> bool:
        raise error

    def failing(*args: object, **kwargs: object) -> Any:
        raise error

    for name in patch:
        monkeypatch.setattr(module, name, failing)

    if child is not None and "spawn" not in patch:

        async def spawned(*args: object) -> Child:
            return cast(Child, child)

        monkeypatch.setattr(module, "spawn", spawned)

    runs = EngineRuns()
    run = run_on(1, effect.instance)
    runs.add(run)
    if isinstance(effect, StopProcess):
        run.child = cast(Child, child)
        run.decided.set()

    gpus = GpuReader(())
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            runner = EffectRunner(
                tasks, events.append, ask, runs, cast(Preparer, FailingPreparer(error)), InstanceLog(),
                cast(OrphanGuard, None), InstanceTimeouts(), drain, DeviceMemory(gpus), EngineGroups(),
                lambda kind, text: records.append((kind, text)), lambda: None,
            )  # fmt: skip
            runner.perform(effect)

    return events, records


Case = tuple[InstanceEffect, type[InstanceEvent], tuple[str, ...], bool]
CASES: dict[str, Case] = {
    "a start that cannot be prepared": (Prepare("s.1", A, None), NotStarted, (), False),
    "a spawn that breaks off": (Spawn("s.1"), NotStarted, ("spawn",), False),
    "a process whose end cannot be learned": (Spawn("s.1"), Exited, (), True),
    "a load that cannot be watched": (WatchLoading("s.1"), CheckFailed, ("watch_loading",), False),
    "an identity that cannot be read": (WatchLoading("s.1"), CheckFailed, ("engine_probe",), False),
    "a first request that breaks off": (SendCanary("s.1"), CheckFailed, ("send_canary",), False),
    "a drain that breaks off": (AwaitDrain("s.1"), Drained, (), False),
}


@pytest.mark.asyncio
@errors
@pytest.mark.parametrize("case", CASES)
async def test_an_effect_that_breaks_off_ends_in_its_event(
    case: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect, expected, patch, has_child = CASES[case]
    child = DyingChild(error) if has_child else None
    events, records = await perform(effect, error, monkeypatch, patch=patch, child=child)
    assert isinstance(events[-1], expected)
    assert sum(isinstance(event, expected) for event in events) == 1
    failure = getattr(events[-1], "failure", None)
    if failure is not None:
        assert failure.action == "restart"
        assert str(error) in failure.message

    if not isinstance(effect, Prepare):
        assert [kind for kind, _ in records] == ["effect_failed"]


@pytest.mark.asyncio
@errors
async def test_a_stop_that_breaks_off_ends_in_a_kill(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    child = DyingChild(error)
    _, records = await perform(StopProcess("s.1"), error, monkeypatch, child=child)
    assert child.killed.is_set()
    assert [kind for kind, _ in records] == ["effect_failed"]


@pytest.mark.asyncio
@errors
async def test_what_was_learned_and_cannot_be_kept_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    events, records = await perform(Survived("s.1", Rung()), error, monkeypatch)
    assert events == []
    assert [kind for kind, _ in records] in (["margin_lost"], ["effect_failed"])


def caused(error: OrchError, cause: BaseException) -> OrchError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OrchError("a mistake"), False),
        (caused(OrchError("cannot read"), OSError(2, "No such file")), False),
        (caused(OrchError("cannot read"), OSError(13, "Permission denied")), False),
        (caused(OrchError("cannot read"), OSError(24, "Too many open files")), True),
        (caused(OrchError("cannot read"), OSError(5, "Input/output error")), True),
        (caused(OrchError("cannot read"), OSError(116, "Stale file handle")), True),
        (caused(OrchError("cannot read"), RuntimeError("can't start new thread")), True),
        (caused(OrchError("cannot read"), MemoryError()), True),
        (ValueError("unexpected"), True),
    ],
)
def test_what_the_machine_may_get_over_is_tried_again(error: Exception, expected: bool) -> None:
    assert passes(error) is expected
