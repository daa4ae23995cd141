"""The thread that writes the history: what it survives, and what it says of what it lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.store import history as history_store
from orchestrator.adapters.store.history import HistoryReader, HistoryStore
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.measure.samples import HistorySample
from orchestrator.daemon.telemetry import history as module
from orchestrator.daemon.telemetry.history import MAX_BACKLOG, HistoryWriter, record_of
from orchestrator.gateway.contract import Finished
from tests.support import until

NOW_S = 1_800_000_000.0
ONE = RequestRecord(NOW_S, "demo", "upstream", "b1", "/completion", "complete", 200, 0.0, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "history.sqlite3")


@pytest.fixture
def history(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HistoryWriter]:
    monkeypatch.setattr(module, "BATCH_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    made = HistoryWriter(path, lambda: NOW_S)
    yield made
    assert made.close(10.0)


def count(path: str) -> int:
    try:
        reader = HistoryReader(path)
    except FileNotFoundError:
        return 0

    try:
        return len(reader.requests(0))
    finally:
        reader.close()


def dropped(history: HistoryWriter, count: int) -> bool:
    return history.dropped == count


def test_what_was_given_is_there_after_closing(history: HistoryWriter, path: str) -> None:
    for _ in range(500):
        history.add_request(ONE)

    history.add_sample(HistorySample(int(NOW_S), 40.0, None, (1,)))
    assert history.close(10.0)
    assert count(path) == 500
    assert history.dropped == 0


def test_without_a_request_there_is_neither_a_thread_nor_a_file(path: str) -> None:
    before = threading.active_count()
    history = HistoryWriter(path)
    assert threading.active_count() == before
    assert history.close()
    assert not os.path.exists(path)


def test_an_opened_history_has_its_file_before_the_first_row(history: HistoryWriter, path: str) -> None:
    assert history.open(10.0)
    assert os.path.exists(path)
    assert count(path) == 0
    history.add_request(ONE)
    assert history.close(10.0)
    assert (count(path), history.dropped) == (1, 0)


def test_a_disk_that_does_not_answer_holds_up_the_start_for_a_moment_alone(
    history: HistoryWriter, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    opened = history_store.open_history

    def slow(path: str) -> tuple[HistoryStore, str | None]:
        assert go.wait(30)
        return opened(path)

    monkeypatch.setattr(module, "open_history", slow)
    assert not history.open(0.05)
    history.add_request(ONE)
    go.set()
    assert history.open(10.0)
    assert history.close(10.0)
    assert count(path) == 1


def test_what_comes_after_closing_is_counted(history: HistoryWriter, path: str) -> None:
    history.add_request(ONE)
    assert history.close(10.0)
    history.add_request(ONE)
    assert (count(path), history.dropped) == (1, 1)


def test_a_disk_that_takes_nothing_holds_nobody_up_and_the_backlog_is_bounded(
    history: HistoryWriter, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, go = threading.Event(), threading.Event()
    write = HistoryStore.write

    def slow(self: HistoryStore, *args: object) -> None:
        stuck.set()
        assert go.wait(30)
        write(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(HistoryStore, "write", slow)
    history.add_request(ONE)
    assert stuck.wait(30)
    for _ in range(MAX_BACKLOG + 100):
        history.add_request(ONE)

    assert history.dropped == 100
    assert not history.close(0.05), "it says that the disk has not taken it"
    go.set()
    assert history.close(30.0)
    assert count(path) == MAX_BACKLOG + 1


def test_a_full_disk_costs_rows_that_are_counted_and_said_once(
    history: HistoryWriter, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    history.add_request(ONE)
    until(lambda: count(path) == 1, "the first row is there")
    store = history._store
    assert store is not None
    # SQLite's own limit gives the error that a full disk gives.
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(1, 4):
        for _ in range(600):
            history.add_request(ONE)

        until(partial(dropped, history, number * 600), "the rows are dropped")

    store._connection.execute("PRAGMA max_page_count = 100000")
    history.add_request(ONE)
    until(lambda: count(path) == 2, "it is written again")
    assert history.close(10.0)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        "requests are not recorded: database or disk is full",
        "the history is written again; 1800 rows were not recorded",
    ]


def test_a_damaged_file_is_set_aside_when_the_daemon_starts(
    history: HistoryWriter, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).write_bytes(b"rubbish " * 1000)
    history.add_request(ONE)
    until(lambda: os.path.exists(path + ".bad"), "it is set aside")
    assert history.close(10.0)
    assert count(path) == 1
    assert history.dropped == 0
    assert "is kept as" in caplog.text


def test_a_file_that_is_damaged_while_it_is_written_is_replaced(
    history: HistoryWriter, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    history.add_request(ONE)
    until(lambda: count(path) == 1, "the first row is there")
    store = history._store
    assert store is not None
    connection = store._connection

    def all_in_the_file() -> bool:
        with contextlib.suppress(sqlite3.OperationalError):  # its thread is still tidying
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA shrink_memory")  # so that it reads the pages again
            return True

        return False

    until(all_in_the_file, "nothing is left in the write-ahead log")
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(path) - 4096))

    def written() -> bool:
        history.add_request(ONE)
        return os.path.exists(path + ".bad") and os.path.exists(path) and count(path) > 0

    until(written, "a new file is written")
    assert "is damaged" in caplog.text


def test_a_newer_file_is_not_touched_and_the_daemon_goes_on(
    history: HistoryWriter, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {history_store.VERSION + 1}")
    connection.commit()
    connection.close()
    before = Path(path).read_bytes()
    for number in range(1, 4):
        history.add_request(ONE)
        until(partial(dropped, history, number), "the row is dropped")

    assert Path(path).read_bytes() == before
    assert caplog.text.count("written by a newer orch") == 1
    assert f"version {history_store.VERSION + 1}" in caplog.text
    os.rename(path, path + ".newer")
    history.add_request(ONE)
    until(lambda: count(path) == 1, "once it is moved away, a new one is begun")


def test_a_file_that_somebody_deleted_is_begun_anew(history: HistoryWriter, path: str) -> None:
    history.add_request(ONE)
    until(lambda: count(path) == 1, "the first row is there")
    for name in (path, path + "-wal", path + "-shm"):
        os.unlink(name)

    history.add_request(ONE)
    until(lambda: count(path) == 1, "the second row is in a new file")


def test_a_directory_that_cannot_be_written_costs_the_history_alone(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    history = HistoryWriter(os.path.join(path, "no", "such", "directory"))
    history.add_request(ONE)
    until(lambda: history.dropped == 1, "the row is dropped")
    assert history.close(10.0)
    assert "No such file or directory" in caplog.text


def test_the_start_of_a_request_is_told_by_the_wall_clock() -> None:
    finished = Finished(
        instance="s.1", route="/completion", status=200, outcome="complete", held_s=0.5, first_token_s=0.7, total_s=3.0,
        started=997.0, profile="demo",
    )  # fmt: skip
    record = record_of(finished, now_s=NOW_S, monotonic_s=1000.0)
    assert (record.started_s, record.total_s, record.held_s) == (NOW_S - 3.0, 3.0, 0.5)
    assert (record.profile, record.first_token_s, record.output_tokens) == ("demo", 0.7, None)


def test_a_row_of_the_history_has_each_field_of_the_request_under_its_name() -> None:
    finished = Finished(
        id=7, route="/completion", outcome="complete", started=997.0, held_s=0.25, first_token_s=0.5000004, total_s=3.0,
        instance="s.1", profile="demo", engine="upstream", build="b1", status=200, replays=1, prompt_tokens=2,
        prompt_ms=3.5, output_tokens=4, output_ms=5.5, draft_tokens=6, draft_accepted=5, depth_tokens=9,
        client="laptop", request_id="r-1", cached_tokens=3,
    )  # fmt: skip
    assert asdict(record_of(finished, now_s=NOW_S, monotonic_s=1000.0)) == {
        "started_s": NOW_S - 3.0, "profile": "demo", "engine": "upstream", "build": "b1", "route": "/completion",
        "outcome": "complete", "status": 200, "held_s": 0.25, "total_s": 3.0, "first_token_s": 0.5, "prompt_tokens": 2,
        "prompt_ms": 3.5, "output_tokens": 4, "output_ms": 5.5, "draft_tokens": 6, "draft_accepted": 5, "replays": 1,
        "client": "laptop", "request_id": "r-1", "cached_tokens": 3, "energy_j": None,
    }  # fmt: skip
