"""The log of events, for people: the last ones in memory, and in a file that survives the daemon."""

from __future__ import annotations

import logging
import os
from collections import deque
from datetime import UTC, datetime

import msgspec

from orchestrator.adapters.store.state_file import read_regular
from orchestrator.api.types import Event
from orchestrator.daemon.fleet.publisher import Publisher

KEPT = 1000
MAX_FILE_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class EventLog:
    """Appends events; `changed` of its publisher wakes those who follow.

    :param path: JSON Lines, one event each, rotated once (`.1`) at 1 MiB; None keeps them in memory only
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._cut = False
        self._events: deque[Event] = deque(self._read(), maxlen=KEPT)
        self._next_id = self._events[-1]["id"] + 1 if self._events else 1
        self.news: Publisher[int] = Publisher(self._next_id - 1)

    def add(self, kind: str, message: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        # File names need not be UTF-8, and messages quote them.
        message = message.encode("utf-8", "backslashreplace").decode()
        event = Event(id=self._next_id, time=now, kind=kind, message=message)
        self._next_id += 1
        self._events.append(event)
        self._write(event)
        self.news.publish(event["id"])

    def after(self, event_id: int) -> list[Event]:
        """Return the events newer than this id, oldest first."""
        return [event for event in self._events if event["id"] > event_id]

    def _read(self) -> list[Event]:
        """Return the recorded events, oldest first; `_cut` then says whether the file ends in the middle of a line."""
        if self._path is None:
            return []

        events = []
        for path in (f"{self._path}.1", self._path):
            self._cut = False
            try:
                for line in read_regular(path).splitlines(keepends=True):
                    self._cut = not line.endswith(b"\n")
                    try:
                        events.append(msgspec.json.decode(line, type=Event))
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # what a crash cut short, or junk
                        continue
            except FileNotFoundError:
                continue
            except OSError as error:  # old events are worth less than a daemon that starts
                _log.warning("events not read: %s", error)

        return events

    def _write(self, event: Event) -> None:
        if self._path is None:
            return

        try:
            if os.path.exists(self._path) and os.path.getsize(self._path) > MAX_FILE_BYTES:
                os.replace(self._path, f"{self._path}.1")
                self._cut = False

            # Not blocking: a FIFO in its place would hold up the whole daemon.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
            try:
                data = (b"\n" if self._cut else b"") + msgspec.json.encode(event) + b"\n"
                self._cut = os.write(descriptor, data) < len(data)
            finally:
                os.close(descriptor)
        except OSError as error:  # a full disk costs the record of an event, never the engine
            _log.warning("event not recorded: %s", error)
