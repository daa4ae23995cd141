"""How much slower this machine is just now than one that does nothing else: it stretches the limits of what is timed.

A limit holds as it stands on a machine that is free. On one that does other work, what took longer is compared with
what a piece of work that is always the same takes there.
"""

from __future__ import annotations

import subprocess
import sys
import time

CALM_S = 0.02
"""A Python that does nothing but start and end, on a machine that is free: 12 ms, and some for older ones."""

LOOKS = 10
"""The slowest of so many counts: what was timed met the same queues of processes, and more of them."""


def slowness() -> float:
    """How many times slower than a free machine this one is; at least 1."""
    took_s = []
    for _ in range(LOOKS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        took_s.append(time.monotonic() - began)

    return max(1.0, max(took_s) / CALM_S)


def in_time(took_s: float, limit_s: float) -> bool:
    """Whether something took less than its limit; on a busy machine, than the limit times its slowness."""
    return took_s < limit_s or took_s < limit_s * slowness()
