"""An engine process from spawn to the last of its descendants.

    spawn -> alive -> leader dead -> the rest killed -> reaped -> log drained -> settled

The leader's status is read without reaping it, the rest of its group is killed while its number is still reserved, and
only then it is reaped: no signal can reach a stranger. asyncio's own child handling is not used: its `wait` hangs
while a grandchild holds the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import TypeVar

from orchestrator.adapters.log.reader import LogReader, LogSink
from orchestrator.adapters.process import linux, reaper
from orchestrator.adapters.process.cgroup import Leaf
from orchestrator.adapters.process.guard import OrphanGuard
from orchestrator.adapters.process.spawning import ShimStart, SpawnError, start_shim
from orchestrator.adapters.process.tree import Activity, ProcessTree

__all__ = ["Child", "Exit", "LaunchSpec", "SpawnError", "spawn"]

KILL_ALLOWANCE_S = 6.0
"""From SIGKILL until a process is called unkillable. A driver may need seconds to give device memory back."""

SWEEP_S = 4.0
"""Bound on killing what the leader leaves behind; below the allowance, which covers it."""

DRAIN_S = 1.0
"""For the log after everything is dead: its end comes at once unless a stranger holds the pipe."""

POLL_S = 0.02
"""For what has no file descriptor to wait on."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """The program to run. `env` is the whole environment; `argv[0]` is a path.

    :param oom_score_raise: the kernel's wish to kill this one first, above this process's (proc_pid_oom_score_adj(5))
    :param cpus: numbers of the CPUs that it may run on; empty for all that this process has
    :param group: a control group for it alone, empty so far; None where there is none
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    instance: str
    oom_score_raise: int = 500
    cpus: tuple[int, ...] = ()
    group: Leaf | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of the leader: its exit code, or the signal that killed it.

    :param unkillable: it, or a descendant, survived SIGKILL for the whole allowance (stuck in the kernel)
    """

    code: int | None
    signal: int | None
    unkillable: bool = False
    killed_after_grace: bool = False

    @property
    def returncode(self) -> int | None:
        """The status as Python's subprocess gives it: -9 for SIGKILL."""
        return -self.signal if self.signal is not None else self.code


async def spawn(spec: LaunchSpec, log: LogSink, guard: OrphanGuard | None = None) -> Child:
    """Start a program, in a session of its own, and wait until it has replaced the shim.

    On the main thread only: the child dies with the thread that forked it.

    :param guard: ends the child if this process is killed, and gives the tags by which it is found
    :raises SpawnError: when it could not be started; nothing is left behind
    """
    # Instance names may be the same in another home: what is killed by its tag is found by one that is drawn here.
    token = os.urandom(8).hex()
    tags = {"ORCH_INSTANCE": spec.instance, "ORCH_SPAWN": token, **(guard.tags if guard else {})}
    procs_file = spec.group.procs_file if spec.group is not None else None
    start = start_shim(spec.argv, {**spec.env, **tags}, spec.cwd, spec.oom_score_raise, spec.cpus, procs_file)
    child = Child(spec.instance, token, start, log, guard, spec.group)
    try:
        error = await start.wait_outcome()
    except BaseException:
        await asyncio.shield(child.stop(0.0))
        raise

    if error is not None:
        await child.stop(0.0)
        raise error

    if not start.joined:
        child.group = None

    return child


class Child:
    """A started program. Made by `spawn`; used on the loop's thread.

    :ivar group: the control group that it is in alone; None also when it could not enter it
    """

    def __init__(
        self, instance: str, token: str, start: ShimStart, log: LogSink, guard: OrphanGuard | None, group: Leaf | None
    ) -> None:
        self.instance = instance
        self.pid = start.pid
        self.pgid = start.pid
        self.start_time_ticks = start.start_ticks
        self.exit: Exit | None = None
        self.group = group
        self.log_reader = LogReader(start.log_fd, log)
        self._loop = asyncio.get_running_loop()
        self._pidfd = start.pidfd
        self._tag = f"ORCH_SPAWN={token}".encode()
        self._tree = ProcessTree(self.pid, self.start_time_ticks)
        self._guard = guard
        self._reaped = False
        self._leader_exit: Exit | None = None
        self._killed_after_grace = False
        self._kill_at: float | None = None
        self._settled: asyncio.Future[Exit] = self._loop.create_future()
        self._settling: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[Exit] | None = None
        self._changed = asyncio.Event()
        reaper.register(self.pid)
        if guard is not None:
            guard.track(self.instance, self.pgid, self.pid, self.start_time_ticks)

        self._loop.add_reader(self._pidfd, self._on_leader_dead)

    async def wait(self) -> Exit:
        """Wait until its descendants are gone and its log is read, and return its end. For any number of waiters."""
        return await asyncio.shield(self._settled)

    def signal(self, sig: Signals) -> bool:
        """Signal the leader; False when it is gone."""
        return not self._reaped and linux.send(self._pidfd, sig)

    def signal_group(self, sig: Signals) -> bool:
        """Signal the leader's group; False when nobody is left in it."""
        return self._pidfd >= 0 and linux.send_group(self._pidfd, None if self._reaped else self.pgid, sig)

    def tree(self) -> set[int]:
        """Return the living processes that came from this child, itself included."""
        return set() if self._reaped else set(self._tree.members())

    def read_bytes(self) -> int | None:
        """Return the bytes read by the tree so far; see `ProcessTree.read_bytes`."""
        return None if self._reaped else self._tree.read_bytes()

    def activity(self) -> Activity:
        """Return what the tree does; see `ProcessTree.activity`."""
        return Activity() if self._reaped else self._tree.activity()

    async def stop(self, grace_s: float, *, kill_allowance_s: float = KILL_ALLOWANCE_S) -> Exit:
        """End it: SIGTERM, `grace_s` to obey, SIGKILL; then nothing of it is left.

        Bounded by `grace_s + kill_allowance_s`, even when the kernel does not let it die: then `unkillable` is set, and
        `wait` goes on. Every caller gets the same answer; a later one with less grace shortens the wait. Cancelling a
        caller does not cancel the stop.
        """
        if self.exit is not None:
            return self.exit

        kill_at = self._loop.time() + grace_s
        if self._kill_at is None or kill_at < self._kill_at:
            self._kill_at = kill_at
            self._changed.set()

        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(kill_allowance_s))

        return await asyncio.shield(self._stopping)

    async def _stop(self, kill_allowance_s: float) -> Exit:
        if self._leader_exit is None:
            self._signal_all(SIGTERM)  # once: the fork takes a second one for "exit now"
            self.signal_group(SIGCONT)  # a stopped process would not see it

        while not self._settled.done():
            assert self._kill_at is not None
            left_s = self._kill_at - self._loop.time()
            if left_s <= 0:
                break

            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)

        if self._leader_exit is None:
            self._killed_after_grace = True
            self._signal_all(SIGKILL)

        await asyncio.wait((self._settled,), timeout=kill_allowance_s)
        if self._settled.done():
            return self._settled.result()

        return Exit(None, None, unkillable=True, killed_after_grace=self._killed_after_grace)

    def _on_leader_dead(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._read_status()

    def _read_status(self) -> None:
        info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if info is None:
            # A debugger outside has it, and is told first. Readable all the same, so a reader would spin.
            self._loop.call_later(POLL_S, self._read_status)
            return

        by_itself = info.si_code == os.CLD_EXITED
        self._leader_exit = Exit(info.si_status, None) if by_itself else Exit(None, info.si_status)
        self._settling = self._loop.create_task(self._settle(self._leader_exit))

    async def _settle(self, leader: Exit) -> None:
        unkillable = False
        try:
            await self._await_rest()
            unkillable = not await self._kill_rest()
        finally:
            self._reap()
            if self._guard is not None and not unkillable:
                self._guard.untrack(self.instance)

            await self.log_reader.drain(DRAIN_S)
            os.close(self._pidfd)
            self._pidfd = -1
            self.exit = replace(leader, unkillable=unkillable, killed_after_grace=self._killed_after_grace)
            self._settled.set_result(self.exit)
            self._changed.set()

    def _reap(self) -> None:
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self._reaped = True
        reaper.unregister(self.pid)

    async def _await_rest(self) -> None:
        """During a stop, the server behind a wrapper keeps its grace although the wrapper has died of SIGTERM."""
        while self._kill_at is not None and self._members():
            if self._loop.time() >= self._kill_at:
                self._killed_after_grace = True
                return

            await asyncio.sleep(POLL_S)

    async def _kill_rest(self) -> bool:
        """Kill until nothing is found, since what is killed may just have forked; False when some will not die."""
        deadline = self._loop.time() + SWEEP_S
        while True:
            self._signal_all(SIGKILL)
            left_s = max(deadline - self._loop.time(), POLL_S)
            tagged = await _run_in_thread(left_s, lambda: linux.kill_tagged(self._tag))
            self._tree.add(tagged)
            rest = self._members()
            self._tree.reap_adopted()
            if not tagged and not rest and not (self.group is not None and self.group.populated()):
                return True

            if self._loop.time() >= deadline:
                return False

            await asyncio.sleep(POLL_S)

    def _members(self) -> dict[int, linux.Stat]:
        try:
            return self._tree.members()
        except OSError:
            return {}  # out of descriptors: the group is killed without looking

    def _signal_all(self, sig: Signals) -> None:
        strays: list[linux.Stat] = []
        with contextlib.suppress(OSError):  # as above
            strays = self._tree.strays()  # first: when the leader dies, the tie to a descendant is cut

        self.signal_group(sig)
        if sig == SIGKILL and self.group is not None:
            with contextlib.suppress(OSError):
                self.group.kill()  # also those whose tie to us was never seen

        for stat in strays:
            linux.send_to(stat.pid, stat.start_ticks, sig)


async def _run_in_thread(timeout_s: float, look: Callable[[], list[T]]) -> list[T]:
    """Run a look into /proc that may block, on a thread that nobody joins.

    :return: what it found; empty when it does not come back in time
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[T]] = loop.create_future()

    def settle(found: list[T]) -> None:
        if not result.done():
            result.set_result(found)

    def run() -> None:
        try:
            found = look()
        except OSError:
            found = []  # out of descriptors

        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(settle, found)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:
        run()  # the limit on processes

    try:
        return await asyncio.wait_for(result, timeout_s)
    except TimeoutError:
        return []
