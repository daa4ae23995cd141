"""The course of speed of all profiles, from answers to clients and from benches."""

from __future__ import annotations

import contextlib
import os

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import BenchStore, KeptRun, read_or_none
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.core.bench.records import spec_from_json
from orchestrator.core.course.benches import marks_of_bench
from orchestrator.core.course.course import Course, courses_of
from orchestrator.core.course.marks import SpeedMark


def read_courses(paths: Paths, benches: BenchStore | None = None) -> list[Course]:
    """Return the course of each profile, engine and kind of measurement. Nothing is changed.

    :param benches: that are open; None has them opened where there are some
    :raises OrchError: when the benches cannot be read
    """
    kept = SpeedMarkStore(paths.speed_marks_file).read()
    marks = _read_bench_marks(paths.bench_file) if benches is None else _bench_marks(benches)
    return courses_of([*kept.marks, *marks], kept.accepted)


def _read_bench_marks(path: str) -> list[SpeedMark]:
    if not os.path.exists(path):
        return []

    with contextlib.closing(BenchStore(path, read_only=True)) as benches:
        return _bench_marks(benches)


def _bench_marks(benches: BenchStore) -> list[SpeedMark]:
    runs = [each for each in benches.done("pair") if each.result]
    return [mark for each in runs for mark in read_or_none(each, _marks) or ()]


def _marks(kept: KeptRun) -> list[SpeedMark]:
    return list(marks_of_bench(kept.id, kept.started_s, spec_from_json(kept.spec), kept.result or {}))
