"""Everything that came from one child: its group, its session, its descendants, and those that left all three.

A descendant is remembered once it was seen, so that it is still known after its parent has died and another has
adopted it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.adapters.process import linux, reaper

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Activity(NamedTuple):
    """What processes have done, and do.

    :param read_bytes: as `ProcessTree.read_bytes`
    :param rss_bytes: host memory in use
    :param cpu_s: CPU time that they and their children that ended have used
    :param blocked: one of them waits inside the kernel, for a disk or a driver (state D of proc_pid_stat(5))
    """

    read_bytes: int | None = None
    rss_bytes: int = 0
    cpu_s: float = 0.0
    blocked: bool = False


class ProcessTree:
    """The processes that came from `pid`. Valid until the leader is reaped: then its number may have a new owner."""

    def __init__(self, pid: int, start_ticks: int) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self._seen: dict[int, int] = {pid: start_ticks}
        self._progress_bytes: int | None = None

    def members(self) -> dict[int, linux.Stat]:
        """Return the living processes, the leader included."""
        stats = linux.all_stats()
        known = {pid for pid, start in self._seen.items() if pid in stats and stats[pid].start_ticks == start}
        known.update(stat.pid for stat in stats.values() if self.pid in (stat.pgrp, stat.session))
        children: dict[int, list[int]] = {}
        for stat in stats.values():
            children.setdefault(stat.ppid, []).append(stat.pid)

        unvisited = list(known)
        while unvisited:
            for child in children.get(unvisited.pop(), ()):
                if child not in known:
                    known.add(child)
                    unvisited.append(child)

        self._seen = {pid: stats[pid].start_ticks for pid in known}
        return {pid: stats[pid] for pid in known if not stats[pid].dead}

    def strays(self) -> list[linux.Stat]:
        """Return the members that a signal to the leader's group does not reach."""
        return [stat for stat in self.members().values() if stat.pgrp != self.pid]

    def add(self, pids: list[int]) -> None:
        """Remember processes that were identified in another way."""
        for pid in pids:
            stat = linux.stat_of(pid)
            if stat is not None:
                self._seen[pid] = stat.start_ticks

    def reap_adopted(self) -> None:
        """Reap the dead among those known that have become children of this process."""
        me = os.getpid()
        for pid, start_ticks in self._seen.items():
            if pid == self.pid:
                continue

            stat = linux.stat_of(pid)
            if stat is not None and stat.dead and stat.ppid == me and stat.start_ticks == start_ticks:
                reaper.reap(pid)

    def read_bytes(self) -> int | None:
        """Return the bytes that they have read so far: more while a model loads, never fewer.

        None when the kernel does not tell.

        Read calls and page faults of a mapped file are counted apart (`rchar`, `read_bytes`); the larger one counts.
        """
        return self._read_bytes(self.members())

    def _read_bytes(self, pids: Iterable[int]) -> int | None:
        total = None
        for pid in pids:
            counts = _io_counts(pid)
            if counts is not None:
                total = (total or 0) + max(counts.get("rchar", 0), counts.get("read_bytes", 0))

        if total is not None:
            self._progress_bytes = max(total, self._progress_bytes or 0)

        return self._progress_bytes

    def activity(self) -> Activity:
        """Return it all at one look at the processes."""
        members = self.members()
        cpu_s = sum(each.cpu_ticks for each in members.values()) / TICKS_PER_S
        blocked = any(each.state == "D" for each in members.values())
        return Activity(self._read_bytes(members), _rss_bytes(members), cpu_s, blocked)


def _rss_bytes(pids: Iterable[int]) -> int:
    """Pages shared between them count once for each."""
    total = 0
    for pid in pids:
        data = linux.read_proc(f"/proc/{pid}/statm")
        if data:
            total += int(data.split()[1]) * PAGE_BYTES

    return total


def process_reads(pid: int) -> tuple[int, int] | None:
    """Return the bytes that a process had read from storage, and its major page faults; None where nothing tells."""
    counts, data = _io_counts(pid), linux.read_proc(f"/proc/{pid}/stat")
    if counts is None or "read_bytes" not in counts or not data:
        return None

    return counts["read_bytes"], int(data[data.rindex(b")") + 2 :].split()[9])  # majflt, proc_pid_stat(5)


def _io_counts(pid: int) -> dict[str, int] | None:
    data = linux.read_proc(f"/proc/{pid}/io")
    if not data:
        return None

    pairs = (line.split(": ") for line in data.decode().splitlines())
    return {name: int(value) for name, value in pairs}
