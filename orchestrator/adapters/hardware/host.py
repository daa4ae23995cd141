"""The host's memory: how much there is, whether it is short, what processes have of it. All of it blocks."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import psutil

PRESSURE = "/proc/pressure/memory"
_AVERAGE = re.compile(r"^(some|full) avg10=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HostReading:
    """In MiB; pressure is the kernel's 10 s average of the time in which some, or all, tasks waited for memory, 0 to 1.

    None without CONFIG_PSI.
    """

    memory_total_mib: int
    memory_available_mib: int
    swap_used_mib: int
    pressure_some: float | None
    pressure_full: float | None


def read_host(pressure: str = PRESSURE) -> HostReading:
    """Read the host's memory and its pressure now."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    averages = _averages(pressure)
    return HostReading(
        memory_total_mib=memory.total >> 20,
        memory_available_mib=memory.available >> 20,
        swap_used_mib=swap.used >> 20,
        pressure_some=averages.get("some"),
        pressure_full=averages.get("full"),
    )


def available_memory_bytes() -> int:
    """Return the host memory that programs can still take without swapping."""
    return int(psutil.virtual_memory().available)


def total_memory_mib() -> int:
    """Return all the memory that the host's programs can ever have: its own, and what it swaps to."""
    return int(psutil.virtual_memory().total + psutil.swap_memory().total) >> 20


class HostUse(NamedTuple):
    """What processes have in host memory, MiB.

    :param mapped_mib: the part of it that is mapped from files, or shared: a model that is not copied
    """

    resident_mib: int
    mapped_mib: int


def host_use(pids: Collection[int]) -> HostUse | None:
    """Return what processes have in host memory; None when none of them is there."""
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid).memory_info())
        except psutil.Error:  # gone, or not ours to read
            continue

    if not found:
        return None

    return HostUse(sum(each.rss for each in found) >> 20, sum(each.shared for each in found) >> 20)


def rss_mib(pids: Collection[int]) -> int | None:
    """Return the host memory that processes have in use, a mapped model included; None when none of them is there."""
    use = host_use(pids)
    return None if use is None else use.resident_mib


def io_pressure(path: str = "/proc/pressure/io") -> float | None:
    """Return the share of the last 10 s in which some task waited for a disk, 0 to 1; None without CONFIG_PSI."""
    return _averages(path).get("some")


def _averages(path: str) -> dict[str, float]:
    try:
        with open(path, encoding="ascii") as file:
            return {name: float(percent) / 100 for name, percent in _AVERAGE.findall(file.read())}
    except OSError:  # no CONFIG_PSI, or switched off
        return {}
