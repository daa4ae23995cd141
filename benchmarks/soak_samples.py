"""Samples of what the daemon of a soak holds while nothing runs, and a check that they stay the same."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from tests.faults.invariants import POOL_THREADS, SETTLE_S
from tests.faults.lab import Lab, descriptors

RSS_LIMIT = 0.05
"""Growth of the resident memory from the first counted sample to the last, by a linear fit, as a share of the first."""

RSS_FROM_SAMPLES = 8
"""A fit through fewer says nothing."""

COUNTED = ("run", "state", "cache", "data", "tmp")
"""Directories of the home in which the daemon may leave files; `tmp` is its TMPDIR."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon with no engine, no request and no client.

    :param at_s: since the soak began
    :param files: below the home, without logs and events, which grow until they rotate, and the margins, whose file is
        there from the first climb on
    """

    cycle: int
    at_s: float
    rss_kib: int
    descriptors: Counter[str]
    threads: int
    zombies: int
    files: frozenset[str]

    @property
    def sockets(self) -> int:
        return sum(count for name, count in self.descriptors.items() if name.startswith("socket"))


def take(lab: Lab, cycle: int, at_s: float) -> Sample:
    """Look at a daemon that has just stopped its engine; what is on its way out gets the time for that."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        sample = look(lab, cycle, at_s)
        if (sample.descriptors == lab.baseline and not sample.zombies) or time.monotonic() >= deadline:
            return sample

        time.sleep(0.05)


def look(lab: Lab, cycle: int, at_s: float) -> Sample:
    assert lab.daemon is not None
    process = psutil.Process(lab.daemon.pid)
    return Sample(
        cycle=cycle,
        at_s=at_s,
        rss_kib=process.memory_info().rss >> 10,
        descriptors=descriptors(process.pid),
        threads=process.num_threads(),
        zombies=sum(child.status() == psutil.STATUS_ZOMBIE for child in process.children()),
        files=frozenset(_files(lab.root)),
    )


def problems(samples: Sequence[Sample], baseline_threads: int) -> list[str]:
    """Return what did not stay the same from the first of these samples on."""
    if not samples:
        return []

    first = samples[0]
    found = []
    for sample in samples:
        place = f"after cycle {sample.cycle}"
        if sample.descriptors != first.descriptors:
            now, then = dict(sample.descriptors - first.descriptors), dict(first.descriptors - sample.descriptors)
            found.append(f"{place}: descriptors changed: {now} more, {then} fewer than after cycle {first.cycle}")

        if sample.threads > baseline_threads + POOL_THREADS:
            found.append(f"{place}: {sample.threads} threads; {baseline_threads} at first, {POOL_THREADS} in the pool")

        if sample.zombies:
            found.append(f"{place}: {sample.zombies} zombies")

        if sample.files != first.files:
            found.append(f"{place}: files changed: {sorted(sample.files ^ first.files)}")

    if len(samples) >= RSS_FROM_SAMPLES and (growth := rss_growth(samples)) >= RSS_LIMIT:
        found.append(f"resident memory grew by {growth:.1%} from cycle {first.cycle} to {samples[-1].cycle}")

    return found


def rss_growth(samples: Sequence[Sample]) -> float:
    """The least-squares line through the samples: its rise from the first to the last, as a share of its begin."""
    cycles = [sample.cycle for sample in samples]
    sizes = [sample.rss_kib for sample in samples]
    mean_cycle, mean_size = sum(cycles) / len(cycles), sum(sizes) / len(sizes)
    spread = sum((cycle - mean_cycle) ** 2 for cycle in cycles)
    together = sum((cycle - mean_cycle) * (size - mean_size) for cycle, size in zip(cycles, sizes, strict=True))
    slope = together / spread if spread else 0.0
    return slope * (cycles[-1] - cycles[0]) / (mean_size + slope * (cycles[0] - mean_cycle))


def _files(root: str) -> Iterator[str]:
    for name in COUNTED:
        for directory, _, files in os.walk(os.path.join(root, name)):
            if os.path.basename(directory) != "logs":
                yield from (
                    os.path.relpath(os.path.join(directory, file), root)
                    for file in files
                    if not file.startswith(("events.jsonl", "margins.json"))
                )
