"""How long a process waited for a processor that other programs had, from the kernel's figures of its threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from orchestrator.adapters.process.linux import read_proc

COMPUTES = 0.5
"""Share of the busiest thread's time from which on a thread is one of those that compute."""


class ThreadTimes(NamedTuple):
    """Of one thread since its start: the time on a processor, and the time it was ready to run and had none."""

    computed_ns: int
    waited_ns: int


def read_threads(pid: int) -> dict[int, ThreadTimes]:
    """Return the times of a process's threads by their ids; empty where the kernel tells none, or it is gone.

    Source: `/proc/PID/task/TID/schedstat`, as Documentation/scheduler/sched-stats.rst of Linux describes it.
    """
    found = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return {}

    for thread in threads:
        fields = (read_proc(f"/proc/{pid}/task/{thread}/schedstat") or b"").split()
        if len(fields) >= 2:
            found[int(thread)] = ThreadTimes(int(fields[0]), int(fields[1]))

    return found


def cpus_of(pid: int) -> int:
    """Return how many CPUs a process may use; 0 when it is gone."""
    try:
        return len(os.sched_getaffinity(pid))
    except OSError:
        return 0


def waited_ms(before: Mapping[int, ThreadTimes], after: Mapping[int, ThreadTimes], cpus: int) -> float | None:
    """Return how long the work of a process was held up between two readings by other programs, at least.

    That is the longest wait of a thread that computed. What several threads waited for each other's results is not in
    it: they wait computing, or sleeping. Where more of them compute than there are CPUs, they take these from each
    other, which is the engine's own doing.

    :param cpus: that the process may use
    :return: None where nothing is known
    """
    none = ThreadTimes(0, 0)
    spent = [
        ThreadTimes(now.computed_ns - then.computed_ns, now.waited_ns - then.waited_ns)
        for thread, now in after.items()
        for then in [before.get(thread, none)]
    ]
    if not before or not spent:
        return None

    busiest = max(each.computed_ns for each in spent)
    computing = [each for each in spent if each.computed_ns >= COMPUTES * busiest]
    return max(each.waited_ns for each in computing) / 1e6 if len(computing) <= cpus else None
