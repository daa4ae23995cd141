"""The course of speed of all profiles, from answers to clients and from benches."""

from __future__ import annotations

import os

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.core.bench.records import spec_from_json
from orchestrator.core.course.benches import marks_of_bench
from orchestrator.core.course.course import Course, courses_of
from orchestrator.core.course.marks import SpeedMark


def read_courses(paths: Paths) -> list[Course]:
    """Return the course of each profile, engine and kind of measurement.

    :raises OrchError: when the benches cannot be read
    """
    store = SpeedMarkStore(paths.speed_marks_file)
    return courses_of([*store.marks(), *_bench_marks(paths.bench_file)], store.accepted())


def _bench_marks(path: str) -> list[SpeedMark]:
    if not os.path.exists(path):
        return []

    store = BenchStore(path)
    try:
        return [
            mark
            for kept in store.benches()
            if kept.kind == "pair" and kept.state == "done" and kept.result is not None
            for mark in marks_of_bench(kept.id, kept.started_s, spec_from_json(kept.spec), kept.result)
        ]
    finally:
        store.close()
