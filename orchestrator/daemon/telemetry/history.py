"""Writes the history from a thread of its own: a slow, full or broken disk never reaches the loop, nor a request.

What is given is written within a second, or counted as dropped and said.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import fields
from time import monotonic, time

from orchestrator.adapters.store.history import DamagedHistory, HistoryStore, open_history
from orchestrator.adapters.writer_thread import WriterThread
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.errors import OrchError
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.measure.samples import HistorySample
from orchestrator.gateway.contract import Finished

_log = logging.getLogger(__name__)

MAX_BACKLOG = 2000
"""Rows that wait for the disk: some hundred bytes each."""

BATCH_S = 0.2
SAMPLES_S = 10.0
"""How long rows are gathered for one transaction; samples alone are in no hurry, and an idle disk may sleep."""

TIDY_EVERY_S = 60.0
RETRY_S = 10.0
"""Between tries while the file cannot be opened."""


class HistoryWriter:
    """Queues rows from the loop for the thread that owns the file. The thread starts with `open`, or else with the
    first row.

    :param clock: Unix time
    :ivar dropped: rows that were not recorded
    """

    def __init__(self, path: str, clock: Callable[[], float] = time) -> None:
        self._path = path
        self._clock = clock
        self._requests: list[RequestRecord] = []
        self._samples: list[HistorySample] = []
        self._idle: list[IdleRecord] = []
        self._writer = WriterThread("history", self._run)
        self._begun = threading.Event()
        self._dropped = 0
        # The rest belongs to the thread.
        self._store: HistoryStore | None = None
        self._open_at = 0.0
        self._tidy_at = 0.0
        self._failing = False

    @property
    def dropped(self) -> int:
        return self._dropped

    def open(self, patience_s: float = 2.0) -> bool:
        """Open or make the file before there is a row for it; False when the disk did not answer in time. Blocks.

        What is wrong with the file is said in the log, and tried again with the rows.
        """
        with self._writer.condition:
            started = self._writer.start()

        return started and self._begun.wait(patience_s)

    def add_request(self, record: RequestRecord) -> None:
        """Queue a row; never blocks and never raises."""
        with self._writer.condition:
            if self._has_room():
                self._requests.append(record)
                self._writer.condition.notify()

    def add_sample(self, sample: HistorySample) -> None:
        """Queue a row; never blocks and never raises."""
        with self._writer.condition:
            if self._has_room():
                self._samples.append(sample)
                self._writer.condition.notify()

    def add_idle(self, record: IdleRecord) -> None:
        """Queue a row; never blocks and never raises."""
        with self._writer.condition:
            if self._has_room():
                self._idle.append(record)
                self._writer.condition.notify()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is left, at most this long; False when the disk did not take it in time. Blocks."""
        return self._writer.close(timeout_s)

    def _has_room(self) -> bool:
        full = len(self._requests) + len(self._samples) + len(self._idle) >= MAX_BACKLOG
        if self._writer.closing or full or not self._writer.start():
            self._dropped += 1
            return False

        return True

    # In the thread.

    def _run(self) -> None:
        try:
            self._opened()
        except (sqlite3.Error, OSError, OrchError) as error:
            self._failed(error)

        self._begun.set()
        while True:
            requests, samples, idle, last = self._gathered()
            if requests or samples or idle:
                self._write(requests, samples, idle)

            if last:
                break

        if self._store is not None:
            self._store.close()

    def _gathered(self) -> tuple[list[RequestRecord], list[HistorySample], list[IdleRecord], bool]:
        """Return the rows that came in within a moment, and whether they are the last."""
        with self._writer.condition:
            self._writer.condition.wait_for(
                lambda: self._writer.closing or self._requests or self._samples or self._idle
            )
            self._writer.condition.wait_for(lambda: self._writer.closing or self._requests, SAMPLES_S)
            self._writer.condition.wait_for(lambda: self._writer.closing, BATCH_S)
            requests, samples, idle = self._requests[:], self._samples[:], self._idle[:]
            self._requests.clear()
            self._samples.clear()
            self._idle.clear()
            return requests, samples, idle, self._writer.closing

    def _write(self, requests: list[RequestRecord], samples: list[HistorySample], idle: list[IdleRecord]) -> None:
        unwritten = len(requests) + len(samples) + len(idle)
        try:
            store = self._opened()
            if store is not None:
                store.write(requests, samples, idle)
                unwritten = 0
                if monotonic() >= self._tidy_at:
                    self._tidy_at = monotonic() + TIDY_EVERY_S
                    store.tidy(self._clock())
        except (sqlite3.Error, OSError, OrchError) as error:
            self._failed(error)

        with self._writer.condition:
            self._dropped += unwritten
            dropped = self._dropped

        if self._failing and not unwritten:
            self._failing = False
            _log.warning("the history is written again; %d rows were not recorded", dropped)

    def _opened(self) -> HistoryStore | None:
        if self._store is not None and not self._store.is_in_place():
            _log.warning("%s is gone; a new history is begun", self._path)
            self._let_go()

        if self._store is None and monotonic() >= self._open_at:
            self._open_at = monotonic() + RETRY_S
            self._store, notice = open_history(self._path)
            if notice:
                _log.warning("%s", notice)

        return self._store

    def _failed(self, error: Exception) -> None:
        if not self._failing:  # the first of a series
            self._failing = True
            details = "; ".join(error.details) if isinstance(error, OrchError) else ""
            _log.warning("requests are not recorded: %s%s", error, f" ({details})" if details else "")

        if isinstance(error, DamagedHistory):
            self._let_go()  # it is set aside when it is opened anew
            self._open_at = 0.0

    def _let_go(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


_OWN = ("started_s", "energy_j")
_SHARED = tuple(field.name for field in fields(RequestRecord) if field.name not in _OWN)


def record_of(finished: Finished, now_s: float, monotonic_s: float) -> RequestRecord:
    """Return a request's row for the history: the fields of the same name, with times to the microsecond.

    :param now_s: Unix time at the monotonic time `monotonic_s`; the pair is taken anew each time, because the one goes
        on while the machine sleeps, and the other does not
    """
    row = {name: getattr(finished, name) for name in _SHARED}
    for name, value in row.items():
        if name.endswith("_s") and value is not None:
            row[name] = round(value, 6)

    return RequestRecord(started_s=round(now_s - (monotonic_s - finished.started), 3), **row)
