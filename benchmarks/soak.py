"""Hundreds of switches and thousands of requests with kills, stalls and refusals: what stays behind?

One daemon, four profiles on fake engines of both dialects and one on the embedded engine. Each cycle is a switch to
another profile; clients ask all the while, and some leave. Engines are killed, stopped and paused, targets refuse to
start, run out of memory or hang. Every decision comes from the seed, and is printed as it is carried out (stderr).

Every request has to end as one of: complete, to the byte; an error that says so; the client left. Every tenth cycle the
engine is stopped, and what the daemon holds then is compared: descriptors, threads, sockets, files, zombies, memory.

The report (stdout) is docs/soak.md. Exit code 1 on any violation, with the last events and the daemon's log (stderr).

    python -m benchmarks.soak > docs/soak.md
    python -m benchmarks.soak --cycles 50 --requests 500 --seed 7
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

from benchmarks.soak_report import written
from benchmarks.soak_run import Soak, evidence, prepare
from tests.faults.invariants import Watch
from tests.faults.lab import make_workshop, new_lab

PROGRESS_WIDTH = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=500, help="switches (default 500)")
    parser.add_argument("--requests", type=int, default=5000, help="requests (default 5000)")
    parser.add_argument("--seed", type=int, default=1, help="all decisions come from it (default 1)")
    parser.add_argument("--minutes-limit", type=float, default=float("inf"), help="begin no cycle after so long")
    args = parser.parse_args()
    progress = Progress(args.cycles)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="orch-w-") as workshop, new_lab(make_workshop(workshop)) as lab:
        prepare(lab)
        watch = Watch(lab)
        soak = Soak(lab, args.seed, args.cycles, args.requests, progress.say)
        report = soak.run(args.minutes_limit * 60)
        try:
            watch.check()
        except AssertionError as error:
            report.problems.append(f"after the last cycle: {error}")
            progress.say(f"VIOLATION {report.problems[-1]}\n{evidence(lab)}")

    progress.clear()
    loads = f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(written(report, args.seed, args.cycles, args.requests, watch.slowest_s, loads), end="")
    return 1 if report.problems else 0


class Progress:
    """Decisions on stderr; on a terminal, how far it is below them."""

    def __init__(self, cycles: int) -> None:
        self._cycles = cycles
        self._done = 0
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        self.clear()
        print(text, file=sys.stderr, flush=True)
        self._done += text.startswith("cycle ")
        if self._terminal:
            filled = PROGRESS_WIDTH * self._done // self._cycles
            bar = "#" * filled + "." * (PROGRESS_WIDTH - filled)
            took_s = time.monotonic() - self._began
            print(f"[{bar}] {self._done}/{self._cycles}, {took_s:.0f} s", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
