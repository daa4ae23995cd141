"""Reaps orphans that were adopted, and nothing else: a `waitpid(-1)` would steal the exit status of somebody's child.

The kernel does not tell an adopted child from one that another module forked and will wait for. So a zombie is taken at
once when it belongs to the session of an engine, and otherwise when nobody has waited for it for a while. A module that
forks into a new session and may wait later than that registers the pid here.
"""

from __future__ import annotations

import os
import time

from orchestrator.adapters.process import linux

ABANDONED_S = 1.5
"""For the dead of other sessions: what left an engine's session comes from there."""

ABANDONED_HERE_S = 30.0
"""For the dead of this session, where no engine's descendant can be: most likely somebody will wait."""

MAX_PER_CALL = 1000

_waited_for: set[int] = set()
_seen_dead: dict[tuple[int, int], float] = {}


def register(pid: int) -> None:
    """Leave this child to its owner, who waits for it; its descendants are orphans when they come to us."""
    _waited_for.add(pid)


def unregister(pid: int) -> None:
    _waited_for.discard(pid)


def reap(pid: int) -> bool:
    """Reap one dead child; False when it is not dead, or not a child of this process."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def reap_adopted() -> int:
    """Reap adopted orphans that have ended, and return how many. To be called now and then, twice a second say."""
    now = time.monotonic()
    here = os.getsid(0)
    dead_now: dict[tuple[int, int], float] = {}
    count = 0
    for pid in linux.children_of_self():
        if pid in _waited_for:
            continue

        stat = linux.stat_of(pid)
        if stat is None or not stat.dead:
            continue

        key = (pid, stat.start_ticks)
        seen = _seen_dead.get(key, now)
        patience_s = ABANDONED_HERE_S if stat.session == here else ABANDONED_S
        if (stat.session in _waited_for or now - seen >= patience_s) and count < MAX_PER_CALL:
            count += reap(pid)
        else:
            dead_now[key] = seen

    _seen_dead.clear()
    _seen_dead.update(dead_now)
    return count
