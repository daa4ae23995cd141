"""The host's memory: how much there is, whether it is short, and how much of a model lies in the page cache.

All of it blocks, some of it for milliseconds: call it in a thread.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil

PRESSURE = "/proc/pressure/memory"
_AVERAGE = re.compile(r"^(some|full) avg10=([\d.]+)", re.MULTILINE)

WINDOW_PAGES = 64
WINDOWS = 2048
"""Of a file larger than all windows together (512 MiB), so many are looked at, spread evenly: the cost of an answer
does not grow with the file. The kernel reads ahead in larger pieces than a window, so what lies between two is mostly
like them."""


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


@dataclass(frozen=True, slots=True)
class Residency:
    """The part of some files that lies in the page cache, MiB; `resident_mib` is None where the kernel does not say."""

    total_mib: int
    resident_mib: int | None


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


def residency(paths: Sequence[str]) -> Residency | None:
    """Return how much of a model's files is in the page cache, from mincore(2); None when one of them is not there."""
    total = 0
    resident: float | None = 0.0
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

        try:
            size = os.fstat(descriptor).st_size
            share = _resident_share(descriptor, size) if _may_ask(descriptor, path) else None
        finally:
            os.close(descriptor)

        total += size
        resident = None if resident is None or share is None else resident + share * size

    return Residency(total >> 20, None if resident is None else int(resident) >> 20)


def _may_ask(descriptor: int, path: str) -> bool:
    """Return whether the kernel tells the truth: of a file not ours to write it says that all is there (Linux 5.2)."""
    return os.fstat(descriptor).st_uid == os.geteuid() or os.access(path, os.W_OK)


def _resident_share(descriptor: int, size: int) -> float | None:
    """Return the share that is resident, 0 to 1, sampled. The file is mapped, and its pages are not touched."""
    pages = -(-size // mmap.PAGESIZE)
    if not pages:
        return None

    libc = _libc()
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        return None

    try:
        windows = min(WINDOWS, -(-pages // WINDOW_PAGES))
        vector = (ctypes.c_ubyte * WINDOW_PAGES)()
        seen = found = 0
        for number in range(windows):
            first = number * pages // windows
            count = min(WINDOW_PAGES, (number + 1) * pages // windows - first)
            if libc.mincore(address + first * mmap.PAGESIZE, count * mmap.PAGESIZE, vector) != 0:
                return None  # the file was cut meanwhile

            seen += count
            found += sum(each & 1 for each in vector[:count])
    finally:
        libc.munmap(address, size)

    return found / seen if seen else None


_FAILED = ctypes.c_void_p(-1).value


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    word, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype, libc.mmap.argtypes = word, [word, size, number, number, number, ctypes.c_long]
    libc.munmap.argtypes = [word, size]
    libc.mincore.argtypes = [word, size, ctypes.POINTER(ctypes.c_ubyte)]
    return libc


def _averages(path: str) -> dict[str, float]:
    try:
        with open(path, encoding="ascii") as file:
            return {name: float(percent) / 100 for name, percent in _AVERAGE.findall(file.read())}
    except OSError:  # no CONFIG_PSI, or switched off
        return {}
