"""Compares the reader of `orch doctor --measure` with that of sysbench (Debian's package): GB/s with the same threads.

python -m benchmarks.host_read
python -m benchmarks.host_read --threads 1 --turns 15

The two take short turns, since other programs on the machine slow both; the middle of the turns is compared. sysbench
reads a buffer of each thread word by word, as large as ours here. It also says how fast the same call of ours reads
from the processor's caches: were that near the memory's speed, the call would be what limits.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import timeit
from statistics import median

from orchestrator.adapters.hardware.memory_speed import measure_memory

BUFFER_MIB = 256
TURN_S = 0.8
AGREE = 0.15
CACHED_BYTES = 128 << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    if shutil.which("sysbench") is None:
        print("sysbench is not installed: `apt-get install sysbench`")
        return 2

    ours, theirs = [], []
    for _ in range(args.turns):
        ours.append(_ours(args.threads))
        theirs.append(_sysbench(args.threads))

    apart = median(ours) / median(theirs) - 1
    for name, found in (("orch", ours), ("sysbench", theirs)):
        turns = " ".join(f"{each:.1f}" for each in sorted(found))
        print(f"{name:<8}  {median(found):5.1f} GB/s in the middle, {max(found):5.1f} at best: {turns}")

    print(f"orch from a cache: {_from_cache():.0f} GB/s with one thread")
    print(f"{args.threads} threads: {apart:+.1%} apart in the middle (limit {AGREE:.0%})")
    return 0 if abs(apart) <= AGREE else 1


def _ours(threads: int) -> float:
    return measure_memory(threads, seconds=TURN_S, total_mib=threads * BUFFER_MIB, least_mib=BUFFER_MIB).middle


def _from_cache() -> float:
    one, other = (ctypes.create_string_buffer(CACHED_BYTES // 2) for _ in range(2))
    compare = ctypes.CDLL(None).memcmp
    best_s = min(timeit.repeat(lambda: compare(one, other, CACHED_BYTES // 2), number=1, repeat=2000))
    return CACHED_BYTES / best_s / 1e9


def _sysbench(threads: int) -> float:
    words = ["sysbench", "memory", f"--threads={threads}", f"--memory-block-size={BUFFER_MIB}M", "--memory-oper=read",
             "--memory-scope=local", "--memory-total-size=0", "--time=1", "run"]  # fmt: skip
    told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"\(([\d.]+) MiB/sec\)", told)
    assert found is not None, told
    return float(found[1]) * (1 << 20) / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
