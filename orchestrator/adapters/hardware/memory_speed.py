"""How fast this machine reads its memory: what decoding on the host cannot exceed.

Each thread compares the two halves of pieces of its own buffer, which are equal, with the C library's `memcmp`: it only
reads, with vector instructions, and ctypes holds no interpreter lock meanwhile. From a processor's caches the same call
reads several times as fast as one core gets from memory, so it is not what limits; `memchr`, with one stream instead of
two, read a fifth slower from memory. `python -m benchmarks.host_read` measures that, and compares it with sysbench.
The buffers have pages of 4 KiB, as a mapped model has, where the machine does not make all pages huge. Threads are
bound to CPUs as far as the engine would be. A copy would count bytes that are written as well, and moves fewer.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Collection
from time import monotonic, perf_counter, sleep

from orchestrator.core.errors import OrchError
from orchestrator.core.quantities import MIB
from orchestrator.core.setup.machine_speed import ReadSpeed, read_speed

TOTAL_MIB = 1024
LEAST_MIB = 64
"""All buffers together, and each of them at least: far beyond the third-level cache of a desktop."""

PIECE_BYTES = 8 * MIB
"""Read by one call, in about a millisecond; buffers are whole pieces."""

SECONDS = 4.0
_LOOK_S = 0.1
_READY_S = 30.0


def measure_memory(
    threads: int,
    may_go_on: Callable[[], None] = lambda: None,
    *,
    cpus: Collection[int] = (),
    seconds: float = SECONDS,
    total_mib: int = TOTAL_MIB,
    least_mib: int = LEAST_MIB,
) -> ReadSpeed:
    """Read memory for some seconds. Blocks.

    :param threads: as many as the engine would use; more than there are processors share them
    :param cpus: that the threads may run on, as with `cpu.pin`; empty for any
    :param may_go_on: called ten times a second; what it raises ends the reading, and is raised here
    :raises OrchError: when there is not enough memory for the buffers
    """
    size = max(total_mib // threads, least_mib) * MIB // PIECE_BYTES * PIECE_BYTES
    _check_room(threads * size)
    ready, go, stop = threading.Barrier(threads + 1), threading.Event(), threading.Event()
    ends: list[list[float]] = [[] for _ in range(threads)]

    def read(index: int) -> None:
        try:
            if cpus:
                os.sched_setaffinity(0, cpus)  # 0 is this thread, not the process

            with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as buffer:
                _read_pieces(buffer, ready, go, stop, ends[index])
        except (OSError, threading.BrokenBarrierError):  # no such CPU or no memory; or told so by another one
            ready.abort()

    workers = [threading.Thread(target=read, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()

    try:
        ready.wait(_READY_S)
        began = perf_counter()
        go.set()
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            may_go_on()
            sleep(_LOOK_S)

        ended = perf_counter()
    except threading.BrokenBarrierError as error:
        raise OrchError(
            f"{threads} threads could not have {size // MIB} MiB each to read, within {_READY_S:.0f} s",
            hint="the machine is very busy, or short of memory: measure when it is not",
        ) from error
    finally:
        stop.set()
        go.set()
        ready.abort()
        for worker in workers:
            worker.join()

    return read_speed(ends, PIECE_BYTES, began, ended)


def _read_pieces(
    buffer: mmap.mmap, ready: threading.Barrier, go: threading.Event, stop: threading.Event, ends: list[float]
) -> None:
    """Read a buffer again and again until told to stop, and note when each piece was read.

    Its pages are written first: pages that never were are all the same one, which the cache has.
    """
    size = len(buffer)
    view = ctypes.c_char.from_buffer(buffer)
    address = ctypes.addressof(view)
    compare = _memcmp()
    try:
        ctypes.memset(address, 1, size)
        ready.wait()
        go.wait()
        for offset in itertools.cycle(range(0, size, PIECE_BYTES)):
            if stop.is_set():
                return

            piece = address + offset
            compare(piece, piece + PIECE_BYTES // 2, PIECE_BYTES // 2)
            ends.append(perf_counter())
    finally:
        del view  # a mapping that is looked into cannot be closed


def _memcmp() -> Callable[[int, int, int], object]:
    function = ctypes.CDLL(None).memcmp
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return function


def _check_room(wanted_bytes: int) -> None:
    from orchestrator.adapters.hardware.host import available_memory_bytes

    free = available_memory_bytes()
    if wanted_bytes > free // 2:
        raise OrchError(
            f"memory is not measured: {wanted_bytes >> 20} MiB are read, and {free >> 20} MiB are available",
            hint="stop what holds memory (`orch down`), or name a profile with fewer `cpu.threads`",
        )
