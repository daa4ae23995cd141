"""How fast a file is read from its disk, past the page cache (O_DIRECT): what serves from the cache keeps it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from time import perf_counter

BLOCK_BYTES = 8 << 20
MOST_BYTES = 256 << 20
MOST_S = 3.0
LEAST_BYTES = 4 << 20
"""Of less nothing is told: the first block takes as long as the disk takes to wake."""


class DiskNotMeasured(Exception):
    """Raised with the reason, for people."""


def file_system_of(path: str) -> str:
    """Return where the file system of a file is mounted."""
    place = os.path.realpath(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)

    return place


def measure_disk(path: str, may_go_on: Callable[[], None] = lambda: None) -> float:
    """Return at how many GB/s the middle of a file is read, by one thread in blocks of 8 MiB. Blocks for 3 s or so.

    :param may_go_on: called before each block; what it raises ends the reading, and is raised here
    :raises DiskNotMeasured: when the file cannot be read in this way
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        raise DiskNotMeasured(f"it cannot be read past the page cache: {error.strerror}") from error

    try:
        size = os.fstat(descriptor).st_size
        at = max(size - MOST_BYTES, 0) // 2 // BLOCK_BYTES * BLOCK_BYTES
        done, took_s = 0, 0.0
        # Anonymous memory is aligned to pages, as O_DIRECT wants it.
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            while done < MOST_BYTES and took_s < MOST_S:
                may_go_on()
                began = perf_counter()
                read = os.preadv(descriptor, [block], at + done)
                took_s += perf_counter() - began
                done += read
                if read < BLOCK_BYTES:  # the end of the file
                    break
    except OSError as error:
        raise DiskNotMeasured(f"it cannot be read past the page cache: {error.strerror}") from error
    finally:
        os.close(descriptor)

    if done < LEAST_BYTES:
        raise DiskNotMeasured(f"it is too small, {done >> 10} KiB")

    return done / 1e9 / took_s
