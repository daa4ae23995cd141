from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.store import history as history_store
from orchestrator.adapters.store.history import (
    KEPT_S,
    MAX_TEXT,
    VERSION,
    WAL_BYTES,
    HistoryReader,
    HistoryStore,
    open_history,
    read_idle_energy,
    read_requests,
)
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.errors import OrchError
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.measure.samples import TIERS, HistorySample

NOW_S = 1_800_000_000.0
ONE = RequestRecord(
    started_s=NOW_S, profile="demo", engine="upstream", build="b1", route="/completion", outcome="complete", status=200,
    held_s=0.25, total_s=2.0, first_token_s=0.5, prompt_tokens=100, prompt_ms=50.0, output_tokens=11, output_ms=1000.0,
    draft_tokens=10, draft_accepted=4, replays=1, cached_tokens=50, energy_j=210.5,
)  # fmt: skip
BARE = RequestRecord(NOW_S + 1, None, None, None, "/completion", "error", 503, 9.0, 9.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Below a directory whose name would mean something in a URI."""
    (tmp_path / "a b#?%41").mkdir()
    return str(tmp_path / "a b#?%41" / "history.sqlite3")


def read(path: str) -> list[RequestRecord]:
    return read_requests(path, 0)


def read_samples(path: str) -> list[HistorySample]:
    reader = HistoryReader(path)
    try:
        return reader.samples(0)
    finally:
        reader.close()


def test_where_nothing_was_recorded_nothing_is_read_and_nothing_made(path: str) -> None:
    assert (read_requests(path, 0), read_idle_energy(path, 0)) == ([], [])
    assert not os.path.exists(path)


def test_what_is_written_is_read_while_the_writer_is_open(path: str) -> None:
    store = HistoryStore(path)
    store.write([ONE, BARE], [HistorySample(7, 40.5, None, (100, 200))])
    assert read(path) == [ONE, BARE]
    assert read_samples(path) == [HistorySample(7, 40.5, None, (100, 200))]
    store.close()
    assert read(path) == [ONE, BARE]


def test_a_file_that_exists_is_gone_on_with(path: str) -> None:
    for _ in range(3):
        store = HistoryStore(path)
        store.write([ONE], [])
        store.close()

    assert len(read(path)) == 3


def test_only_the_owner_may_read_any_of_the_files(path: str) -> None:
    with open(path, "wb"):
        os.chmod(path, 0o644)

    store = HistoryStore(path)
    store.write([ONE], [])
    files = [path, path + "-wal", path + "-shm"]
    assert [stat.S_IMODE(os.stat(each).st_mode) for each in files] == [0o600] * 3
    store.close()


def test_a_link_in_its_place_is_not_written_through(path: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"")
    os.symlink(tmp_path / "theirs", path)
    with pytest.raises(OSError, match="symbolic links"):
        open_history(path)

    assert (tmp_path / "theirs").read_bytes() == b""


def test_the_tables_take_no_value_of_another_type(path: str) -> None:
    if not history_store.STRICT:
        pytest.skip(f"SQLite {sqlite3.sqlite_version} has no STRICT tables")

    store = HistoryStore(path)
    with pytest.raises(sqlite3.IntegrityError, match="INTEGER"):
        store.write([replace(ONE, status="many")], [])  # type: ignore[arg-type]

    store.write([ONE], [])
    store.close()
    assert read(path) == [ONE], "and the connection goes on"


def test_a_batch_is_written_whole_or_not_at_all(path: str) -> None:
    store = HistoryStore(path)
    with pytest.raises(sqlite3.IntegrityError):
        store.write([ONE, replace(ONE, route=None)], [])  # type: ignore[arg-type]

    store.close()
    assert read(path) == []


def test_idle_energy_is_added_up_by_the_hour(path: str) -> None:
    store = HistoryStore(path)
    hour = IdleRecord(7200, "demo", "upstream", 100.5, 10.0, 1.0)
    store.write([], [], [hour, replace(hour, hour_s=3600)])
    store.write([], [], [replace(hour, idle_j=20.0)])
    reader = HistoryReader(path)
    assert reader.idle_energy(3600) == [
        replace(hour, hour_s=3600),
        IdleRecord(7200, "demo", "upstream", 120.5, 20.0, 2.0),
    ]
    assert len(reader.idle_energy(3601)) == 1
    store.tidy(now_s=7200.0 + history_store.KEPT_S)
    assert [each.hour_s for each in reader.idle_energy(0)] == [7200]
    reader.close()
    store.close()


def test_a_file_that_an_older_orch_has_left_has_no_energy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(history_store, "_MIGRATIONS", history_store._MIGRATIONS[:2])
        patch.setattr(history_store, "VERSION", 2)
        HistoryStore(path).close()

    reader = HistoryReader(path)
    assert (reader.idle_energy(0), reader.requests(0)) == ([], [])
    reader.close()


def test_a_file_of_a_newer_orch_is_refused_and_left_alone(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE tomorrow (x)")
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.commit()
    connection.close()
    with open(path, "rb") as file:
        before = file.read()

    with pytest.raises(OrchError, match="newer orch") as refused:
        open_history(path)

    assert refused.value.details == (f"version {VERSION + 1}, this orch reads up to {VERSION}",)
    with pytest.raises(OrchError, match="newer orch"):
        HistoryReader(path)

    with open(path, "rb") as file:
        assert file.read() == before

    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_a_file_is_led_through_every_migration(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HistoryStore(path)
    store.write([ONE], [])
    store.close()
    later = (*history_store._MIGRATIONS, ("CREATE TABLE notes (text TEXT)",), ("INSERT INTO notes VALUES ('third')",))
    monkeypatch.setattr(history_store, "_MIGRATIONS", later)
    monkeypatch.setattr(history_store, "VERSION", len(later))
    for _ in range(2):
        HistoryStore(path).close()

    connection = sqlite3.connect(path)
    assert connection.execute("SELECT text FROM notes").fetchall() == [("third",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 2,)
    connection.close()
    assert read(path) == [ONE]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HistoryStore(path)
    store.write([ONE], [])
    store.close()
    broken = (*history_store._MIGRATIONS, ("CREATE TABLE notes (text TEXT)", "CREATE TABLE requests (x)"))
    with monkeypatch.context() as patch:
        patch.setattr(history_store, "_MIGRATIONS", broken)
        patch.setattr(history_store, "VERSION", len(broken))
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            HistoryStore(path)

    HistoryStore(path).close()
    assert read(path) == [ONE]


@pytest.mark.parametrize(
    "content", [b"no database at all, whatever its name says " * 40, b"SQLite format 3\0" + b"?" * 4096]
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path: str, content: bytes) -> None:
    for number in ("", "2"):
        with open(path, "wb") as file:
            file.write(content)

        with pytest.raises(OrchError, match="is damaged") as error:
            HistoryReader(path)

        assert error.value.hint is not None
        store, notice = open_history(path)
        assert notice is not None
        assert f"{path}.bad{number}" in notice
        store.write([ONE], [])
        store.close()
        with open(f"{path}.bad{number}", "rb") as file:
            assert file.read() == content

        assert read(path) == [ONE]


def test_a_page_that_was_overwritten_is_noticed_when_the_file_is_opened(path: str) -> None:
    store = HistoryStore(path)
    store.write([replace(ONE, route=f"/{number}") for number in range(2000)], [])
    store.close()
    with open(path, "r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096 * 3)

    store, notice = open_history(path)
    assert notice is not None
    store.close()
    assert read(path) == []


def test_old_requests_are_deleted_and_no_more_kept_than_allowed(path: str) -> None:
    store = HistoryStore(path)
    store.write([replace(ONE, started_s=NOW_S - KEPT_S - 1), replace(ONE, started_s=NOW_S - KEPT_S + 1)], [])
    store.tidy(NOW_S)
    assert [each.started_s for each in read(path)] == [NOW_S - KEPT_S + 1]
    store.write([replace(ONE, status=number) for number in range(100)], [])
    store.tidy(NOW_S, kept_requests=10)
    assert sorted(each.status for each in read(path)) == list(range(90, 100))
    store.close()


def test_samples_are_thinned_as_they_age(path: str) -> None:
    store = HistoryStore(path)
    start_s = int(NOW_S)
    hours = [HistorySample(start_s + second, 10.0, None, (second,)) for second in range(0, 3 * 3600)]
    store.write([], hours)
    now_s = start_s + 3 * 3600
    store.tidy(now_s)
    store.tidy(now_s)
    samples = read_samples(path)
    assert len(samples) == 3600 + 2 * 360
    assert {each.decode_tok_s for each in samples} == {10.0}
    assert samples[0] == HistorySample(start_s, 10.0, None, (9,))
    store.tidy(now_s + 86_400)
    assert len(read_samples(path)) == 3 * 60
    store.tidy(now_s + TIERS[-1].keep_s)
    assert read_samples(path) == []
    store.close()


def test_the_file_does_not_grow_past_what_is_kept(path: str) -> None:
    store = HistoryStore(path)
    sizes = []
    for _ in range(12):
        store.write([replace(ONE, route="/" * 10_000)] * 2000, [])
        store.tidy(NOW_S, kept_requests=1000)
        sizes.append(os.path.getsize(path))
        assert os.path.getsize(path + "-wal") < WAL_BYTES * 2

    assert len(read(path)[0].route) == MAX_TEXT
    assert sizes[-1] == sizes[-5] < 3 << 20
    store.close()


def test_no_column_could_hold_what_was_asked_or_answered(path: str) -> None:
    HistoryStore(path).close()
    connection = sqlite3.connect(path)
    texts = {
        row[1]
        for table in ("requests", "samples")
        for row in connection.execute(f"PRAGMA table_info({table})")
        if row[2] not in ("INTEGER", "REAL")
    }
    connection.close()
    assert texts == {"profile", "engine", "build", "route", "outcome", "client", "request_id", "used_mib"}


def test_a_file_of_the_first_version_is_read_as_it_is_and_gone_on_with(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(path)
    for statement in history_store._MIGRATIONS[0]:
        connection.execute(statement)

    connection.execute(
        "INSERT INTO requests (started_s, route, outcome, status, held_s, total_s, replays) "
        "VALUES (?, '/completion', 'error', 503, 9.0, 9.0, 0)",
        (NOW_S + 1,),
    )
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    assert read(path) == [BARE]
    store = HistoryStore(path)
    named = replace(ONE, started_s=NOW_S + 2, client="laptop", request_id="r-1", cached_tokens=7)
    store.write([named], [])
    assert read(path) == [BARE, named]
    store.close()


def test_an_older_sqlite_gets_tables_that_it_understands(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuple(
        tuple(each.replace(" STRICT,", "").replace(" STRICT", "") for each in step)
        for step in history_store._MIGRATIONS
    )
    monkeypatch.setattr(history_store, "_MIGRATIONS", plain)
    store = HistoryStore(path)
    store.write([ONE], [HistorySample(1, 1.0, 1.0, (1,))])
    store.close()
    connection = sqlite3.connect(path)
    assert not any("STRICT" in row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"))
    connection.close()
    assert read(path) == [ONE]
