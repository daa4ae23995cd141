"""The history: one row a request, thinned samples and idle energy by the hour, in one SQLite file of bounded size.

No column holds what was asked or answered. Content that cannot be read is kept aside as `.bad` (then `.bad2`, ...); a
file of a newer orch is refused and left alone. One thread writes (`daemon/telemetry/history.py`); readers open it
read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, fields
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import quote

from orchestrator.adapters.store.state_file import free_name
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.errors import OrchError
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.measure.samples import TIERS, HistorySample, thin, thinned_before

KEPT_REQUESTS = 100_000
KEPT_S = 90 * 86_400
MAX_BYTES = 128 << 20
"""The largest file that SQLite makes. So many requests are 20 MiB, and 110 with the longest names."""

WAL_BYTES = 4 << 20
CACHE_KIB = 256
"""SQLite's own is 2 MiB, and fills; rows are added at the end and read at a restart."""

MAX_TEXT = 200

STRICT = " STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""CREATE TABLE requests (
            id INTEGER PRIMARY KEY,
            started_s REAL NOT NULL,
            profile TEXT,
            engine TEXT,
            build TEXT,
            route TEXT NOT NULL,
            outcome TEXT NOT NULL,
            status INTEGER NOT NULL,
            held_s REAL NOT NULL,
            total_s REAL NOT NULL,
            first_token_s REAL,
            prompt_tokens INTEGER,
            prompt_ms REAL,
            output_tokens INTEGER,
            output_ms REAL,
            draft_tokens INTEGER,
            draft_accepted INTEGER,
            replays INTEGER NOT NULL
        ){STRICT}""",
        "CREATE INDEX requests_started ON requests (started_s)",
        f"""CREATE TABLE samples (
            step_s INTEGER NOT NULL,
            at_s INTEGER NOT NULL,
            decode_tok_s REAL,
            prompt_tok_s REAL,
            used_mib TEXT NOT NULL,
            PRIMARY KEY (step_s, at_s)
        ){STRICT}{"," if STRICT else ""} WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE requests ADD COLUMN client TEXT",
        "ALTER TABLE requests ADD COLUMN request_id TEXT",
    ),
    (
        "ALTER TABLE requests ADD COLUMN cached_tokens INTEGER",
        "ALTER TABLE requests ADD COLUMN energy_j REAL",
        f"""CREATE TABLE idle_energy (
            hour_s INTEGER NOT NULL,
            profile TEXT NOT NULL,
            engine TEXT NOT NULL,
            idle_j REAL NOT NULL,
            idle_s REAL NOT NULL,
            unknown_s REAL NOT NULL,
            PRIMARY KEY (hour_s, profile, engine)
        ){STRICT}{"," if STRICT else ""} WITHOUT ROWID""",
    ),
)
"""The statements from each version of the file to the next; `PRAGMA user_version` counts the versions."""

VERSION = len(_MIGRATIONS)

_COLUMNS = tuple(field.name for field in fields(RequestRecord))
_ADDED = {"client": 2, "request_id": 2, "cached_tokens": 3, "energy_j": 3}
"""The version of the file in which a column was added; the others were there from the first."""

_values = attrgetter(*_COLUMNS)
_INSERT = f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_ADD_IDLE = """INSERT INTO idle_energy VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hour_s, profile, engine) DO UPDATE SET
    idle_j = idle_j + excluded.idle_j, idle_s = idle_s + excluded.idle_s, unknown_s = unknown_s + excluded.unknown_s"""
_ENERGY_VERSION = 3
"""The version of the file in which `idle_energy` was added."""

_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


Row = TypeVar("Row", RequestRecord, IdleRecord)


class DamagedHistory(OrchError):
    """The file is not a database, or one that contradicts itself."""


class HistoryStore:
    """The writer's connection. Used from one thread.

    :raises OrchError: when a newer orch wrote the file
    :raises DamagedHistory: when it cannot be read
    :raises sqlite3.Error, OSError: when it cannot be opened or made
    """

    def __init__(self, path: str) -> None:
        self.path = path
        _make_private_file(path)
        self._connection = _connect(f"file:{quote(path)}")
        try:
            with raise_damaged(path):
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def write(
        self,
        requests: Sequence[RequestRecord],
        samples: Sequence[HistorySample],
        idle: Sequence[IdleRecord] = (),
    ) -> None:
        """Add rows, all or none of them; idle energy is added to that of its hour.

        :raises DamagedHistory: when the file turns out to be damaged
        :raises sqlite3.Error: when the disk is full or does not take it
        """
        rows = [tuple(map(_clipped, _values(each))) for each in requests]
        points = [_sample_row(TIERS[0].step_s, each) for each in samples]
        with raise_damaged(self.path), self._transaction() as connection:
            connection.executemany(_INSERT, rows)
            connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)", points)
            connection.executemany(_ADD_IDLE, [tuple(map(_clipped, astuple(each))) for each in idle])

    def tidy(self, now_s: float, *, kept_requests: int = KEPT_REQUESTS) -> None:
        """Thin out what has aged, and delete what is too old or too many.

        :raises DamagedHistory, sqlite3.Error: as `write`
        """
        with raise_damaged(self.path), self._transaction() as connection:
            connection.execute("DELETE FROM requests WHERE started_s < ?", (now_s - KEPT_S,))
            connection.execute("DELETE FROM idle_energy WHERE hour_s < ?", (now_s - KEPT_S,))
            connection.execute(
                "DELETE FROM requests WHERE id <= (SELECT id FROM requests ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (kept_requests,),
            )
            for number, tier in enumerate(TIERS):
                self._thin(connection, number, tier.step_s, thinned_before(number, now_s))

    def is_in_place(self) -> bool:
        """Return whether the path still leads to the file that is written: somebody may have deleted or moved it."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False

        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        self._connection.close()

    def _thin(self, connection: sqlite3.Connection, number: int, step_s: int, before_s: int) -> None:
        if number + 1 < len(TIERS):
            rows = connection.execute(
                "SELECT at_s, decode_tok_s, prompt_tok_s, used_mib FROM samples WHERE step_s = ? AND at_s < ? "
                "ORDER BY at_s",
                (step_s, before_s),
            )
            wider_s = TIERS[number + 1].step_s
            points = [_sample_row(wider_s, each) for each in thin(map(_sample, rows), wider_s)]
            connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)", points)

        connection.execute("DELETE FROM samples WHERE step_s = ? AND at_s < ?", (step_s, before_s))

    def _open(self) -> None:
        connection = self._connection
        check_version(connection, self.path)
        found = os.stat(self.path)
        self._identity = (found.st_dev, found.st_ino)
        # With a log, a crash at any moment leaves the last commit or the one before it; NORMAL syncs at checkpoints.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {MAX_BYTES // page_bytes}")
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise DamagedHistory(f"{self.path} is damaged", details=(str(answer),))

        with self._transaction():
            version = _version(connection)
            for statement in (each for migration in _MIGRATIONS[version:] for each in migration):
                connection.execute(statement)

            connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def open_history(path: str) -> tuple[HistoryStore, str | None]:
    """Open the writer's store; with a notice for people when a damaged file was set aside for it.

    :raises OrchError: when a newer orch wrote the file
    :raises sqlite3.Error, OSError: when it cannot be opened or made
    """
    try:
        return HistoryStore(path), None
    except DamagedHistory as error:
        aside = set_aside(path)
        notice = f"{error.message} ({'; '.join(error.details)}) and is kept as {aside}; a new one is begun"
        return HistoryStore(path), notice


def set_aside(path: str) -> str:
    """Move a damaged file and its log out of the way.

    :return: where it is now
    """
    aside = free_name(f"{path}.bad")
    os.replace(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, aside + suffix)

    return aside


class HistoryReader:
    """Reads the file while the daemon writes it, or when there is none. Nothing is changed.

    :raises FileNotFoundError: when nothing was ever recorded
    :raises OrchError: when it cannot be read
    """

    def __init__(self, path: str) -> None:
        os.stat(path)
        self._path = path
        with self._clear_errors():
            self._connection = _connect(f"file:{quote(path)}?mode=ro")
            try:
                with raise_damaged(path):
                    self._version = check_version(self._connection, path)
            except BaseException:
                self._connection.close()
                raise

    def requests(self, since_s: float) -> list[RequestRecord]:
        """Return the requests that began at that Unix time or later, oldest first."""
        # The file may be one that an older orch has left.
        columns = (name if _ADDED.get(name, 1) <= self._version else f"NULL AS {name}" for name in _COLUMNS)
        query = f"SELECT {', '.join(columns)} FROM requests WHERE started_s >= ? ORDER BY started_s"
        return [RequestRecord(*row) for row in self._rows(query, since_s)]

    def samples(self, since_s: float) -> list[HistorySample]:
        """Return the samples of that Unix time or later, of all steps together, oldest first."""
        query = "SELECT at_s, decode_tok_s, prompt_tok_s, used_mib FROM samples WHERE at_s >= ? ORDER BY at_s"
        return [_sample(row) for row in self._rows(query, since_s)]

    def idle_energy(self, since_s: float) -> list[IdleRecord]:
        """Return the idle energy of the hours that began at that Unix time or later, oldest first."""
        if self._version < _ENERGY_VERSION:
            return []

        query = "SELECT * FROM idle_energy WHERE hour_s >= ? ORDER BY hour_s, profile, engine"
        return [IdleRecord(*row) for row in self._rows(query, since_s)]

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, since_s: float) -> list[tuple[Any, ...]]:
        with self._clear_errors(), raise_damaged(self._path):
            return self._connection.execute(query, (since_s,)).fetchall() if self._version else []

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except DamagedHistory as error:
            error.hint = "the daemon sets it aside and begins a new one when it starts"
            raise
        except sqlite3.Error as error:
            raise OrchError(f"{self._path} cannot be read", details=(str(error),)) from error


def read_requests(path: str, since_s: float) -> list[RequestRecord]:
    """Return the requests that began at that Unix time or later, oldest first; none when none was ever recorded.

    :raises OrchError: when the history cannot be read
    """
    return _read(path, lambda reader: reader.requests(since_s))


def read_idle_energy(path: str, since_s: float) -> list[IdleRecord]:
    """Return the idle energy of the hours that began at that Unix time or later, as `read_requests` does requests."""
    return _read(path, lambda reader: reader.idle_energy(since_s))


def _read(path: str, ask: Callable[[HistoryReader], list[Row]]) -> list[Row]:
    try:
        reader = HistoryReader(path)
    except FileNotFoundError:
        return []

    with contextlib.closing(reader):
        return ask(reader)


@contextlib.contextmanager
def raise_damaged(path: str) -> Iterator[None]:
    """Turn SQLite's own errors about a damaged file into `DamagedHistory`.

    :raises DamagedHistory: when the file contradicts itself
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the code, what is above it the detail (sqlite.org/rescode.html).
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _DAMAGE:
            raise

        if not STRICT and "STRICT" in str(error):
            raise OrchError(
                f"{path} needs SQLite 3.37 or newer",
                details=(f"this Python has {sqlite3.sqlite_version}",),
                hint="use the Python that wrote it, or move the file away to begin a new history",
            ) from error

        raise DamagedHistory(f"{path} is damaged", details=(str(error),)) from error


def check_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the file's version, 0 for one that has no tables yet.

    :raises OrchError: when a newer orch wrote the file
    """
    version = _version(connection)
    if version > VERSION:
        raise OrchError(
            f"{path} was written by a newer orch",
            details=(f"version {version}, this orch reads up to {VERSION}",),
            hint="upgrade orch, or move the file away to begin a new history",
        )

    return version


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _connect(uri: str) -> sqlite3.Connection:
    # Transactions are begun and ended here, not by the module. The thread that closes is not the one that opened.
    return sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)


def _make_private_file(path: str) -> None:
    """Make the file for its owner alone: SQLite gives its log and its index the same mode.

    :raises DamagedHistory: when something else is in its place: a directory, a FIFO
    :raises OSError: ELOOP for a link: what it leads to is not ours to write
    """
    if os.path.lexists(path) and not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISLNK(mode):
        raise DamagedHistory(f"{path} is no file", details=(stat.filemode(mode),))  # SQLite waits for ever for a FIFO

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _clipped(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _sample_row(step_s: int, sample: HistorySample) -> tuple[object, ...]:
    return (step_s, sample.at_s, sample.decode_tok_s, sample.prompt_tok_s, json.dumps(sample.used_mib))


def _sample(row: tuple[Any, ...]) -> HistorySample:
    at_s, decode_tok_s, prompt_tok_s, used_mib = row
    return HistorySample(at_s, decode_tok_s, prompt_tok_s, tuple(json.loads(used_mib)))
