"""Performs what the machine asks for, beside the owner, and posts what came of it.

Each effect runs as a task of its own; none of them touches the state. Each ends in an event whatever happens in it: an
error that nobody expected becomes a failure of its instance (`_failed`), and nobody else notices.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from signal import SIGKILL
from typing import assert_never

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.process.cgroup import EngineGroups
from orchestrator.adapters.process.child import KILL_ALLOWANCE_S, Exit, LaunchSpec, spawn
from orchestrator.adapters.process.guard import OrphanGuard
from orchestrator.adapters.process.linux import give_back_memory
from orchestrator.adapters.process.spawning import SpawnError
from orchestrator.core.errors import OrchError
from orchestrator.core.failure.exit_evidence import OomKills
from orchestrator.core.fleet.failures import unexpected_failure
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import (
    AwaitDrain,
    CanaryPassed,
    CheckFailed,
    Drained,
    Effect,
    Exited,
    Failure,
    InstanceEvent,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    SendCanary,
    Spawn,
    Spawned,
    StopProcess,
    Survived,
    WakeAt,
    WatchLoading,
)
from orchestrator.core.fleet.readiness import BUSY_TIMES
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns, Tee, engine_probe
from orchestrator.daemon.fleet.exits import exit_failure, exit_mark, preparation_failure, spawn_failure
from orchestrator.daemon.fleet.memory_scopes import MemoryScopes
from orchestrator.daemon.fleet.preparing import Preparer, read_files
from orchestrator.daemon.fleet.read_back import read_back_start
from orchestrator.daemon.questions.canary import DEFAULT_UBATCH, send_canary
from orchestrator.daemon.questions.first_reading import verify_first
from orchestrator.daemon.questions.loading import ask_figures, check_identity, watch_loading

_log = logging.getLogger(__name__)

LEARNING_WAIT_S = 5.0
"""A start begins where the one before survived, however soon it follows; but a disk that hangs holds none up."""

MEMORY_WAIT_S = 15.0
"""Drivers give memory back within seconds of a process's end; Ollama waits 5 s and sometimes too short."""


InstanceEffect = Prepare | Spawn | WatchLoading | SendCanary | AwaitDrain | StopProcess | Survived

DOINGS: dict[type[InstanceEffect], str] = {
    Prepare: "preparing the start",
    Spawn: "running the engine",
    WatchLoading: "watching the load",
    SendCanary: "the first request",
    AwaitDrain: "waiting for the running requests",
    StopProcess: "stopping the engine",
    Survived: "keeping what was learned",
}


@dataclass(frozen=True, slots=True)
class InstanceTimeouts:
    """Times in seconds: of stopping, draining, of loading without progress, of a canary without an answer, and of the
    first verification of a model, 0 for none."""

    stop_grace_s: float = 15.0
    drain_s: float = 120.0
    load_stall_s: float = 120.0
    stall_s: float = 120.0
    first_reading_s: float = 0.0


class EffectRunner:
    """Runs the effects that the owner hands over.

    :param tasks: the daemon's task group; effects end with it
    :param post: gives an event to the owner
    :param ask: the same, and waits until the owner has taken it
    :param runs: the live processes, which it alone adds and removes
    :param drain: waits until nothing is in flight on an instance, at most so many seconds
    :param groups: control groups for engines, where there are any
    :param record: notes an event for people: its kind, and a sentence
    :param on_progress: called when a loading engine has moved
    """

    def __init__(
        self,
        tasks: TaskGroup,
        post: Callable[[InstanceEvent], None],
        ask: Callable[[InstanceEvent], Awaitable[object]],
        runs: EngineRuns,
        preparer: Preparer,
        log: InstanceLog,
        guard: OrphanGuard,
        limits: InstanceTimeouts,
        drain: Callable[[str, float], Awaitable[bool]],
        memory: DeviceMemory,
        groups: EngineGroups,
        record: Callable[[str, str], None],
        on_progress: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._post = post
        self._ask = ask
        self._preparer = preparer
        self._log = log
        self._guard = guard
        self._limits = limits
        self._drain = drain
        self._memory = memory
        self._memory_scopes = MemoryScopes(groups, record)
        self._record = record
        self._on_progress = on_progress
        self._runs = runs
        self._learning = anyio.Lock()
        self._proven: set[str] = set()
        """What has passed its whole canary since the daemon began, as `EngineRun.runs`."""

    def perform(self, effect: Effect) -> None:
        """Start performing; returns at once."""
        match effect:
            case Prepare():
                self._start(effect, partial(self._prepare, effect))
            case Spawn(instance=instance):
                run = self._runs[instance]
                run.requested = True
                self._start(effect, partial(self._spawn, run))
            case WatchLoading(instance=instance, silent_loads=silent_loads):
                stall_s = self._limits.load_stall_s * 2**silent_loads
                self._start(effect, partial(self._watch, self._runs[instance], stall_s))
            case SendCanary(instance=instance):
                self._start(effect, partial(self._canary, self._runs[instance]))
            case AwaitDrain(instance=instance):
                self._start(effect, partial(self._await_drain, self._runs[instance]))
            case StopProcess(instance=instance):
                self._start(effect, partial(self._stop, self._runs[instance]))
            case Survived(instance=instance, rung=rung):
                self._start(effect, partial(self._remember, self._runs[instance], rung))
            case WakeAt():
                pass  # the owner keeps the timers
            case _:
                assert_never(effect)

    def _start(self, effect: InstanceEffect, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start_soon(self._guarded, effect, self._runs.get(effect.instance), work)

    async def _guarded(
        self, effect: InstanceEffect, run: EngineRun | None, work: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  (nothing that happens to one instance ends the others)
            what = DOINGS[type(effect)]
            _log.exception("%s: %s failed", effect.instance, what)
            self._record("effect_failed", f"{effect.instance}: {what} failed: {error or type(error).__name__}")
            await self._failed(effect, run, unexpected_failure(what, error))

    async def _failed(self, effect: InstanceEffect, run: EngineRun | None, failure: Failure) -> None:
        """Have an effect that broke off end in the event that the owner waits for."""
        match effect:
            case Prepare():
                self._post(NotStarted(effect.instance, failure))
            case Spawn() if run is not None:
                if run.child is not None:
                    await self._kill(run)

                run.decided.set()
                await self._ask((Exited if run.child is not None else NotStarted)(effect.instance, failure))
                self._forget(run)
            case WatchLoading() | SendCanary():
                self._post(CheckFailed(effect.instance, failure))
            case AwaitDrain():
                self._post(Drained(effect.instance))
            case StopProcess() if run is not None and run.child is not None:
                if not await self._kill(run):
                    await self._ask(Exited(effect.instance, replace(failure, action="give_up")))
            case _:
                pass  # nobody waits for the others

    async def _kill(self, run: EngineRun) -> bool:
        """Kill a process whose orderly stop failed; False when it does not end."""
        assert run.child is not None
        with suppress(OSError):
            run.child.signal_group(SIGKILL)

        with anyio.move_on_after(KILL_ALLOWANCE_S):
            await run.child.wait()
            return True

        return False

    async def _prepare(self, effect: Prepare) -> None:
        await anyio.sleep(effect.settle_s)
        left_mib = await self._memory.until_released(MEMORY_WAIT_S)
        if left_mib:
            self._record("memory_kept", f"{left_mib} MiB of device memory were not given back in {MEMORY_WAIT_S:g} s")

        with anyio.move_on_after(LEARNING_WAIT_S):
            async with self._learning:
                pass

        try:
            work = partial(self._preparer.prepare, effect.instance, effect.target, effect.rung)
            launch = await read_files(work, f"profile `{effect.target.profile}`", None)
        except OrchError as error:
            self._post(NotStarted(effect.instance, preparation_failure(error)))
            return

        for record in launch.lacking:
            self._record("record_lost", f"{effect.target} starts without {record}")

        run = EngineRun(launch)
        self._runs.add(run)
        await self._ask(Prepared(effect.instance, launch.rung, launch.profile.recovery, launch.cache_in_host))
        if not run.requested:  # stopped, or replaced by another target, while it was being prepared
            self._forget(run)

    async def _spawn(self, run: EngineRun) -> None:
        launch = run.launch
        run.alone = await self._memory.before_start()
        try:
            try:
                exit, kills = await self._run_to_end(run)
            finally:
                self._memory.ended()
        except SpawnError as error:
            run.decided.set()
            await self._ask(NotStarted(launch.instance, spawn_failure(error)))
            self._forget(run)
            return

        await run.log_cursor.catch_up()
        failure = await exit_failure(run.log_cursor.records, exit, kills)
        self._log.write([exit_mark(launch.instance, exit)])
        self._note_device_memory(run)
        failure = replace(failure, unreleased_mib=run.unreleased_mib or 0)
        # Until the owner has taken the exit its state still speaks of this instance, and others ask about it.
        await self._ask(Exited(launch.instance, failure))
        self._forget(run)
        give_back_memory()

    async def _run_to_end(self, run: EngineRun) -> tuple[Exit, OomKills]:
        """Run the process until it is gone with all that came from it.

        :return: its end, and the kernel's kills for want of memory
        :raises SpawnError: when there is none
        """
        launch = run.launch
        rendered = launch.rendered
        memory_scope = await self._memory_scopes.make(launch.instance)
        spec = LaunchSpec(
            argv=tuple(rendered.argv),
            env=dict(rendered.env),
            cwd=launch.directory,
            instance=launch.instance,
            cpus=rendered.cpus,
            group=memory_scope.group,
        )
        try:
            run.child = await spawn(spec, Tee(run.log, run.shown_log, self._log), self._guard)
            run.decided.set()
            runs_in = self._memory_scopes.entered(memory_scope, run.child.group)
            self._post(Spawned(launch.instance, run.child.pid))
            exit = await run.child.wait()
            run.checks.cancel()
            return exit, runs_in.kills()
        finally:
            await self._memory_scopes.remove(memory_scope)

    async def _watch(self, run: EngineRun, stall_s: float) -> None:
        launch = run.launch

        def tell_silence() -> None:
            text = f"{launch.target} has loaded in silence for {stall_s:g} s and computes: drivers that compile do so"
            self._record("silent_load", f"{text}; it has {BUSY_TIMES * stall_s / 60:.3g} min (daemon.load_stall_s)")

        with run.checks:
            async with engine_probe(launch) as probe:
                failure = await watch_loading(
                    run, probe, launch.port, stall_s, self._on_progress, run.missing_device, tell_silence
                )
                if failure is None:
                    build = launch.capabilities
                    failure = await check_identity(probe, build.kind, build.build_number)

                if failure is None:
                    run.figures = await ask_figures(probe)

            await run.log_cursor.catch_up()
            self._note_device_memory(run)
            if run.unreleased_mib:
                text = f"{run.unreleased_mib} MiB of device memory were still taken when {launch.target} began"
                self._record("memory_kept", f"{text}: it may have placed less there than it could")

            self._post(CheckFailed(launch.instance, failure) if failure else Loaded(launch.instance))

    async def _canary(self, run: EngineRun) -> None:
        launch = run.launch
        settings = launch.profile.settings
        ubatch = settings.get("batch.ubatch")
        with run.checks:
            async with engine_probe(launch) as probe:
                failure = await send_canary(
                    probe,
                    embeddings=settings.get("server.embeddings") is True,
                    reranking=settings.get("server.reranking") is True,
                    mtp=launch.mtp,
                    drafts_in_log=run.drafts_in_log,
                    undrafted=run.undrafted,
                    timeout_s=self._limits.stall_s,
                    context_tokens=run.figures.context_tokens if run.figures is not None else None,
                    ubatch=ubatch if isinstance(ubatch, int) else DEFAULT_UBATCH,
                    proven=run.runs in self._proven,
                )
                if failure is None and self._limits.first_reading_s:
                    limit_s = self._limits.first_reading_s
                    failure = await verify_first(launch, self._preparer, probe, limit_s, self._record)

            if failure is None:
                self._proven.add(run.runs)

            for each in run.note_degradations() if failure is None else ():
                self._record("degraded", f"{launch.target}: {each.message} [{each.evidence}]")

            self._post(CheckFailed(launch.instance, failure) if failure else CanaryPassed(launch.instance))
            if failure is None:
                await read_back_start(run, self._preparer, self._memory, self._record)

    async def _remember(self, run: EngineRun, rung: Rung) -> None:
        """Keep the margins that survived. Best effort: one that could not be written is learned again."""
        try:
            async with self._learning:
                learned = await anyio.to_thread.run_sync(self._preparer.survived, run.launch, rung)
        except (OSError, OrchError) as error:
            self._record("margin_lost", f"the margin that survived could not be kept: {error}")
            return

        if learned:
            text = f"{run.launch.target} survived with {rung}; the next start begins there"
            self._record("margin_learned", text)

    async def learn(self, run: EngineRun, rung: Rung) -> bool:
        """Let the next start begin no lower than on this rung, though it was not tried.

        :return: whether that is new
        :raises OrchError: when what is kept cannot be read; OSError when it cannot be written
        """
        async with self._learning:
            return await anyio.to_thread.run_sync(self._preparer.learn, run.launch, rung)

    async def _await_drain(self, run: EngineRun) -> None:
        if run.drain is not None:
            run.drain.cancel()

        with anyio.CancelScope() as run.drain:
            await self._drain(run.launch.instance, self._limits.drain_s)
            self._post(Drained(run.launch.instance))

    async def _stop(self, run: EngineRun) -> None:
        run.checks.cancel()
        await run.decided.wait()
        if run.child is None:
            return

        exit = await run.child.stop(self._limits.stop_grace_s)
        if exit.unkillable:
            # Stuck in the kernel. Its memory stays taken, but the rest goes on; when it ends, nobody waits for it.
            text = f"process {run.child.pid} survived SIGKILL: it is stuck in the kernel, and keeps its memory"
            self._record("unkillable", text)
            await self._ask(Exited(run.launch.instance, Failure("engine_bug", text, action="give_up")))

    def _note_device_memory(self, run: EngineRun) -> None:
        """Compare, once, the free device memory that the log tells with what an earlier engine's told."""
        if run.alone and run.unreleased_mib is None:
            run.unreleased_mib = self._memory.compare_free(run.log_cursor.activity.free_mib)

    def _forget(self, run: EngineRun) -> None:
        run.launch.key.forget()
        self._runs.remove(run)
