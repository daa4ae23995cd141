"""The courses of speed from what is kept, also where some of that cannot be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.adapters.store.courses import read_courses


@pytest.mark.parametrize("kept", ['{"a": 1}', '{"conditions": [], "a": {}, "b": []}', '{"trunc', "[1]"])
def test_a_bench_that_cannot_be_read_is_in_no_course(tmp_path: Path, kept: str) -> None:
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    store = BenchStore(paths.bench_file)
    store.begin(1.8e9, "pair", "odd", {})
    store.close()
    with closing(sqlite3.connect(paths.bench_file)) as connection, connection:
        connection.execute("UPDATE runs SET spec = ?, result = ?, state = 'done'", (kept, kept))

    assert read_courses(paths) == []
