"""How often the gate of a new build lets a copy of a real build pass, and whether it keeps a slower build out.

    python -m benchmarks.gate_real --engine LLAMA_SERVER --model MODEL.gguf [--gates 20] [--tokens 48] [--threads 1]
        [--slower LLAMA_SERVER]

The build is installed as the current one and once more; a slower one, such as one compiled with -O1, where it is given.
Through a daemon of its own, without verification, which does not depend on speed. Beside each gate is what the same
blocks would have said by the wall clock alone, without taking off what the engine waited for a processor.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections import Counter
from dataclasses import replace
from math import exp

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.bench.gate import BuildGate
from orchestrator.bench.session import read_pair
from orchestrator.cli.bench_shell import bench_shell
from orchestrator.core.bench.blocks import MeasuredBlock, estimator_blocks
from orchestrator.core.bench.estimator import estimate, level_of
from orchestrator.core.bench.gate import judge_speed
from orchestrator.core.setup.build_gate import GateState
from orchestrator.engines.build.installs import Install
from tests.installed_builds import install_script
from tests.support import Home, new_home

TOLERATED = 0.03
PROFILE = """\
schema = 1
model = "{model}"
engine = "upstream"

[context]
size = 2048
parallel = 1

[batch]
ubatch = 31

[cpu]
threads = {threads}
threads_batch = {threads}
"""


def by_wall_clock(paths: Paths, bench: int) -> str:
    """Return what the blocks of a bench say where nothing is taken off."""
    store = BenchStore(paths.bench_file)
    try:
        spec, progress = read_pair(store, store.find(bench))
    finally:
        store.close()

    waited = [answer.waited_ms for block in progress.measured for answer in block.answers]
    wall_s = sum(answer.wall_s for block in progress.measured for answer in block.answers)
    blocks = estimator_blocks(spec.plan, [_whole(each) for each in progress.measured])
    found = estimate(blocks, level_of(len(blocks)))
    assert found is not None
    says = judge_speed(blocks, TOLERATED, len(blocks))
    ratio, low, high = (100 * (exp(each) - 1) for each in (found.mean, found.low, found.high))
    share = sum(each or 0.0 for each in waited) / 1000 / wall_s
    return f"{says} {ratio:+.1f} % ({low:+.1f} to {high:+.1f}); it waited {share:.0%} of the time"


def _whole(block: MeasuredBlock) -> MeasuredBlock:
    return replace(block, answers=tuple(replace(each, waited_ms=None) for each in block.answers))


def series(home: Home, paths: Paths, gate: BuildGate, new: Install, current: Install, count: int) -> Counter[GateState]:
    states: Counter[GateState] = Counter()
    for number in range(count):
        began, load = time.monotonic(), os.getloadavg()[0]
        found = gate.run(new, current)
        states[found.state] += 1
        took_s = time.monotonic() - began
        print(f"{new.build} {number + 1:2}: {found.state}, {took_s:.0f} s, load {load:.1f}: {found.reason}", flush=True)
        if found.bench is not None:
            print(f"    by the wall clock: {by_wall_clock(paths, found.bench)}", flush=True)

        home.ready("model")

    return states


def install(home: Home, paths: Paths, name: str, engine: str, *, current: bool = False) -> Install:
    return install_script(home, paths, name, f'exec {shlex.quote(engine)} "$@"', current=current)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gates", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slower")
    options = parser.parse_args()

    with new_home() as home:
        os.environ |= {name: value for name, value in home.env.items() if name.startswith("ORCH_")}
        paths = find_paths({"ORCH_HOME": home.root})
        home.profile("model", PROFILE.format(model=os.path.abspath(options.model), threads=options.threads))
        current = install(home, paths, "present", options.engine, current=True)
        copy = install(home, paths, "again", options.engine)
        home.serve()
        home.orch("up", "model", "--engine", "upstream")
        home.ready("model")
        gate = BuildGate(
            paths, TOLERATED, False, lambda store: bench_shell(paths, store), lambda text: None, tokens=options.tokens
        )
        equal = series(home, paths, gate, copy, current, options.gates)
        slower: Counter[GateState] = Counter()
        if options.slower:
            slow = install(home, paths, "slower", options.slower)
            slower = series(home, paths, gate, slow, current, options.gates)

    print(f"a copy: {dict(equal)}")
    if slower:
        print(f"the slower one: {dict(slower)}")

    return 0 if equal["accepted"] >= 0.95 * options.gates and slower["accepted"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
