"""One daemon per state directory. The lock dies with its holder, so it is never stale; the file is never deleted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time

from orchestrator.core.errors import AlreadyRunningError, OrchError

TRIES = 5
RETRY_S = 0.05
"""`read_holder` takes a shared lock for an instant: a daemon that starts just then tries again."""


class DaemonLock:
    """An exclusive flock(2) on `path`, whose content names the holder.

    Not inherited by children: the descriptor closes on exec.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, *, start_ticks: int | None = None, unit: tuple[str, str] | None = None) -> None:
        """Take the lock, or say who has it. Waits a quarter of a second at most.

        :param start_ticks: when this process was started, as in /proc/PID/stat
        :param unit: of systemd, that this process is the main one of, and `user` or `system`
        :raises AlreadyRunningError: when another daemon holds it
        :raises OrchError: when the file system has no locks
        """
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise OrchError("cannot open the lock file", details=(f"{self._path}: {error.strerror}",)) from error

        try:
            self._lock(fd)
            content = {"pid": os.getpid(), "start_ticks": start_ticks, "started": _rfc3339(time.time()), "unit": unit}
            with contextlib.suppress(OSError):  # a full disk: the lock holds without saying whose it is
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(content).encode(), 0)
        except BaseException:
            os.close(fd)
            raise

        self._fd = fd

    def release(self) -> None:
        """Give the lock up; idempotent. The end of the process does the same."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock(self, fd: int) -> None:
        for attempt in range(TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise OrchError(
                        "the state directory is on a file system without locks",
                        details=(f"{self._path}: {error.strerror}",),
                        hint="set ORCH_HOME or XDG_STATE_HOME to a local directory",
                    ) from error
            else:
                return

            if attempt + 1 < TRIES:
                time.sleep(RETRY_S)

        content = _read(fd)
        pid, hint = content.get("pid", "unknown"), "see `orch status`"
        whose = ""
        match content.get("unit"):
            case [str(unit), "user" | "system" as manager]:
                whose = f", the service {unit}"
                hint = f"stop it with `systemctl {'--user ' if manager == 'user' else ''}stop {unit}`"

        raise AlreadyRunningError(
            f"another daemon is running for this state directory: pid {pid}{whose}",
            details=(f"{self._path}: held since {content.get('started', 'an unknown time')}",),
            hint=f"{hint}; for a second installation set ORCH_HOME to another directory",
        )


def read_holder(path: str) -> dict[str, object] | None:
    """Read what the running daemon wrote about itself (`pid`, `start_ticks`, `started`); None without a daemon.

    Empty when the holder has not written yet.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None

    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None

        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(fd, 4096, 0))
    except (ValueError, OSError, RecursionError):  # half written, or no file: a FIFO in its place
        return {}

    return content if isinstance(content, dict) else {}


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
