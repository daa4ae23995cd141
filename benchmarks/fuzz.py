"""Sends mutated requests through the gateway, and mutated profiles through their reader; exit code 1 when any is wrong.

python -m benchmarks.fuzz                     # 100 000 requests and 5 000 profiles: about a minute on two cores
python -m benchmarks.fuzz --requests 1000000 --seed 7
"""

from __future__ import annotations

import argparse
import tempfile
import time

import uvloop

from tests.security import fuzz_http, fuzz_profiles

SHOWN = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--profiles", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    return max(requests(args.requests, args.seed), profiles(args.profiles, args.seed))


def requests(count: int, seed: int) -> int:
    began = time.monotonic()
    report = uvloop.run(fuzz_http.fuzz(count, seed))
    took_s = time.monotonic() - began
    statuses = ", ".join(f"{number} x {status}" for status, number in report.statuses.most_common())
    print(f"requests: {report.cases} mutated in {took_s:.0f} s, {report.forwarded} reached the engine ({statuses})")
    print(f"          {len(report.problems)} wrong")
    for problem, data in report.problems[:SHOWN]:
        print(f"  {problem}\n    {data!r}")

    return 1 if report.problems else 0


def profiles(count: int, seed: int) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        refused, problems = fuzz_profiles.fuzz(directory, count, seed)

    took_s = time.monotonic() - began
    print(f"profiles: {count} in {took_s:.0f} s, {refused} refused by name, {len(problems)} wrong")
    for problem, text in problems[:SHOWN]:
        print(f"  {problem}\n    {text!r}")

    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
