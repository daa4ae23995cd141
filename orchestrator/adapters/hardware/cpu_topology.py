"""Which CPUs this process may use, which of them share a core, and how fast they are: from sysfs.

Format: the kernel's Documentation/ABI/stable/sysfs-devices-system-cpu and .../testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import os

from orchestrator.adapters.sysfs import read_text
from orchestrator.core.starts.cpu_pinning import LogicalCpu

_ROOT = "/sys/devices"


def read_topology(root: str = _ROOT) -> tuple[LogicalCpu, ...]:
    """Return the CPUs that this process may use, by number; empty where the kernel does not tell their cores.

    A control group's or a container's set of CPUs is kept to, and so are CPUs that were isolated at boot.

    :param root: where sysfs has its devices
    """
    numbers = sorted(os.sched_getaffinity(0))
    cores = {each: _first(root, each, "topology/core_cpus_list", "topology/thread_siblings_list") for each in numbers}
    if not all(cores.values()):
        return ()

    efficient = _cpu_set(read_text(root, "cpu_atom/cpus")) | _cpu_set(read_text(root, "cpu_lowpower/cpus"))
    ratings = _ratings(root, numbers)
    return tuple(LogicalCpu(each, cores[each], each in efficient, ratings.get(each)) for each in numbers)


def _ratings(root: str, numbers: list[int]) -> dict[int, int]:
    """Return the figures of speed that all CPUs have of one kind: capacities, or highest frequencies in kHz."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        found = {each: int(text) for each in numbers if (text := _first(root, each, name)).isdecimal()}
        if len(found) == len(numbers):
            return found

    return {}


def _first(root: str, number: int, *names: str) -> str:
    """Return the first of some files of a CPU that says something; empty where none does."""
    return next((text for name in names if (text := read_text(f"{root}/system/cpu/cpu{number}", name))), "")


def _cpu_set(text: str) -> set[int]:
    """Return the numbers of a list such as `0-3,8` (cpuset(7)); empty for an empty one."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))

    return found
