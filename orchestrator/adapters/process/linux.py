"""The Linux calls and /proc files that the process layer stands on.

A process is named by (pid, start time), never by a bare pid or a name, and is signalled through a pidfd: a pid can be
given to a stranger between a look and a kill. The guard imports this module in a bare interpreter, so it stays light.
"""

from __future__ import annotations

import errno
import os
import signal

from orchestrator.core.errors import OrchError

TYPE_CHECKING = False  # `typing` costs the guard 2 MiB
if TYPE_CHECKING:
    from collections.abc import Iterable

M_ARENA_MAX = -8
"""Of glibc's `malloc.h`."""

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2)."""

PIDFD_SIGNAL_PROCESS_GROUP = 4
"""Flag of pidfd_send_signal(2), since Linux 6.9: the whole group, race-free, even when its leader is reaped."""


class Stat:
    """The part of /proc/PID/stat that says who a process is and whose it is."""

    __slots__ = ("cpu_ticks", "pgrp", "pid", "ppid", "session", "start_ticks", "state")

    def __init__(
        self, pid: int, state: str, ppid: int, pgrp: int, session: int, start_ticks: int, cpu_ticks: int = 0
    ) -> None:
        self.pid = pid
        self.state = state
        self.ppid = ppid
        self.pgrp = pgrp
        self.session = session
        self.start_ticks = start_ticks
        self.cpu_ticks = cpu_ticks

    @property
    def dead(self) -> bool:
        return self.state in "ZX"


def check_platform() -> None:
    """Check at start, not at the first stop, that the kernel is new enough.

    :raises OrchError: when pidfds or waitid(P_PIDFD) are missing (Linux before 5.4, gVisor, other systems)
    """
    try:
        pidfd = os.pidfd_open(os.getpid())
    except (AttributeError, OSError) as error:
        raise _missing("pidfd_open", error) from error

    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return  # the right answer: this process is not a child of its own
    except (AttributeError, OSError) as error:
        raise _missing("waitid with P_PIDFD", error) from error
    finally:
        os.close(pidfd)


def _missing(call: str, error: Exception) -> OrchError:
    release = os.uname()
    return OrchError(
        f"this system cannot supervise processes safely: no {call}",
        details=(f"{release.sysname} {release.release}: {error}; needed: Linux 5.4 or newer, and /proc",),
    )


def become_subreaper() -> None:
    """Adopt orphaned descendants, so that a `setsid` grandchild cannot leave the family."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OrchError("could not become the reaper of orphaned descendants", details=(os.strerror(code),))


def use_one_heap() -> None:
    """Let all threads share glibc's main heap. Before the first of them begins.

    A heap for each thread keeps what its peaks were for ever: in 250 cycles of the soak the daemon grew by 7.6 MiB with
    them, by 4.1 MiB with one. Threads here wait for the kernel, not for memory. Without glibc there is nothing to do.
    """
    _call_glibc("mallopt", M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Give what malloc keeps and does not use back to the kernel, in 0.2 to 1 ms.

    After an engine, whose log and probes were the peak: in the soak, 1.4 MiB each time. Without glibc there is nothing
    to do.
    """
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *args: int) -> None:
    import ctypes

    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*args)


def read_proc(path: str) -> bytes | None:
    """Return a file of /proc, or None when the process is gone or not ours to read.

    :raises OSError: on anything else, such as running out of descriptors: that is not "gone"
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None

    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(fd)

    return b"".join(parts)


def stat_of(pid: int) -> Stat | None:
    """Return the identity and the state of a process; None when it is gone."""
    data = read_proc(f"/proc/{pid}/stat")
    if not data:
        return None

    # The name in parentheses may hold spaces and parentheses: count from the last one (proc_pid_stat(5)).
    fields = data[data.rindex(b")") + 2 :].split()
    # utime, stime, and those of the children that were waited for.
    cpu_ticks = sum(map(int, fields[11:15]))
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), cpu_ticks)


def all_pids(proc: str = "/proc") -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


def all_stats() -> dict[int, Stat]:
    found = {}
    for pid in all_pids():
        stat = stat_of(pid)
        if stat is not None:
            found[pid] = stat

    return found


def children_of_self() -> list[int]:
    """Return the direct children of this process, adopted ones too, zombies too."""
    if not os.path.exists("/proc/thread-self/children"):  # kernel without CONFIG_PROC_CHILDREN
        me = os.getpid()
        return [stat.pid for stat in all_stats().values() if stat.ppid == me]

    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        pids.extend(int(word) for word in (read_proc(f"/proc/self/task/{thread}/children") or b"").split())

    return pids


def has_tag(pid: int, tag: bytes) -> bool:
    """Return whether the environment that the process was started with has this `NAME=value`.

    Can block: the kernel takes the memory lock of that process. Not for the event loop.
    """
    environ = read_proc(f"/proc/{pid}/environ")
    return environ is not None and tag in environ.split(b"\0")


def find_tagged(tag: bytes) -> list[int]:
    """Return the living processes with this `NAME=value`, this one excepted. Can block, see `has_tag`."""
    me = os.getpid()
    return [pid for pid in all_pids() if pid not in (1, me) and has_tag(pid, tag)]


def kill_tagged(tag: bytes, spare: Iterable[int] = ()) -> list[int]:
    """Send SIGKILL to every process with this `NAME=value`, and return those it reached. Can block, see `has_tag`."""
    spared = set(spare)
    killed = []
    for pid in find_tagged(tag):
        if pid in spared:
            continue

        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue

        try:
            # Looked at again under the pidfd: when the signal arrives, the tag was read from this very process.
            if has_tag(pid, tag) and send(pidfd, signal.SIGKILL):
                killed.append(pid)
        finally:
            os.close(pidfd)

    return killed


def send(pidfd: int, sig: int) -> bool:
    """Signal one process; False when it is gone or not ours."""
    try:
        signal.pidfd_send_signal(pidfd, sig)
    except (ProcessLookupError, PermissionError):
        return False

    return True


def send_group(pidfd: int, pgid: int | None, sig: int) -> bool:
    """Signal the group that this process leads; False when nobody is left in it.

    :param pgid: used on kernels before 6.9; None when the leader is reaped and the number may have a new owner
    """
    try:
        signal.pidfd_send_signal(pidfd, sig, None, PIDFD_SIGNAL_PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise

        if pgid is None:
            return False

        try:
            os.killpg(pgid, sig)
        except (ProcessLookupError, PermissionError):
            return False

    return True


def send_to(pid: int, start_ticks: int, sig: int) -> bool:
    """Signal the process with this identity; False when it is gone, whoever has its pid now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False

    try:
        stat = stat_of(pid)
        return stat is not None and stat.start_ticks == start_ticks and send(pidfd, sig)
    finally:
        os.close(pidfd)
