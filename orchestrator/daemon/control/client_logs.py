"""The logs that clients of the gateway may read: of all engines, of one model's engine, and orch's own events."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.log.store import InstanceLog, LogLine
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.engine_run import EngineRuns


class ClientLogs:
    """Finds them. None has what clients ask in it (`core/engine_log/request_text.py`)."""

    def __init__(self, log: InstanceLog, events: EventLog, runs: EngineRuns) -> None:
        self._log = log
        self._runs = runs
        self.own = EventLines(events)

    def engine_log(self, profile: str | None) -> InstanceLog | None:
        """Return the log of a profile's newest process, None where it has none; without a profile that of all."""
        if profile is None:
            return self._log

        found = [run.shown_log for run in self._runs if run.launch.target.profile == profile]
        return found[-1] if found else None


class EventLines:
    """The log of events as lines of text."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    @property
    def next_seq(self) -> int:
        return self._events.news.value + 1

    @property
    def oldest_seq(self) -> int:
        first = next(iter(self._events.after(0)), None)
        return self.next_seq if first is None else first["id"]

    def since(self, seq: int) -> tuple[int, Sequence[LogLine]]:
        """Return how many events from this number on are gone, and the others."""
        events = self._events.after(seq - 1)
        lines = [LogLine(event["id"], f"{event['time']} {event['kind']}: {event['message']}") for event in events]
        return max(self.oldest_seq - seq, 0), lines

    async def changed(self) -> None:
        """Wait for the next event."""
        await self._events.news.changed(self._events.news.generation)
