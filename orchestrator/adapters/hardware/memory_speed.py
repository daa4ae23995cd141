"""How fast this machine reads its memory: what decoding on the host cannot exceed.

Every process reads its own buffer, which is larger than the caches, with the C library's `memchr`. A copy would count
bytes that are written as well, and moves fewer.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.core.errors import OrchError

BUFFER_MIB = 256
ROUNDS = 24
MOST_PROCESSES = 16
_LIMIT_S = 120.0

_READER = """\
import sys, time
data = bytearray(b"1") * (int(sys.argv[1]) << 20)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    data.find(b"0")
    print(len(data) / (time.perf_counter() - began), flush=True)
"""
"""Waits for a line before it reads, so that all begin together."""


class MemorySpeed(NamedTuple):
    """GB/s over all processes: the best round and the one in the middle."""

    best: float
    middle: float
    processes: int


def measure_memory(buffer_mib: int = BUFFER_MIB, rounds: int = ROUNDS) -> MemorySpeed:
    """Read memory with as many processes as this one may have processors, for some seconds.

    :raises OrchError: when a process ends, or takes too long
    """
    count = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
    argv = (sys.executable, "-S", "-c", _READER, str(buffer_mib), str(rounds))
    readers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()

        _tell_all(readers)
        told = [reader.communicate(timeout=_LIMIT_S)[0].split() for reader in readers]
    except subprocess.TimeoutExpired as error:
        hint = "the machine is very busy: measure when it is not"
        raise OrchError("reading memory took too long", hint=hint) from error
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()

    if any(len(each) != rounds for each in told):
        raise OrchError("a process that read memory ended early", hint=f"{count * buffer_mib} MiB are needed for it")

    sums = sorted(sum(map(float, round_)) / 1e9 for round_ in zip(*told, strict=True))
    return MemorySpeed(sums[-1], sums[len(sums) // 2], count)


def _tell_all(readers: Sequence[subprocess.Popen[str]]) -> None:
    """Have all of them begin."""
    for reader in readers:
        assert reader.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it has not told is noticed
            reader.stdin.write("\n")
            reader.stdin.flush()
