"""The cost of the idle daemon: CPU time of its process with a ready engine and nobody asking.

python -m benchmarks.idle_cost
python -m benchmarks.idle_cost --seconds 60
"""

from __future__ import annotations

import argparse
import os
import time

from tests.support import new_home, until


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with new_home() as home:
        home.serve("demo")
        until(lambda: home.status()["state"] == "ready", "the demo is ready")
        assert home.daemon is not None
        before = cpu_s(home.daemon.pid)
        time.sleep(seconds)
        share = (cpu_s(home.daemon.pid) - before) / seconds

    print(f"idle daemon: {share:.3%} of a core over {seconds:g} s (limit 1 %)")
    return 0 if share < 0.01 else 1


def cpu_s(pid: int) -> float:
    """CPU seconds of a process in steps of 10 ms (proc(5), stat): those of threads that have ended count, too."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()

    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
