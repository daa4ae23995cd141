"""Reaps orphans that were adopted, and nothing else: a `waitpid(-1)` would steal the exit status of somebody's child.

The kernel does not tell an adopted child from one that another module forked and will wait for. So a zombie is taken
when it belongs to the session of an engine, or when nobody has waited for it for a while.
"""

from __future__ import annotations

import os
import time

from orchestrator.adapters import linux

ABANDONED_S = 0.5
"""Whoever forked a process waits for it within this time of its end."""

MAX_PER_CALL = 1000

_engines: set[int] = set()
_seen_dead: dict[tuple[int, int], float] = {}


def register(pid: int) -> None:
    """This child is waited for by its owner; its descendants are orphans when they come to us."""
    _engines.add(pid)


def unregister(pid: int) -> None:
    _engines.discard(pid)


def reap(pid: int) -> bool:
    """Reap one dead child; False when it is not dead, or not a child of this process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def reap_adopted() -> int:
    """Reap adopted orphans that have ended; returns how many. To be called now and then, twice a second say."""
    now = time.monotonic()
    dead_now: dict[tuple[int, int], float] = {}
    count = 0
    for pid in linux.children_of_self():
        if pid in _engines:
            continue

        stat = linux.stat_of(pid)
        if stat is None or not stat.dead:
            continue

        key = (pid, stat.start_ticks)
        seen = _seen_dead.get(key, now)
        if (stat.session in _engines or now - seen >= ABANDONED_S) and count < MAX_PER_CALL:
            count += reap(pid)
        else:
            dead_now[key] = seen

    _seen_dead.clear()
    _seen_dead.update(dead_now)
    return count
