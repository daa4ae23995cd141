"""The kernel's own count of processes that it killed for want of memory: as near to one engine as there is one."""

from __future__ import annotations

import os

from orchestrator.adapters.process import linux
from orchestrator.adapters.process.cgroup import Leaf, own_groups
from orchestrator.core.failure.exit_evidence import Scope

VMSTAT = "/proc/vmstat"


class OomCounter:
    """One counter: `memory.events` (cgroup version 2), `memory.oom_control` (version 1) or `/proc/vmstat`.

    The first counts the groups below as well, the second its own processes alone. All count kills for want of memory in
    the group and in the whole machine alike, before the signal is sent (`__oom_kill_process` of mm/oom_kill.c).
    """

    def __init__(self, path: str, source: str, scope: Scope) -> None:
        self.path = path
        self.source = source
        self.scope: Scope = scope

    def read(self) -> int | None:
        """Return the count; None when it cannot be read."""
        try:
            data = linux.read_proc(self.path)
        except OSError:
            return None

        return parse_oom_kills(data.decode()) if data else None


def parse_oom_kills(text: str) -> int | None:
    """Return the number after `oom_kill`, in the format that all three share: a name and a number in each line."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill":
            return int(number)

    return None


def nearest_oom_counter(leaf: Leaf | None) -> OomCounter:
    """Return the counter nearest to a process in this group, or in the daemon's own when it has none of its own."""
    groups = own_groups()
    if leaf is not None and _is_readable(os.path.join(leaf.path, "memory.events")):
        return OomCounter(os.path.join(leaf.path, "memory.events"), "memory.events", "engine")

    group = leaf.path if leaf is not None else groups.unified
    while group is not None and os.path.exists(os.path.join(group, "cgroup.procs")):
        path = os.path.join(group, "memory.events")
        if _is_readable(path):
            return OomCounter(path, f"memory.events of {group}", "group")

        group = os.path.dirname(group)

    if groups.memory is not None and _is_readable(os.path.join(groups.memory, "memory.oom_control")):
        path = os.path.join(groups.memory, "memory.oom_control")
        return OomCounter(path, f"memory.oom_control of {groups.memory}", "group")

    return OomCounter(VMSTAT, VMSTAT, "machine")


def _is_readable(path: str) -> bool:
    return OomCounter(path, "", "group").read() is not None
