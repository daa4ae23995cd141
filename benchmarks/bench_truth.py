"""Whether `orch bench` finds what is there, and nothing else, on a real engine.

    python -m benchmarks.bench_truth [--equal 20] [--delayed 10] [--share 0.05] [--pace-ms 10] [--tokens 48]

The embedded engine with the generated model, on one thread, through a daemon of its own: against itself, and against
itself with each token longer by a known share. Both are behind a relay (`tests/fakes/slow_relay.py`), which gives a
piece each PACE_MS, as the generated model's own millisecond is at the mercy of whatever else runs; with 0 it gives them
as they come, which is for a machine where nothing else does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections import Counter

from tests.support import ROOT, Home, new_home

PATIENCE_S = 1800.0


def relay_script(home: Home, name: str, share: float, pace_ms: float) -> str:
    """Write a program that is the engine behind a relay."""
    words = [sys.executable, str(ROOT / "tests" / "fakes" / "slow_relay.py"), str(share), str(pace_ms)]
    path = home.write(
        f"engines/{name}", f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(words)} "$@"\n'
    )
    os.chmod(path, 0o755)
    return path


def add_relay(home: Home, name: str, share: float, pace_ms: float) -> None:
    """Add the engine behind a relay under a name."""
    home.orch("engines", "add", name, relay_script(home, name, share, pace_ms))


def one_bench(home: Home, a: str, b: str, seed: int, tokens: int, *more: str) -> dict[str, object]:
    words = ["bench", a, b, "--seed", str(seed), "--tokens", str(tokens), "--json", *more]
    found: dict[str, object] = json.loads(home.orch(*words, timeout_s=PATIENCE_S).stdout)
    return found


def series(home: Home, title: str, a: str, b: str, seeds: range, tokens: int) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    for seed in seeds:
        began = time.monotonic()
        found = one_bench(home, a, b, seed, tokens)
        verdicts[str(found["verdict"])] += 1
        print(
            f"{title} {seed + 1:2}: {found['verdict']:10} {found['ratio']} ({found['low']} to {found['high']}) "
            f"{found['blocks']} blocks, {time.monotonic() - began:.0f} s",
            flush=True,
        )

    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--equal", type=int, default=20)
    parser.add_argument("--delayed", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--pace-ms", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--first-seed", type=int, default=0, help="to spread the runs over several processes")
    options = parser.parse_args()

    def seeds(count: int) -> range:
        return range(options.first_seed, options.first_seed + count)

    with new_home() as home:
        home.demo_on_one_thread()
        add_relay(home, "plain", 0.0, options.pace_ms)
        add_relay(home, "delayed", options.share, options.pace_ms)
        home.serve("demo")
        home.ready("demo")
        equal = series(home, "equal", "demo@plain", "demo@plain", seeds(options.equal), options.tokens)
        delayed = series(home, "delayed", "demo@plain", "demo@delayed", seeds(options.delayed), options.tokens)

    false = equal["a_faster"] + equal["b_faster"]
    print(f"equal: {dict(equal)}; a difference that is not there in {false} of {options.equal}")
    print(f"delayed by {options.share:.0%}: {dict(delayed)}; found in {delayed['a_faster']} of {options.delayed}")
    return 0 if false <= options.equal // 20 and delayed["a_faster"] >= 0.9 * options.delayed else 1


if __name__ == "__main__":
    raise SystemExit(main())
