"""How often `orch verify` finds fault with an engine that draws rightly: the same checks with other seeds, many times.

python -m benchmarks.verify_alarms [ENGINE] [--times 200]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time

from orchestrator.adapters.paths import find_paths
from orchestrator.engines.registry import EngineRegistry
from orchestrator.engines.verify.drawing import SEEDS, check_drawing
from orchestrator.engines.verify.trial import Subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", default="embedded")
    parser.add_argument("--times", type=int, default=200)
    args = parser.parse_args()
    paths = find_paths()
    engine = EngineRegistry(paths).resolve(args.engine)
    subject = Subject(engine.path, engine.capabilities, paths)
    alarms = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        for run in range(args.times):
            seeds = [seed + run * len(SEEDS) for seed in SEEDS]
            checks = asyncio.run(check_drawing(subject, directory, lambda _: None, seeds))
            failed = [check for check in checks if check.ok is False]
            alarms += bool(failed)
            for check in failed:
                print(f"seeds {seeds[0]} to {seeds[-1]}: {check.name}: {check.observed}, expected {check.expected}")

    print(f"{engine.id} {engine.build}: {alarms} of {args.times} with an alarm, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
