"""Performs what the machine asks for, beside the owner, and posts what came of it.

Holds the live processes by instance. Each effect runs as a task of its own; none of them touches the state.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import assert_never

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from orchestrator.adapters import linux
from orchestrator.adapters.cgroup import EngineGroups, Leaf
from orchestrator.adapters.gpu import GpuProvider
from orchestrator.adapters.guard import Guard
from orchestrator.adapters.http import EngineProbe
from orchestrator.adapters.log_store import InstanceLog
from orchestrator.adapters.oom_counter import counter_for
from orchestrator.adapters.ports import owned_by
from orchestrator.adapters.process import Child, Exit, LaunchSpec, spawn
from orchestrator.adapters.spawning import SpawnError
from orchestrator.core.errors import OrchError
from orchestrator.core.exit_evidence import OomKills, judge_kill
from orchestrator.core.failures import Diagnosis, ExitStatus, diagnose
from orchestrator.core.kept_memory import free_told
from orchestrator.core.ladder import Rung
from orchestrator.core.states import (
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
from orchestrator.daemon.device_memory import DeviceMemory
from orchestrator.daemon.loading import check_identity, send_canary, watch_loading
from orchestrator.daemon.preparing import HOST, BrokenModelError, Launch, MissingModelError, Preparer
from orchestrator.gateway.contract import Endpoint

DIAGNOSED_LINES = 2000
"""The end of an attempt's log that its failure is read from."""

MEMORY_WAIT_S = 15.0
"""Drivers give memory back within seconds of a process's end; Ollama waits 5 s and sometimes too short."""

_DRAFTS = re.compile(r"draft acceptance(?: rate)? = *[\d.]+ *\( *\d+ accepted / *(\d+) generated\)")
"""Both engines print this per request; the fork's spring 2026 build says it nowhere else."""

_SPAWN_CLASSES = {
    "not_found": "missing_file",
    "missing_interpreter": "missing_library",
    "not_executable": "missing_file",
    "exec_format": "illegal_instruction",
    "no_memory": "host_oom",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: of stopping, draining, of loading without progress, and of a canary without an answer."""

    stop_grace_s: float = 15.0
    drain_s: float = 120.0
    load_stall_s: float = 120.0
    stall_s: float = 120.0


@dataclass(slots=True)
class Run:
    """One process and what belongs to it.

    :ivar log: this process's lines alone
    :ivar decided: set once it is known whether there is a process
    :ivar checks: loading and canary; cancelled as soon as the process is to end
    :ivar wanted: the owner asked for the process; a launch that it no longer wanted is forgotten
    :ivar drain: the wait for the last request; a later one takes its place
    :ivar alone: no other engine ran when it was started
    :ivar kept_mib: device memory that a dead engine still held when this one began; None until it is known
    """

    launch: Launch
    log: InstanceLog = field(default_factory=lambda: InstanceLog(max_lines=DIAGNOSED_LINES))
    child: Child | None = None
    decided: anyio.Event = field(default_factory=anyio.Event)
    checks: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    wanted: bool = False
    drain: anyio.CancelScope | None = None
    alone: bool = False
    kept_mib: int | None = None

    def owns(self, port: int) -> bool | None:
        return owned_by(port, self.child.tree()) if self.child is not None else None

    def stopped(self) -> bool:
        """Whether it is stopped by a signal or a debugger."""
        stat = linux.stat_of(self.child.pid) if self.child is not None else None
        return stat is not None and stat.state in "Tt"

    def work_done(self) -> int:
        if self.child is None:
            return 0

        return (self.child.read_bytes() or 0) + self.child.rss_bytes() + self.log.next_seq


class Tee:
    """A process's lines go to its own log, which its failure is read from, and to the one that people read."""

    def __init__(self, *logs: InstanceLog) -> None:
        self._logs = logs

    def write(self, lines: Sequence[str]) -> None:
        for log in self._logs:
            log.write(lines)


class EnginePerformer:
    """The performer of the real thing.

    :param tasks: the daemon's task group; effects end with it
    :param post: gives an event to the owner
    :param ask: the same, and waits until the owner has taken it
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
        preparer: Preparer,
        log: InstanceLog,
        guard: Guard,
        limits: Limits,
        drain: Callable[[str, float], Awaitable[bool]],
        gpus: GpuProvider,
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
        self._memory = DeviceMemory(gpus)
        self._groups = groups
        self._groups_failed = False
        self._record = record
        self._on_progress = on_progress
        self._runs: dict[str, Run] = {}
        self._learning = anyio.Lock()

    def perform(self, effect: Effect) -> None:
        """Start performing; returns at once."""
        match effect:
            case Prepare():
                self._tasks.start_soon(self._prepare, effect)
            case Spawn(instance=instance):
                run = self._runs[instance]
                run.wanted = True
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

    def run(self, instance: str) -> Run | None:
        return self._runs.get(instance)

    def children(self) -> list[Child]:
        """The engines' processes."""
        return [run.child for run in self._runs.values() if run.child is not None]

    @property
    def used_before_mib(self) -> dict[int, int]:
        """Device to what was in use before the engines were started that run now; empty where nobody knows."""
        return self._memory.before

    def endpoint(self, instance: str) -> Endpoint:
        launch = self._runs[instance].launch
        target, build = launch.target, launch.rendered.build
        return Endpoint(instance, target.profile, target.engine, HOST, launch.port, launch.api_key, build)

    def launch(self, instance: str | None) -> Launch | None:
        run = self._runs.get(instance or "")
        return run.launch if run else None

    def build(self, instance: str | None) -> str | None:
        launch = self.launch(instance)
        return launch.rendered.build if launch else None

    def loading(self, instance: str | None) -> str:
        """How far a loading engine is, as far as its reads tell; empty when they do not (a cached file is not read)."""
        run = self._runs.get(instance or "")
        read = run.child.read_bytes() if run and run.child else None
        if run is None or not read or not run.launch.model_bytes:
            return ""

        return f"{min(read * 100 // run.launch.model_bytes, 99)} % read"

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
            self._post(NotStarted(effect.instance, _failure_of(error)))
            return

        run = self._runs[effect.instance] = Run(launch)
        await self._ask(Prepared(effect.instance, launch.rung, launch.profile.recovery))
        if not run.wanted:  # stopped, or replaced by another target, while it was being prepared
            self._forget(run)

    async def _spawn(self, run: Run) -> None:
        launch = run.launch
        rendered = launch.rendered
        run.alone = await self._memory.before_start()
        group = await self._make_group(launch.instance)
        counter = counter_for(group)
        killed_before = counter.read()
        spec = LaunchSpec(
            argv=tuple(rendered.argv),
            env=dict(rendered.env),
            cwd=launch.directory,
            instance=launch.instance,
            group=group,
        )
        try:
            run.child = await spawn(spec, Tee(run.log, self._log), self._guard)
        except SpawnError as error:
            run.decided.set()
            await self._remove_group(group)
            self._memory.ended()
            name = _SPAWN_CLASSES.get(error.kind, "engine_bug")
            action = "restart" if error.retryable else "give_up"
            failure = replace(_failure_of(error), failure_class=name, action=action)
            await self._ask(NotStarted(launch.instance, failure))
            self._forget(run)
            return

        run.decided.set()
        if run.child.group != group:
            self._group_failed("the engine could not enter it")
            counter = counter_for(None)
            killed_before = counter.read()

        self._post(Spawned(launch.instance, run.child.pid))
        exit = await run.child.wait()
        run.checks.cancel()
        self._memory.ended()
        limit_mib = self._groups.memory_max_mib if counter.scope == "engine" else 0
        kills = OomKills(counter.source, counter.scope, killed_before, counter.read(), limit_mib)
        await self._remove_group(group)
        failure = await self._diagnose(run, exit, kills)
        # Until the owner has taken the exit its world still speaks of this instance, and others ask about it.
        await self._ask(Exited(launch.instance, failure))
        self._forget(run)

    async def _watch(self, run: Run) -> None:
        launch = run.launch
        with run.checks:
            async with engine_probe(launch) as probe:
                stall_s = self._limits.load_stall_s
                ended = await watch_loading(run, probe, launch.port, stall_s, self._on_progress)
                if ended is None:
                    build = launch.capabilities
                    ended = await check_identity(probe, build.kind, build.build_number)

            self._note_device_memory(run)
            if run.kept_mib:
                text = f"{run.kept_mib} MiB of device memory were still taken when {launch.target} began"
                self._record("memory_kept", f"{text}: it may have placed less there than it could")

            self._post(CheckFailed(launch.instance, ended.failure) if ended else Loaded(launch.instance))

    async def _canary(self, run: Run) -> None:
        launch = run.launch
        settings = launch.profile.settings
        with run.checks:
            async with engine_probe(launch) as probe:
                ended = await send_canary(
                    probe,
                    embeddings=settings.get("server.embeddings") is True,
                    reranking=settings.get("server.reranking") is True,
                    mtp=launch.mtp,
                    drafts_in_log=lambda: drafts_counted(lines_of(run)),
                    timeout_s=self._limits.stall_s,
                )

            self._post(CheckFailed(launch.instance, ended.failure) if ended else CanaryPassed(launch.instance))

    async def _remember(self, run: Run, rung: Rung) -> None:
        """Best effort: a margin that could not be written is learned again."""
        try:
            async with self._learning:
                learned = await anyio.to_thread.run_sync(self._preparer.survived, run.launch, rung)
        except (OSError, OrchError) as error:
            self._record("margin_lost", f"the margin that survived could not be kept: {error}")
            return

        if learned:
            text = f"{run.launch.target} survived with {rung}; the next start begins there"
            self._record("margin_learned", text)

    async def learn(self, run: Run, rung: Rung) -> bool:
        """Have the next start begin no lower than on this rung, though it was not tried.

        :return: whether that is new
        :raises OrchError: when what is kept cannot be read; OSError when it cannot be written
        """
        async with self._learning:
            return await anyio.to_thread.run_sync(self._preparer.learn, run.launch, rung)

    async def _await_drain(self, run: Run) -> None:
        if run.drain is not None:
            run.drain.cancel()

        with anyio.CancelScope() as run.drain:
            await self._drain(run.launch.instance, self._limits.drain_s)
            self._post(Drained(run.launch.instance))

    async def _stop(self, run: Run) -> None:
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

    async def _make_group(self, instance: str) -> Leaf | None:
        try:
            return await anyio.to_thread.run_sync(self._groups.make, instance)
        except OSError as error:
            self._group_failed(str(error))
            return None

    def _group_failed(self, why: str) -> None:
        """Once: nothing depends on it, and the next start would say the same."""
        if not self._groups_failed:
            self._groups_failed = True
            self._record("no_group", f"the engine runs without a control group of its own, and without a limit: {why}")

    async def _remove_group(self, group: Leaf | None) -> None:
        if group is not None and not await anyio.to_thread.run_sync(group.remove):
            self._record("group_kept", f"{group.path} is still in use; the next start of the daemon removes it")

    async def _diagnose(self, run: Run, exit: Exit, kills: OomKills) -> Failure:
        lines = lines_of(run)
        found = await anyio.to_thread.run_sync(lambda: diagnose(lines, exit.returncode, alive=False))
        if exit.returncode is not None:
            found = judge_kill(found, ExitStatus.of(exit.returncode), exit.killed_after_grace, kills)

        # The port was free when it was chosen, so somebody was quicker; the next start gets another one.
        self._note_device_memory(run)
        failure = replace(failure_from(found), kept_mib=run.kept_mib or 0)
        return replace(failure, action="restart") if found.failure_class == "port_in_use" else failure

    def _note_device_memory(self, run: Run) -> None:
        """Once, while the beginning of its log is there."""
        if run.alone and run.kept_mib is None:
            run.kept_mib = self._memory.told(free_told(lines_of(run)))

    def _forget(self, run: Run) -> None:
        self._preparer.forget(run.launch)
        self._runs.pop(run.launch.instance, None)


def failure_from(found: Diagnosis) -> Failure:
    return Failure(
        failure_class=found.failure_class,
        message=found.message,
        evidence=found.evidence,
        action=found.action,
        phase=found.phase,
        device=found.device,
        requested_mib=found.requested_mib,
        hint=found.hint,
    )


def lines_of(run: Run) -> list[str]:
    return [line.text for line in run.log.tail(DIAGNOSED_LINES)]


@asynccontextmanager
async def engine_probe(launch: Launch) -> AsyncIterator[EngineProbe]:
    probe = EngineProbe(HOST, launch.port, launch.api_key)
    try:
        yield probe
    finally:
        with anyio.CancelScope(shield=True):
            await probe.aclose()


def drafts_counted(lines: Sequence[str]) -> int:
    """Drafts that the engine says it generated, in the newest line about it (both engines' wording)."""
    for line in reversed(lines):
        found = _DRAFTS.search(line)
        if found:
            return int(found.group(1))

    return 0


def _failure_of(error: OrchError) -> Failure:
    """A mistake that was found before anything ran: the same start would meet it again."""
    match error:
        case MissingModelError():
            name = "missing_file"
        case BrokenModelError():
            name = "bad_model"
        case _:
            name = "bad_flag"

    evidence = error.details[0] if error.details else None
    return Failure(name, error.message, evidence, action="give_up", hint=error.hint)
