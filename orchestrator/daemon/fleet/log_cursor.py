"""The one reader of a running engine's log: each line is parsed once, for everybody who asks what it says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from anyio.lowlevel import checkpoint

from orchestrator.adapters.log.store import InstanceLog, LogLine
from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.engine_log.parser import LogParser

LINES_AT_ONCE = 100
"""Lines parsed in one turn of the loop, some milliseconds at most: a flood does not hold up the gateway's streams."""


class LogCursor:
    """Reads a log as far as it was written when somebody asks. Used on the loop's thread.

    :ivar next_line: the number of the first line that was not read
    :ivar activity: the figures of all lines read
    """

    def __init__(self, log: InstanceLog) -> None:
        self.next_line = 0
        self.activity = EngineActivity()
        self._log = log
        self._parser = LogParser()
        self._records: deque[LogRecord] = deque()

    @property
    def records(self) -> Sequence[LogRecord]:
        """The records with events among the lines that the log still keeps."""
        self._forget_old()
        return tuple(self._records)

    async def catch_up(self) -> None:
        """Read what is new; the loop runs on meanwhile."""
        lines = self._log.since(self.next_line)[1]
        for begin in range(0, len(lines), LINES_AT_ONCE):
            self._read(lines[begin : begin + LINES_AT_ONCE])
            await checkpoint()

    def catch_up_now(self) -> None:
        """Read what is new at once, for those who cannot wait."""
        self._read(self._log.since(self.next_line)[1])

    def _read(self, lines: Sequence[LogLine]) -> None:
        """Read a part of the log that begins no later than the first line not read, or after lines that are gone."""
        new = [line for line in lines if line.seq >= self.next_line]
        if not new:
            return

        records = [record for record in self._parser.parse(new) if record.events]
        self.next_line = new[-1].seq + 1
        self.activity = add_records(self.activity, records)
        self._records.extend(records)
        self._forget_old()

    def _forget_old(self) -> None:
        while self._records and self._records[0].number < self._log.oldest_seq:
            self._records.popleft()
