"""The shell around the fleet's machines without a daemon: owner, effect runner, router, switcher, actions and watcher
in this process, on fake engines that are real processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.paths import Paths, find_paths, make_directories
from orchestrator.adapters.process.cgroup import EngineGroups
from orchestrator.adapters.process.guard import OrphanGuard
from orchestrator.cli.operate.render_status import lines
from orchestrator.core.errors import NotRunningError, OrchError, UsageError
from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.fleet_states import DownRequested, LoadRequested, Looked
from orchestrator.core.fleet.lifecycle_states import (
    CanaryPassed,
    Exited,
    InstanceEvent,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Ready,
    SendCanary,
    Spawn,
    Spawned,
    State,
    Stopped,
    StopProcess,
    Target,
    WatchLoading,
    instance_of,
)
from orchestrator.core.fleet.resident_states import EndCause
from orchestrator.core.health.liveness import LivenessPolicy
from orchestrator.daemon.control.actions import Actions
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.control.status import StatusBuilder
from orchestrator.daemon.fleet import switcher as switcher_module
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.effect_runner import EffectRunner, InstanceTimeouts
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.model_list import ModelList
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import PendingSwitch, Switcher
from orchestrator.daemon.fleet.watching import LivenessWatcher
from orchestrator.daemon.residency.memory_looks import MemoryLooks
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.daemon.telemetry.totals import Totals
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.models import models_json, running_json
from tests.faults.lab import Lab
from tests.support import PATIENCE_S
from tests.unit.daemon.telemetry.idle_parts import no_energy

A = Target("a", "fake-upstream")
B = Target("b", "fake-upstream")
TIMEOUTS = InstanceTimeouts(stop_grace_s=1.0, drain_s=5.0, load_stall_s=30.0, stall_s=30.0)
Done = Callable[[], object]


def drive(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(PATIENCE_S):
            await work()

    asyncio.run(bounded())


async def until(condition: Done) -> None:
    while not condition():  # noqa: ASYNC110  (what is waited for happens in other processes)
        await anyio.sleep(0.01)


@dataclass
class Parts:
    """What the tests look at. `events` are those that effects have posted, `records` those for people."""

    runs: EngineRuns
    runner: EffectRunner
    owner: Owner
    router: Router
    switcher: Switcher
    actions: Actions
    status: StatusBuilder
    watcher: LivenessWatcher
    records: list[tuple[str, str]]
    events: list[InstanceEvent] = field(default_factory=list)
    on_prepared: list[Callable[[], None]] = field(default_factory=list)

    def of(self, kind: type[InstanceEvent]) -> InstanceEvent | None:
        return next((event for event in self.events if isinstance(event, kind)), None)

    async def state(self, kind: type[State]) -> State:
        await until(lambda: isinstance(self.owner.fleet.state, kind))
        return self.owner.fleet.state


@asynccontextmanager
async def parts(lab: Lab, *, owned: bool) -> AsyncIterator[Parts]:
    """The parts as the daemon puts them together.

    :param owned: the owner takes what effects post, and has its own effects performed; else the test asks for each
    """
    paths = find_paths(lab.env)
    make_directories(paths)
    gpus = GpuReader(())
    records: list[tuple[str, str]] = []
    events: list[InstanceEvent] = []
    on_prepared: list[Callable[[], None]] = []
    preparer = Preparer(paths, gpus)
    owner = Owner(EventLog(os.path.join(paths.state, "events.jsonl")))
    runs = EngineRuns()
    router = Router(owner, runs, on_request=True)
    ledger = RequestLedger(Totals(), HistoryWriter(paths.history_file), no_energy())
    dispatcher = Dispatcher(GatewayOptions(), router, ledger)
    guard = OrphanGuard(os.urandom(8).hex(), "test")

    def record(kind: str, message: str) -> None:
        records.append((kind, message))

    def post(event: InstanceEvent) -> None:
        events.append(event)
        if owned:
            owner.post(event)

    async def ask(event: InstanceEvent) -> None:
        events.append(event)
        if isinstance(event, Prepared):
            for each in on_prepared:
                each()

        if owned:
            await owner.ask(event)

    await guard.start()
    try:
        async with anyio.create_task_group() as tasks:
            runner = EffectRunner(
                tasks, post, ask, runs, preparer, InstanceLog(), guard, TIMEOUTS, dispatcher.wait_idle,
                DeviceMemory(gpus), EngineGroups(), record, router.refresh,
            )  # fmt: skip
            looks = MemoryLooks(paths, gpus, runs)
            switcher = Switcher(
                owner, preparer, gpus, lambda: dispatcher.hold.entered, router.reads_ahead, looks.free_host_mib
            )
            owner.observe_switches(switcher.finished)
            status = StatusBuilder(
                owner, runs, router, dispatcher, ledger, preparer, gpus, lambda instance: None, "http://x", Clock(0.0)
            )
            made = actions(tasks, paths, owner, router, status, switcher, preparer)
            policy = LivenessPolicy(every_s=0.1, timeout_s=0.3, stall_s=30.0)
            watcher = LivenessWatcher(owner, runs, dispatcher, policy, router.unroute, record)
            if owned:
                tasks.start_soon(owner.run, runner)

            yield Parts(runs, runner, owner, router, switcher, made, status, watcher, records, events, on_prepared)
            if owned:
                await owner.ask(DownRequested(force=True))
                await until(lambda: isinstance(owner.fleet.state, Stopped))

            tasks.cancel_scope.cancel()
    finally:
        await guard.close()


def actions(
    tasks: TaskGroup,
    paths: Paths,
    owner: Owner,
    router: Router,
    status: StatusBuilder,
    switcher: Switcher,
    preparer: Preparer,
) -> Actions:
    models = ModelList(paths, router.list_models)
    return Actions(
        tasks, owner, router, models, status, switcher, preparer,
        fallback=lambda: None, check_config=lambda: None, worth=lambda before, after: None,
    )  # fmt: skip


# The effect runner, asked for one effect after the other.


def test_each_effect_of_a_start_is_answered_by_its_event_and_a_stop_leaves_nothing(lab: Lab) -> None:
    lab.model("a")

    async def work() -> None:
        async with parts(lab, owned=False) as here:
            run, awaited = here.runner.perform, await_event(here)
            run(Prepare("s.1", A, None))
            await awaited(Prepared)
            # What was prepared is forgotten unless its process is asked for before the answer to `Prepared`.
            await until(lambda: here.runs.get("s.1") is None)
            here.events.clear()
            here.on_prepared.append(lambda: run(Spawn("s.2")))
            run(Prepare("s.2", A, None))
            await awaited(Spawned)
            run(WatchLoading("s.2"))
            await awaited(Loaded)
            run(SendCanary("s.2"))
            await awaited(CanaryPassed)
            assert here.runs.endpoint("s.2").profile == "a"
            run(StopProcess("s.2"))
            await awaited(Exited)
            await until(lambda: here.runs.get("s.2") is None)
            assert here.runs.children() == []

    drive(work)


def await_event(here: Parts) -> Callable[[type[InstanceEvent]], Awaitable[None]]:
    async def awaited(kind: type[InstanceEvent]) -> None:
        await until(lambda: here.of(kind) is not None)

    return awaited


def test_a_start_whose_profile_is_not_there_is_a_mistake_and_leaves_nothing(lab: Lab) -> None:
    async def work() -> None:
        async with parts(lab, owned=False) as here:
            here.runner.perform(Prepare("s.1", Target("nobody", "fake-upstream"), None))
            await await_event(here)(NotStarted)
            event = here.of(NotStarted)
            assert isinstance(event, NotStarted)
            assert (event.failure.failure_class, event.failure.action) == ("bad_flag", "give_up")
            assert here.runs.get("s.1") is None

    drive(work)


def test_a_program_that_is_gone_by_the_time_of_its_start_is_said_to_be(lab: Lab) -> None:
    lab.fake("mine", "upstream")  # the others' scripts are shared by all tests
    lab.model("a", engine="mine")

    async def work() -> None:
        async with parts(lab, owned=False) as here:

            def replaced() -> None:
                launch = here.runs.launch("s.1")
                assert launch is not None
                os.remove(launch.rendered.argv[0])
                here.runner.perform(Spawn("s.1"))

            here.on_prepared.append(replaced)
            here.runner.perform(Prepare("s.1", Target("a", "mine"), None))
            await await_event(here)(NotStarted)
            event = here.of(NotStarted)
            assert isinstance(event, NotStarted)
            assert event.failure.failure_class == "missing_file"
            await until(lambda: here.runs.get("s.1") is None)

    drive(work)


# The owner with all of them.


def test_what_is_asked_for_serves_and_a_switch_ends_with_its_result(lab: Lab) -> None:
    lab.model("a")
    lab.model("b")

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            answer = await here.actions.up("a", None)
            assert answer["target"] == str(A)
            await here.state(Ready)
            view = here.router.view()
            assert view.serving is not None
            assert (view.serving.profile, view.serves("a"), view.serves("b")) == ("a", True, False)
            planned = await here.actions.switch("b", "replace", dry_run=True)
            assert (planned["strategy"], here.router.view().serving) == ("replace", view.serving)
            begun = await here.actions.switch("b", "replace", dry_run=False)
            operation = here.switcher.find(str(begun["operation"]))
            await operation.done.wait()
            assert operation.result is not None
            assert (operation.result["ok"], operation.result["rolled_back"]) == (True, False)
            assert here.router.view().serves("b")

    drive(work)


def test_a_switch_to_what_cannot_start_rolls_back_and_says_why(lab: Lab) -> None:
    lab.model("a")
    lab.model("b", {"die_at": "load", "say": ["error: invalid argument: --nonsense"]})

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            await here.actions.up("a", None)
            await here.state(Ready)
            begun = await here.actions.switch("b", "replace", dry_run=False)
            operation = here.switcher.find(str(begun["operation"]))
            await operation.done.wait()
            assert operation.result is not None
            assert (operation.result["ok"], operation.result["rolled_back"]) == (False, True)
            assert "--nonsense" in str(operation.result["cause"])
            assert here.router.view().serves("a")

    drive(work)


def test_a_switch_that_is_cancelled_says_so_and_one_that_is_not_there_cannot_be(lab: Lab) -> None:
    lab.model("a")
    lab.model("b", {"load_s": 60.0})

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            with pytest.raises(OrchError, match="no switch is under way"):
                here.switcher.cancel()

            await here.actions.up("a", None)
            await here.state(Ready)
            begun = await here.actions.switch("b", "beside", dry_run=False)
            operation = here.switcher.find(str(begun["operation"]))
            await until(lambda: operation.phase == "switching")
            assert here.switcher.cancel() is operation
            await operation.done.wait()
            assert operation.result is not None
            assert (operation.result["ok"], operation.result["cause"]) == (False, "cancelled")
            assert here.router.view().serves("a")

    drive(work)


def test_actions_that_need_something_to_act_on_say_what_is_missing(lab: Lab) -> None:
    lab.model("a")

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            with pytest.raises(NotRunningError):
                await here.actions.restart()

            with pytest.raises(UsageError, match="no profile was named"):
                await here.actions.up(None, None)

            with pytest.raises(OrchError):
                await here.actions.switch("nobody", None, dry_run=False)

            assert await here.actions.reload() == {"running": None, "changed": (), "operation": None}
            assert isinstance(here.owner.fleet.state, Stopped)

    drive(work)


def test_a_reload_restarts_what_runs_only_when_its_profile_says_something_else(lab: Lab) -> None:
    lab.model("a")

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            await here.actions.up("a", None)
            await here.state(Ready)
            assert (await here.actions.reload())["operation"] is None
            lab.model("a", more="[context]\nsize = 512\n")
            answer = await here.actions.reload()
            assert answer["changed"] == ("context.size",)
            operation = here.switcher.find(str(answer["operation"]))
            await operation.done.wait()
            assert operation.result is not None and operation.result["ok"]

    drive(work)


# A switch that reads its model ahead from a disk that does not answer.


@pytest.fixture
def hung_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Reading ahead blocks until the test lets go; `is_set` then says that it was."""
    answers = threading.Event()

    def blocks(paths: Sequence[str]) -> None:
        answers.wait(PATIENCE_S)

    monkeypatch.setattr(switcher_module, "residency", blocks)
    yield answers
    answers.set()


async def begin_reading(here: Parts) -> PendingSwitch:
    """A serves, and a switch to b reads ahead for ever."""
    await here.actions.up("a", None)
    await here.state(Ready)
    begun = await here.actions.switch("b", "replace", dry_run=False)
    operation = here.switcher.find(str(begun["operation"]))
    assert operation.phase == "reading"
    assert views(here) == ("loading", "starting", True, "switching to b@fake-upstream: reading the model ahead")
    return operation


def views(here: Parts) -> tuple[str, str | None, bool, str]:
    """Return how b is seen in `/v1/models` and in `/running`, and what `orch status` and `orch top` say."""
    models = here.router.view().models
    listed = {entry["id"]: entry["status"]["value"] for entry in json.loads(models_json(models, 0.0))["data"]}
    running = {entry["model"]: entry["state"] for entry in json.loads(running_json(models))["running"]}
    status = here.status.status()
    assert f"  switch    {status['progress']}" in list(lines(status)) or not status["switching"]
    return listed["b"], running.get("b"), status["switching"], status["progress"]


def test_a_stop_ends_a_read_ahead_and_nothing_starts_afterwards(lab: Lab, hung_disk: threading.Event) -> None:
    lab.model("a")
    lab.model("b")

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            operation = await begin_reading(here)
            here.switcher.interrupt(EndCause("interrupted", "everything was stopped"))
            await here.owner.ask(DownRequested())
            assert operation.result is not None
            assert (operation.result["cause"], operation.result["rolled_back"]) == ("everything was stopped", False)
            await here.state(Stopped)
            hung_disk.set()
            await anyio.lowlevel.checkpoint()
            assert here.owner.fleet.switch is None
            assert views(here) == ("unloaded", None, False, "stopped")
            assert lab.starts("b") == []

    drive(work)


def test_a_start_ends_a_read_ahead_and_wins(lab: Lab, hung_disk: threading.Event) -> None:
    for name in ("a", "b", "c"):
        lab.model(name)

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            operation = await begin_reading(here)
            await here.actions.up("c", None)
            assert views(here)[:2] == ("unloaded", None)
            assert operation.result is not None
            assert operation.result["cause"] == "replaced by a start of c@fake-upstream"
            await until(lambda: here.router.view().serves("c"))
            hung_disk.set()
            await anyio.lowlevel.checkpoint()
            assert here.router.view().serves("c")
            assert lab.starts("b") == []

    drive(work)


def test_a_cancel_ends_a_read_ahead_at_once_and_the_next_switch_does_not_wait_for_it(
    lab: Lab, hung_disk: threading.Event
) -> None:
    for name in ("a", "b"):
        lab.model(name)

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            operation = await begin_reading(here)
            here.switcher.cancel()
            assert operation.result is not None
            assert (operation.result["cause"], operation.result["rolled_back"]) == ("cancelled", True)
            assert here.router.view().serves("a")
            assert here.switcher.current is None
            assert views(here) == ("unloaded", None, False, "ready a@fake-upstream")

    drive(work)


def test_a_newer_switch_says_whose_place_it_takes(lab: Lab, hung_disk: threading.Event) -> None:
    for name in ("a", "b", "c"):
        lab.model(name)

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            operation = await begin_reading(here)
            assert (await here.actions.switch("b", "replace", dry_run=False))["replaces"] is None
            newer = await here.actions.switch("c", "replace", dry_run=False)
            assert newer["replaces"] == {"profile": "b", "engine": operation.target.engine}
            hung_disk.set()
            await here.switcher.find(str(newer["operation"])).done.wait()

    drive(work)


def test_a_newer_switch_takes_the_place_of_one_that_reads_and_the_same_one_joins_it(
    lab: Lab, hung_disk: threading.Event
) -> None:
    for name in ("a", "b", "c"):
        lab.model(name)

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            operation = await begin_reading(here)
            again = await here.actions.switch("b", "replace", dry_run=False)
            assert again["operation"] == operation.id
            hung_disk.set()  # for what follows, the disk answers
            newer = here.switcher.find(str((await here.actions.switch("c", "replace", dry_run=False))["operation"]))
            await newer.done.wait()
            await operation.done.wait()
            assert operation.result is not None and newer.result is not None
            assert operation.result["cause"] in ("replaced by a switch to c@fake-upstream", None)
            assert newer.result["ok"]
            assert here.router.view().serves("c")
            assert views(here) == ("unloaded", None, False, "ready c@fake-upstream")

    drive(work)


def test_a_start_that_replaces_what_runs_has_a_result_with_its_own_cause(lab: Lab) -> None:
    lab.model("a")
    lab.model("b", {"die_at": "load", "say": ["error: invalid argument: --nonsense"]})

    async def work() -> None:
        async with parts(lab, owned=True) as here:
            first = await here.actions.up("a", None)
            assert first["operation"] is None
            await here.state(Ready)
            second = await here.actions.up("b", None)
            operation = here.switcher.find(str(second["operation"]))
            await operation.done.wait()
            assert operation.result is not None
            assert "--nonsense" in str(operation.result["cause"])
            assert operation.result["rolled_back"]

    drive(work)


# The watcher.


def test_an_engine_that_stands_still_gets_no_requests_until_it_answers_again(lab: Lab) -> None:
    lab.model("a")

    async def work() -> None:
        async with parts(lab, owned=True) as here, anyio.create_task_group() as tasks:
            tasks.start_soon(here.watcher.run)
            await here.actions.up("a", None)
            ready = await here.state(Ready)
            assert isinstance(ready, Ready)
            os.kill(ready.pid, signal.SIGSTOP)
            await until(lambda: here.router.view().serving is None)
            assert here.router.view().refusal is None  # requests wait
            os.kill(ready.pid, signal.SIGCONT)
            await until(lambda: here.router.view().serving is not None)
            kinds = [kind for kind, _ in here.records]
            assert (kinds.count("unrouted"), kinds.count("routed")) == (1, 1)
            tasks.cancel_scope.cancel()

    drive(work)


def test_of_two_engines_the_one_that_stands_still_is_held_back_and_the_one_that_dies_comes_back(lab: Lab) -> None:
    lab.model("a")
    lab.model("b")

    async def work() -> None:
        async with parts(lab, owned=True) as here, anyio.create_task_group() as tasks:

            async def look_at_memory() -> None:
                while True:
                    if here.owner.fleet.waiting:
                        await here.owner.ask(Looked(memory=MemoryLook()))

                    await anyio.sleep(0.02)

            tasks.start_soon(here.watcher.run)
            tasks.start_soon(look_at_memory)
            await here.actions.up("a", None)
            first = await here.state(Ready)
            await here.owner.ask(LoadRequested(B, "beside"))
            await until(lambda: here.router.view().instances == {"beside.1", instance_of(first)})
            second = here.owner.fleet.residents["beside"].state
            assert isinstance(second, Ready)
            os.kill(second.pid, signal.SIGSTOP)
            await until(lambda: here.router.view().instances == {instance_of(first)})
            assert not here.router.view().decided("b")
            assert "does not answer" in here.router.view().progress_for("b")
            os.kill(second.pid, signal.SIGCONT)
            await until(lambda: here.router.view().serves("b"))
            os.kill(second.pid, signal.SIGKILL)
            await until(lambda: here.router.view().fallen == ("beside.1",))
            assert not here.router.view().decided("b")  # it is on its way back
            await until(lambda: here.router.view().instances == {"beside.2", instance_of(first)})
            tasks.cancel_scope.cancel()

    drive(work)
