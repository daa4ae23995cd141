"""Benches in SQLite: kept block by block, read while one runs, one at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.core.errors import AlreadyRunningError, OrchError


def test_what_was_kept_comes_back_in_order(tmp_path: Path) -> None:
    store = BenchStore(str(tmp_path / "bench.sqlite3"))
    run = store.begin(1000.0, "pair", "a b", {"seed": 1})
    other = store.begin(1001.0, "pair", "c d", {})
    for number in range(3):
        store.add(run, {"number": number})

    store.add(other, {"number": 9})
    store.end(run, "interrupted", {"blocks": 3})
    store.close()

    again = BenchStore(str(tmp_path / "bench.sqlite3"))
    assert [each.id for each in again.runs()] == [other, run]
    assert [each["number"] for each in again.events(run)] == [0, 1, 2]
    found = again.find(run)
    assert (found.state, found.spec, found.result) == ("interrupted", {"seed": 1}, {"blocks": 3})
    assert again.find(None).id == other
    with again.lock():
        assert again.find(other).state == "running"

    assert again.find(other).state == "interrupted", "nobody runs it"
    again.close()


def test_no_bench_and_an_unknown_one_are_told(tmp_path: Path) -> None:
    store = BenchStore(str(tmp_path / "bench.sqlite3"))
    with pytest.raises(OrchError, match="no bench yet"):
        store.find(None)

    store.begin(1.0, "pair", "a b", {})
    with pytest.raises(OrchError, match="no bench 7"):
        store.find(7)

    store.close()


def test_one_bench_runs_at_a_time_and_others_read_meanwhile(tmp_path: Path) -> None:
    first, second = (BenchStore(str(tmp_path / "bench.sqlite3")) for _ in range(2))
    with first.lock():
        with pytest.raises(AlreadyRunningError), second.lock():
            pass

        assert second.runs() == []

    with second.lock():
        pass

    first.close()
    second.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OrchError, match="newer orch"):
        BenchStore(str(path))


def test_what_is_no_database_is_told_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite3"
    path.write_text("something else " * 100)
    with pytest.raises(OrchError, match="cannot be used"):
        BenchStore(str(path))

    assert path.read_text().startswith("something else")


def _open(path: str) -> None:
    BenchStore(path).close()


def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open, args=(str(tmp_path / "bench.sqlite3"),)) for _ in range(8)]
    for process in processes:
        process.start()

    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
