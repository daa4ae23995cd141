"""The daemon's side of the guard process against orphans, and the sweep for what an earlier daemon left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from orchestrator.adapters.process import linux, reaper
from orchestrator.core.errors import OrchError

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard_program.py")

CLOSE_S = 3.0
"""More than the guard takes for its last sweep."""

RESTART_S = 0.1
MAX_RESTART_S = 30.0
"""Wait before a dead guard is started again; doubled each time it dies young or cannot be started."""

STABLE_S = 60.0

SWEEP_S = 2.0


class OrphanGuard:
    """A small process that outlives this one by as long as it takes to kill what this one has started.

    Used on the loop's thread. When the guard process dies, it is started again and told everything anew.

    :param on_death: called each time the guard process has died, for the daemon's log
    """

    def __init__(self, daemon_id: str, home_id: str, on_death: Callable[[], None] | None = None) -> None:
        self.tags = {"ORCH_DAEMON": daemon_id, "ORCH_HOME_ID": home_id}
        self.pid = 0
        self._on_death = on_death
        self._tracked: dict[str, str] = {}
        self._pidfd = -1
        self._pipe = -1
        self._started = 0.0
        self._restart_s = RESTART_S
        self._closing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the guard process.

        :raises OrchError: when it cannot be started
        """
        try:
            self._launch()
        except OSError as error:
            raise OrchError("cannot start the guard process", details=(f"{PROGRAM}: {error.strerror}",)) from error

    def track(self, instance: str, pgid: int, pid: int, start_ticks: int) -> None:
        self._tracked[instance] = f"+ {pgid} {pid} {start_ticks} {instance}\n"
        self._send_line(self._tracked[instance])

    def untrack(self, instance: str) -> None:
        if self._tracked.pop(instance, None) is not None:
            self._send_line(f"- {instance}\n")

    async def close(self) -> None:
        """End the guard, which first kills what is still tracked or tagged; bounded, idempotent."""
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return

        loop = asyncio.get_running_loop()
        self._closing = loop.create_future()
        if self._timer is not None:
            self._timer.cancel()

        if self._pidfd < 0:
            self._closing.set_result(None)
            return

        self._close_pipe()
        await asyncio.wait((self._closing,), timeout=CLOSE_S)
        if not self._closing.done():
            linux.send(self._pidfd, signal.SIGKILL)
            await asyncio.wait((self._closing,), timeout=CLOSE_S)

    def _launch(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(writer, False)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", PROGRAM, f"ORCH_DAEMON={self.tags['ORCH_DAEMON']}"],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",  # it keeps no file system busy
                start_new_session=True,
            )
            try:
                pidfd = os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
        except OSError:
            os.close(writer)
            raise
        finally:
            os.close(reader)

        process.returncode = 0  # Popen shall not wait for it: `_on_dead` does
        self.pid = process.pid
        self._pidfd = pidfd
        self._pipe = writer
        self._started = time.monotonic()
        reaper.register(self.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._on_dead)
        for line in self._tracked.values():
            self._send_line(line)

    def _send_line(self, line: str) -> None:
        if self._pipe < 0:
            return  # it is told when it is started again

        try:
            os.write(self._pipe, line.encode())
        except BrokenPipeError:
            return  # it is dead: `_on_dead` is on its way
        except BlockingIOError:
            linux.send(self._pidfd, signal.SIGKILL)  # it has not read for a thousand lines: it would not guard either

    def _on_dead(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        os.close(self._pidfd)
        self._pidfd = -1
        reaper.unregister(self.pid)
        self._close_pipe()
        if self._closing is not None:
            self._closing.set_result(None)
            return

        if time.monotonic() - self._started >= STABLE_S:
            self._restart_s = RESTART_S

        self._restart_later(loop)
        if self._on_death is not None:
            self._on_death()

    def _restart_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._restart_s, self._restart)
        self._restart_s = min(self._restart_s * 2, MAX_RESTART_S)

    def _restart(self) -> None:
        try:
            self._launch()
        except OSError:
            self._restart_later(asyncio.get_running_loop())

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def home_id(state_directory: str) -> str:
    """Return the id of an installation: daemons with the same state directory are the same one, at different times."""
    return hashlib.sha256(os.fsencode(os.path.realpath(state_directory))).hexdigest()[:16]


def sweep_leftovers(daemon_home_id: str) -> list[int]:
    """Kill what an earlier daemon of this home has left, and nothing of another home; return the pids.

    With the daemon's lock held, and before the first engine. Blocks, for two seconds at most.
    """
    tag = f"ORCH_HOME_ID={daemon_home_id}".encode()
    deadline = time.monotonic() + SWEEP_S
    killed: dict[int, None] = {}
    while found := linux.kill_tagged(tag):
        killed.update(dict.fromkeys(found))
        if time.monotonic() >= deadline:
            break

        time.sleep(0.01)

    return list(killed)
