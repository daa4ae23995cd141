"""Whether the gate of a new build lets a healthy one pass and keeps a slower one out, on a real engine.

    python -m benchmarks.gate_truth [--equal 20] [--slower 10] [--share 0.08] [--pace-ms 10] [--tokens 48]

The embedded engine with the generated model, installed as builds of `upstream` behind the relay of `bench_truth`, which
gives a piece each PACE_MS: one that is current, the same once more, and one whose tokens take SHARE longer. Through a
daemon of its own, without verification, which does not depend on speed (`tests/integration/test_build_gate.py`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter

from benchmarks.bench_truth import relay_script
from orchestrator.adapters.paths import find_paths
from orchestrator.bench.gate import BuildGate
from orchestrator.cli.bench_shell import bench_shell
from orchestrator.core.setup.build_gate import GateState
from orchestrator.engines.build.installs import Install
from tests.installed_builds import install_build
from tests.support import Home, new_home


def series(home: Home, title: str, gate: BuildGate, new: Install, current: Install, count: int) -> Counter[GateState]:
    states: Counter[GateState] = Counter()
    for number in range(count):
        began = time.monotonic()
        found = gate.run(new, current)
        states[found.state] += 1
        print(f"{title} {number + 1:2}: {found.state}, {time.monotonic() - began:.0f} s: {found.reason}", flush=True)
        home.ready("demo")

    return states


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--equal", type=int, default=20)
    parser.add_argument("--slower", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.08)
    parser.add_argument("--pace-ms", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()

    with new_home() as home:
        os.environ["ORCH_HOME"] = home.root
        paths = find_paths({"ORCH_HOME": home.root})
        home.demo_on_one_thread()
        current = install_build(
            paths, "upstream", "present", relay_script(home, "present", 0.0, options.pace_ms), current=True
        )
        again = install_build(paths, "upstream", "again", relay_script(home, "again", 0.0, options.pace_ms))
        slow = install_build(paths, "upstream", "slow", relay_script(home, "slow", options.share, options.pace_ms))
        home.serve()
        home.orch("up", "demo", "--engine", "upstream")
        home.ready("demo")
        gate = BuildGate(
            paths,
            0.03,
            False,
            lambda store: bench_shell(paths, store),
            lambda text: None,
            tokens=options.tokens,
        )
        equal = series(home, "equal", gate, again, current, options.equal)
        slower = series(home, "slower", gate, slow, current, options.slower)

    print(f"equal: {dict(equal)} of {options.equal}")
    print(f"slower by {options.share:.0%}: {dict(slower)} of {options.slower}")
    return 0 if equal["accepted"] >= 0.95 * options.equal and slower["accepted"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
