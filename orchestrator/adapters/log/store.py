"""The recent log of one instance in memory, for those who look now, and in a file for those who look later.

Whoever reads too slowly is told how many lines it missed; nobody can hold up the child.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import NamedTuple

from orchestrator.adapters.log.file import LogFile
from orchestrator.core.quantities import MIB


class LogLine(NamedTuple):
    """One line of an instance, with its number from 0."""

    seq: int
    text: str


class Gap(NamedTuple):
    """In place of the lines that were gone before they could be read."""

    dropped: int


class InstanceLog:
    """The last lines of an instance, numbered from 0. A `LogSink`. Used on the loop's thread.

    :param file: where the lines are kept as well
    :param max_bytes: memory for the text, counted in characters
    """

    def __init__(self, file: LogFile | None = None, *, max_lines: int = 5000, max_bytes: int = 2 * MIB) -> None:
        self.file = file
        self.next_seq = 0
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: deque[str] = deque()
        self._bytes = 0
        self._closed = False
        self._changed: asyncio.Future[None] | None = None

    @property
    def oldest_seq(self) -> int:
        """The number of the first line that is still kept."""
        return self.next_seq - len(self._lines)

    def write(self, lines: Sequence[str]) -> None:
        if not lines:
            return

        self._lines.extend(lines)
        self.next_seq += len(lines)
        self._bytes += sum(map(len, lines))
        while len(self._lines) > self._max_lines or (self._bytes > self._max_bytes and len(self._lines) > 1):
            self._bytes -= len(self._lines.popleft())

        if self.file is not None:
            self.file.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))

        self._wake()

    def tail(self, count: int) -> list[LogLine]:
        """Return the newest lines, oldest first."""
        newest = list(islice(reversed(self._lines), max(count, 0)))
        newest.reverse()
        return [LogLine(seq, text) for seq, text in enumerate(newest, self.next_seq - len(newest))]

    def since(self, seq: int) -> tuple[int, list[LogLine]]:
        """Return how many lines from number `seq` on are gone already, and the others."""
        return max(self.oldest_seq - seq, 0), self.tail(self.next_seq - seq)

    async def subscribe(self, from_seq: int | None = None) -> AsyncIterator[LogLine | Gap]:
        """Lines as they come, by default from now on, until the log is closed.

        Lines yielded and lines counted in gaps add up to all that were written. The buffer is the log itself: a reader
        that stops reading costs nothing but its gap.
        """
        seq = self.next_seq if from_seq is None else from_seq
        while True:
            missed, lines = self.since(seq)
            seq = self.next_seq
            if missed:
                yield Gap(missed)

            for line in lines:
                yield line

            if seq == self.next_seq:
                if self._closed:
                    return

                await self.changed()

    async def aclose(self, timeout_s: float = 2.0) -> None:
        """No more lines: subscribers end, and the file is written out, at most this long."""
        self._closed = True
        self._wake()
        if self.file is not None:
            await asyncio.to_thread(self.file.close, timeout_s)

    async def changed(self) -> None:
        """Wait for the next lines, or for the end of the log."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()

        await asyncio.shield(self._changed)  # others wait for the same one: it must survive one of them leaving

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None
