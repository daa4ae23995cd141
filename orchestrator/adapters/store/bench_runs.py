"""Benches in SQLite: what each was asked to do, each block as soon as it was measured, and the result.

Nothing is overwritten and little is written: a commit a block. One bench runs at a time, which a lock beside the file
sees to; others read meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from orchestrator.adapters.store.exclusive import exclusive_lock, is_locked
from orchestrator.core.errors import AlreadyRunningError, OrchError

_log = logging.getLogger(__name__)
T = TypeVar("T")
VERSION = 1
TUNE = "tune"
LOOK_S = 0.2
"""For one that only looks whether a bench runs, which holds the lock for a moment."""

_TABLES = (
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        started_s REAL NOT NULL,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        spec TEXT NOT NULL,
        state TEXT NOT NULL,
        result TEXT
    )""",
    """CREATE TABLE events (
        run INTEGER NOT NULL REFERENCES runs (id),
        number INTEGER NOT NULL,
        event TEXT NOT NULL,
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One bench, without its blocks.

    :param kind: `pair`, `pass`, `depth` or `load`; `tune` for a tuning, which is kept among them
    :param state: `running`, `interrupted` or `done`
    """

    id: int
    started_s: float
    kind: str
    title: str
    spec: dict[str, Any]
    state: str
    result: dict[str, Any] | None


class UnreadableRunError(OrchError):
    """Raised of a bench that is kept in a form which this orch does not know: a newer one wrote it, or nobody did."""


@contextlib.contextmanager
def as_kept(kept: KeptRun) -> Iterator[None]:
    """Read what is kept of a bench in the block: any form that it does not have is an error that names the bench.

    :raises UnreadableRunError:
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableRunError(
            f"{'tuning' if kept.kind == TUNE else 'bench'} {kept.id} is kept in a form that this orch cannot read",
            details=(f"{type(error).__name__}: {error}",),
        ) from error


def read_or_none(kept: KeptRun, read: Callable[[KeptRun], T]) -> T | None:
    """Return what `read` returns of a bench; None, and a line in the log, of one that cannot be read."""
    try:
        with as_kept(kept):
            return read(kept)
    except UnreadableRunError as error:
        _log.warning("%s: %s", error.message, error.details[0])
        return None


class BenchStore:
    """The file, opened or made.

    :param read_only: nothing that is kept is changed; the file has to be there. SQLite lays an empty `-wal` and a
        `-shm` beside it where nobody else has it open, and the next writer takes them away
    :raises OrchError: when it cannot be read, or a newer orch wrote it
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        if read_only:
            with self._clear_errors():
                self._connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=1.0)
                self._version()

            return

        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
            self._connection = sqlite3.connect(f"file:{quote(path)}", uri=True, timeout=5.0, isolation_level=None)
            with self._clear_errors():
                self._open()
        except OSError as error:
            raise OrchError(f"{path} cannot be opened: {error.strerror}") from error

    def begin(self, started_s: float, kind: str, title: str, spec: dict[str, Any]) -> int:
        """Add a bench, and return its number."""
        with self._clear_errors():
            row = self._connection.execute(
                "INSERT INTO runs (started_s, kind, title, spec, state) VALUES (?, ?, ?, ?, 'running')",
                (started_s, kind, title, json.dumps(spec)),
            )
            return int(row.lastrowid or 0)

    def add(self, run: int, event: dict[str, Any]) -> None:
        """Keep one thing that happened; it is on the disk when this returns."""
        with self._clear_errors():
            self._connection.execute(
                "INSERT INTO events SELECT ?, coalesce(max(number), 0) + 1, ? FROM events WHERE run = ?",
                (run, json.dumps(event), run),
            )

    def replace_spec(self, run: int, spec: dict[str, Any]) -> None:
        with self._clear_errors():
            self._connection.execute("UPDATE runs SET spec = ? WHERE id = ?", (json.dumps(spec), run))

    def end(self, run: int, state: str, result: dict[str, Any] | None) -> None:
        with self._clear_errors():
            text = json.dumps(result) if result is not None else None
            self._connection.execute("UPDATE runs SET state = ?, result = ? WHERE id = ?", (state, text, run))

    def runs(self) -> list[KeptRun]:
        """Return all benches and tunings, the newest first."""
        return self._kept("TRUE")

    def done(self, *kinds: str) -> list[KeptRun]:
        """Return what of these kinds has come to its end, the newest first."""
        return self._kept(f"state = 'done' AND kind IN ({', '.join('?' * len(kinds))})", *kinds)

    def _kept(self, condition: str, *values: str | int | None, most: int = -1) -> list[KeptRun]:
        query = f"SELECT id, started_s, kind, title, spec, state, result FROM runs WHERE {condition}"
        with self._clear_errors():
            made = self._version() > 0  # one who makes the file may not have made its tables yet
            found = self._connection.execute(f"{query} ORDER BY id DESC LIMIT ?", (*values, most)) if made else ()
            rows = list(found)

        killed = any(row[5] == "running" for row in rows) and not self._in_use()
        return [
            KeptRun(
                number,
                started_s,
                kind,
                title,
                _object(spec) or {},
                "interrupted" if killed and state == "running" else state,
                _object(result) if result else None,
            )
            for number, started_s, kind, title, spec, state, result in rows
        ]

    def _in_use(self) -> bool:
        """Return whether a bench runs: what is kept of one that was killed says so for ever."""
        try:
            return is_locked(f"{self.path}.lock")
        except OSError:
            return True

    def benches(self) -> list[KeptRun]:
        """Return what `orch bench` is about, the newest first."""
        return self._kept("kind != ?", TUNE)

    def tunings(self) -> list[KeptRun]:
        """Return what `orch tune` is about, the newest first."""
        return self._kept("kind = ?", TUNE)

    def newest(self) -> int:
        """Return the number of the newest bench or tuning; 0 where there is none."""
        with self._clear_errors():
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0])

    def find(self, run: int | None) -> KeptRun:
        """Return a bench; the newest when none is named.

        :raises OrchError: when there is none
        """
        found = self._kept("kind != ? AND id = coalesce(?, id)", TUNE, run, most=1)
        if found:
            return found[0]

        if not self.benches():
            raise OrchError("there is no bench yet", hint="`orch bench A B` makes one")

        raise OrchError(f"there is no bench {run}", hint="`orch bench list` shows them")

    def events(self, run: int) -> list[dict[str, Any]]:
        """Return what happened, in order."""
        with self._clear_errors():
            rows = self._connection.execute("SELECT event FROM events WHERE run = ? ORDER BY number", (run,)).fetchall()

        return [json.loads(event) for (event,) in rows]

    def close(self) -> None:
        self._connection.close()

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Be the one bench that runs.

        :raises AlreadyRunningError: when another one is
        """
        return bench_lock(self.path)

    def _open(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        if self._version() == VERSION:
            return

        connection.execute("BEGIN IMMEDIATE")  # two may find a new file at the same time
        try:
            for table in _TABLES if self._version() == 0 else ():
                connection.execute(table)

            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _version(self) -> int:
        """:raises OrchError: when a newer orch wrote the file"""
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            raise OrchError(f"{self.path} was written by a newer orch", hint="upgrade orch, or move the file away")

        return version

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            hint = "move it away to begin anew" if isinstance(error, sqlite3.DatabaseError) else None
            raise OrchError(f"{self.path} cannot be used", details=(str(error),), hint=hint) from error


def bench_lock(path: str, patience_s: float = LOOK_S) -> contextlib.AbstractContextManager[None]:
    """Be the one bench that runs, or see to it that none does.

    :param path: of the benches' file
    :raises AlreadyRunningError: when another one is
    """
    busy = AlreadyRunningError("another bench runs here", hint="wait for its end, or stop it")
    return exclusive_lock(f"{path}.lock", busy, patience_s)


def _object(text: str) -> dict[str, Any] | None:
    """Return an object; None of what is none: a list of benches shows the others all the same."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None

    return found if isinstance(found, dict) else None
