"""Benches in SQLite: kept block by block, read while one runs, one at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from orchestrator.adapters.store.bench_runs import TUNE, BenchStore
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


def test_who_only_reads_finds_what_was_killed_and_makes_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite3"
    store = BenchStore(str(path))
    store.begin(1.0, "pair", "a b", {})
    store.end(store.begin(2.0, TUNE, "c", {}), "done", {"found": 1})
    store.end(store.begin(3.0, "pass", "d", {}), "done", {})
    store.close()
    kept = path.read_bytes()
    with contextlib.closing(BenchStore(str(path), read_only=True)) as reader:
        assert [(each.id, each.state) for each in reader.runs()] == [(3, "done"), (2, "done"), (1, "interrupted")]
        assert [each.id for each in reader.benches()] == [3, 1]
        assert [each.id for each in reader.tunings()] == [2]
        assert [each.result for each in reader.done("pair", TUNE)] == [{"found": 1}]
        assert (reader.newest(), reader.find(None).id, reader.find(1).id) == (3, 3, 1)
        with pytest.raises(OrchError, match="no bench 2"):
            reader.find(2)

    assert path.read_bytes() == kept
    assert not (tmp_path / "bench.sqlite3.lock").exists()


def test_a_file_without_tables_has_no_benches(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite3"
    path.touch()
    with contextlib.closing(BenchStore(str(path), read_only=True)) as reader:
        assert reader.runs() == []

    assert path.read_bytes() == b""


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
