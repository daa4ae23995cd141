"""Model files in the page cache: how much of them lies there, what an engine has mapped of them, reading them into it.

All of it blocks, some of it for milliseconds: call it in a thread.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.process.linux import read_proc

BLOCK_BYTES = 8 << 20

WINDOW_PAGES = 64
WINDOWS = 2048
"""Of ranges larger than all windows together (512 MiB), so many are looked at, spread evenly: the cost of an answer
does not grow with them. The kernel reads ahead in larger pieces than a window, so what lies between two is mostly
like them."""


Spans = Sequence[tuple[int, int]]
"""Ranges of one file: offset and length, bytes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Residency:
    """The part of some files that lies in the page cache, MiB; `resident_mib` is None where the kernel does not say."""

    total_mib: int
    resident_mib: int | None


def residency(paths: Sequence[str]) -> Residency | None:
    """Return how much of a model's files is in the page cache; None when one of them is not there."""
    try:
        return residency_of({path: ((0, os.stat(path).st_size),) for path in paths})
    except OSError:
        return None


def residency_of(spans: Mapping[str, Spans]) -> Residency | None:
    """Return how much of some ranges of files is in the page cache, sampled with mincore(2); None when one is gone."""
    total, resident = 0, 0.0
    known = True
    for path, ranges in spans.items():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

        try:
            share = _resident_share(descriptor, ranges) if _may_ask(descriptor, path) else None
        finally:
            os.close(descriptor)

        size = sum(length for _, length in ranges)
        total += size
        known = known and share is not None
        resident += (share or 0.0) * size

    return Residency(total >> 20, int(resident) >> 20 if known else None)


def _may_ask(descriptor: int, path: str) -> bool:
    """Return whether the kernel tells the truth: of a file not ours to write it says that all is there (Linux 5.2)."""
    return os.fstat(descriptor).st_uid == os.geteuid() or os.access(path, os.W_OK)


def _resident_share(descriptor: int, ranges: Spans) -> float | None:
    """Return the share of ranges that is resident, 0 to 1. The file is mapped, and its pages are not touched."""
    size = os.fstat(descriptor).st_size
    pages = [(at // mmap.PAGESIZE, -(-min(at + length, size) // mmap.PAGESIZE)) for at, length in ranges if at < size]
    total = sum(end - first for first, end in pages)
    if not total:
        return None

    libc = _libc()
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        return None

    try:
        found = 0.0
        vector = (ctypes.c_ubyte * WINDOW_PAGES)()
        for first, end in pages:
            count = end - first
            windows = max(1, min(WINDOWS * count // total, -(-count // WINDOW_PAGES)))
            seen = there = 0
            for number in range(windows):
                at = number * count // windows
                width = min(WINDOW_PAGES, (number + 1) * count // windows - at)
                if libc.mincore(address + (first + at) * mmap.PAGESIZE, width * mmap.PAGESIZE, vector) != 0:
                    return None  # the file was cut meanwhile

                seen += width
                there += sum(each & 1 for each in vector[:width])

            found += there / seen * count
    finally:
        libc.munmap(address, size)

    return found / total


_FAILED = ctypes.c_void_p(-1).value


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    word, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype, libc.mmap.argtypes = word, [word, size, number, number, number, ctypes.c_long]
    libc.munmap.argtypes = [word, size]
    libc.mincore.argtypes = [word, size, ctypes.POINTER(ctypes.c_ubyte)]
    return libc


def mapped_spans(pid: int, paths: Sequence[str]) -> dict[str, Spans]:
    """Return which ranges of files a process has mapped, by path: empty where it has none, or the kernel does not say.

    Both engines take what they have copied to a device out of their mapping, from its first and its last tensor on.
    """
    real = {os.path.realpath(path).encode(): path for path in paths}
    found: dict[str, list[tuple[int, int]]] = {}
    for line in (read_proc(f"/proc/{pid}/maps") or b"").splitlines():
        fields = line.split(maxsplit=5)  # proc_pid_maps(5): addresses, permissions, offset, device, inode, path
        path = real.get(fields[5]) if len(fields) == 6 else None
        if path is not None:
            first, _, end = fields[0].partition(b"-")
            found.setdefault(path, []).append((int(fields[2], 16), int(end, 16) - int(first, 16)))

    return {path: tuple(spans) for path, spans in found.items()}


def read_ahead(
    paths: Sequence[str],
    limit_bytes: int,
    cancelled: Callable[[], bool],
    on_read: Callable[[int], None] = lambda done: None,
) -> int:
    """Read files in order, sequentially. Blocks: call it in a thread.

    Best effort: a file that cannot be read is left to the engine, which says what is wrong with it.

    :param limit_bytes: stop there (at most a block later), so that nothing that is in use is pushed out
    :param cancelled: asked between blocks
    :param on_read: told after each block how many bytes have been read
    :return: bytes read
    """
    done = 0
    # Not from malloc: glibc keeps a block of this size in the arena of each thread that ever read a model.
    with mmap.mmap(-1, BLOCK_BYTES) as buffer:
        for path in paths:
            try:
                with open(path, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                    while done < limit_bytes and not cancelled() and (read := file.readinto(buffer)):
                        done += read
                        on_read(done)
            except OSError as error:
                _log.info("%s is not read ahead: %s", path, error)

    return done
