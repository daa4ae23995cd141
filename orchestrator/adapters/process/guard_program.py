"""The guard: `python -I -S guard_program.py DAEMON_TAG`, one tiny process per daemon, in a session of its own.

Reads `+ pgid pid start_ticks instance` and `- instance` on standard input. End of file means that the daemon is gone,
even by SIGKILL: then it kills the groups it knows and everything else tagged with this daemon's id, and exits. It never
signals a process that it has not identified: by a pidfd taken while the daemon vouched for the pid, or by the tag.

What it cannot find: a descendant that left its session, emptied its environment and was never in a known group.
"""

from __future__ import annotations

import os
import signal
import sys
import time

if __name__ == "__main__":  # -I and -S leave nothing of orch on the path
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))

from orchestrator.adapters.process import linux

SWEEP_S = 2.0
"""Bound on the hunt; a process that survives SIGKILL that long is stuck in the kernel."""

PAUSE_S = 0.01


def main() -> None:
    tag = os.fsencode(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it must outlive the daemon, whatever is sent to both

    known: dict[str, tuple[int, int]] = {}
    buffer = b""
    while data := os.read(0, 65536):
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            track_line(known, line.decode().split())

    for pidfd, pgid in known.values():
        # Without the group flag (before Linux 6.9) a number is safe only while its leader is there.
        alive = linux.send(pidfd, 0)
        linux.send_group(pidfd, pgid if alive else None, signal.SIGKILL)

    deadline = time.monotonic() + SWEEP_S
    while linux.kill_tagged(tag) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)


def track_line(known: dict[str, tuple[int, int]], words: list[str]) -> None:
    """Track or forget the process group that one line from the daemon names."""
    if words[0] == "-":
        pidfd, _ = known.pop(words[1], (-1, 0))
        if pidfd >= 0:
            os.close(pidfd)

        return

    pgid, pid, start_ticks, instance = int(words[1]), int(words[2]), int(words[3]), words[4]
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return  # it has ended already; what it may have left carries the tag

    stat = linux.stat_of(pid)
    if stat is None or stat.start_ticks != start_ticks:
        os.close(pidfd)
        return

    known[instance] = (pidfd, pgid)


if __name__ == "__main__":
    main()
