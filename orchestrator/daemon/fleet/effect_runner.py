"""Performs what the machine asks for, beside the owner, and posts what came of it.

Each effect runs as a task of its own; none of them touches the state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import assert_never

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.process.cgroup import EngineGroups
from orchestrator.adapters.process.child import LaunchSpec, spawn
from orchestrator.adapters.process.guard import OrphanGuard
from orchestrator.adapters.process.linux import give_back_memory
from orchestrator.adapters.process.spawning import SpawnError
from orchestrator.core.errors import OrchError
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
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns, Tee, engine_probe
from orchestrator.daemon.fleet.exits import exit_failure, exit_mark, preparation_failure, spawn_failure
from orchestrator.daemon.fleet.loading import ask_figures, check_identity, send_canary, watch_loading
from orchestrator.daemon.fleet.memory_scopes import MemoryScopes
from orchestrator.daemon.fleet.preparing import Preparer

MEMORY_WAIT_S = 15.0
"""Drivers give memory back within seconds of a process's end; Ollama waits 5 s and sometimes too short."""


@dataclass(frozen=True, slots=True)
class InstanceTimeouts:
    """Times in seconds: of stopping, draining, of loading without progress, and of a canary without an answer."""

    stop_grace_s: float = 15.0
    drain_s: float = 120.0
    load_stall_s: float = 120.0
    stall_s: float = 120.0


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

    def perform(self, effect: Effect) -> None:
        """Start performing; returns at once."""
        match effect:
            case Prepare():
                self._tasks.start_soon(self._prepare, effect)
            case Spawn(instance=instance):
                run = self._runs[instance]
                run.requested = True
                self._tasks.start_soon(self._spawn, run)
            case WatchLoading(instance=instance):
                self._tasks.start_soon(self._watch, self._runs[instance])
            case SendCanary(instance=instance):
                self._tasks.start_soon(self._canary, self._runs[instance])
            case AwaitDrain(instance=instance):
                self._tasks.start_soon(self._await_drain, self._runs[instance])
            case StopProcess(instance=instance):
                self._tasks.start_soon(self._stop, self._runs[instance])
            case Survived(instance=instance, rung=rung):
                self._tasks.start_soon(self._remember, self._runs[instance], rung)
            case WakeAt():
                pass  # the owner keeps the timers
            case _:
                assert_never(effect)

    async def _prepare(self, effect: Prepare) -> None:
        await anyio.sleep(effect.settle_s)
        left_mib = await self._memory.until_released(MEMORY_WAIT_S)
        if left_mib:
            self._record("memory_kept", f"{left_mib} MiB of device memory were not given back in {MEMORY_WAIT_S:g} s")

        try:
            async with self._learning:  # a start begins where the one before survived, however soon it follows
                launch = await anyio.to_thread.run_sync(
                    self._preparer.prepare, effect.instance, effect.target, effect.rung
                )
        except OrchError as error:
            self._post(NotStarted(effect.instance, preparation_failure(error)))
            return

        run = EngineRun(launch)
        self._runs.add(run)
        await self._ask(Prepared(effect.instance, launch.rung, launch.profile.recovery, launch.cache_in_host))
        if not run.requested:  # stopped, or replaced by another target, while it was being prepared
            self._forget(run)

    async def _spawn(self, run: EngineRun) -> None:
        launch = run.launch
        rendered = launch.rendered
        run.alone = await self._memory.before_start()
        memory_scope = await self._memory_scopes.make(launch.instance)
        spec = LaunchSpec(
            argv=tuple(rendered.argv),
            env=dict(rendered.env),
            cwd=launch.directory,
            instance=launch.instance,
            group=memory_scope.group,
        )
        try:
            run.child = await spawn(spec, Tee(run.log, self._log), self._guard)
        except SpawnError as error:
            run.decided.set()
            await self._memory_scopes.remove(memory_scope)
            self._memory.ended()
            await self._ask(NotStarted(launch.instance, spawn_failure(error)))
            self._forget(run)
            return

        run.decided.set()
        runs_in = self._memory_scopes.entered(memory_scope, run.child.group)
        self._post(Spawned(launch.instance, run.child.pid))
        exit = await run.child.wait()
        run.checks.cancel()
        self._memory.ended()
        kills = runs_in.kills()
        await self._memory_scopes.remove(memory_scope)
        await run.log_cursor.catch_up()
        failure = await exit_failure(run.log_cursor.records, exit, kills)
        self._log.write([exit_mark(launch.instance, exit)])
        self._note_device_memory(run)
        failure = replace(failure, unreleased_mib=run.unreleased_mib or 0)
        # Until the owner has taken the exit its state still speaks of this instance, and others ask about it.
        await self._ask(Exited(launch.instance, failure))
        self._forget(run)
        give_back_memory()

    async def _watch(self, run: EngineRun) -> None:
        launch = run.launch
        with run.checks:
            async with engine_probe(launch) as probe:
                stall_s = self._limits.load_stall_s
                failure = await watch_loading(run, probe, launch.port, stall_s, self._on_progress, run.missing_device)
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
        with run.checks:
            async with engine_probe(launch) as probe:
                failure = await send_canary(
                    probe,
                    embeddings=settings.get("server.embeddings") is True,
                    reranking=settings.get("server.reranking") is True,
                    mtp=launch.mtp,
                    drafts_in_log=lambda: _drafts_in_log(run),
                    timeout_s=self._limits.stall_s,
                )

            for each in run.note_degradations() if failure is None else ():
                self._record("degraded", f"{launch.target}: {each.message} [{each.evidence}]")

            self._post(CheckFailed(launch.instance, failure) if failure else CanaryPassed(launch.instance))

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
        self._preparer.forget(run.launch)
        self._runs.remove(run)


def _drafts_in_log(run: EngineRun) -> int:
    run.log_cursor.catch_up_now()
    return run.log_cursor.activity.drafts
