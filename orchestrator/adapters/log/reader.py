"""Reads the output of a child. Whatever it prints, and however fast, it never blocks and the loop is not starved.

`LineSplitter` is the pure half: bytes in, lines that are safe to show out.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.terminal import neutralise

MAX_LINE_BYTES = 8192

READ_BYTES = 64 * 1024
READS_PER_TURN = 4
"""64 KiB reads in one turn of the loop, at most: the rest of a flood waits until the other callbacks have run."""

PIPE_BYTES = 1024 * 1024
"""A burst of this size fits while the loop is busy; the kernel's default is 64 KiB."""

_PLAIN = bytes((0x09, 0x0A, *range(0x20, 0x7F)))
"""Bytes that are shown as they are; nearly every line of an engine has no others."""


class LogSink(Protocol):
    """Takes the lines of one child, in order, on the loop's thread. Must not block."""

    def write(self, lines: Sequence[str]) -> None: ...


class LineSplitter:
    """Cuts a byte stream into lines; `\\n`, `\\r\\n` and a bare `\\r` end one. Memory is bounded by `max_line`.

    :param max_line: bytes of a line that are kept; how many were not is said at its end
    """

    def __init__(self, max_line: int = MAX_LINE_BYTES) -> None:
        self._max_line = max_line
        self._open = bytearray()
        self._cut_bytes = 0
        self._after_cr = False

    @property
    def pending(self) -> str:
        """The line that is not finished yet: the fork prints its loading dots for minutes without a line end."""
        return self._text()

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that these bytes complete."""
        lines: list[str] = []
        if self._open:
            first_end = data.find(b"\n") + 1
            lines = self._feed(data[:first_end])
            data = data[first_end:]

        # Plain lines many at a time: a flood costs a fifth of what it costs line by line.
        last_end = data.rfind(b"\n")
        if last_end > 0 and not self._after_cr and not data.translate(None, _PLAIN):
            plain = data[:last_end].decode("ascii").split("\n")
            if max(map(len, plain)) <= self._max_line:
                lines += plain
                data = data[last_end + 1 :]

        return lines + self._feed(data)

    def _feed(self, data: bytes) -> list[str]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]

        lines: list[str] = []
        for piece in data.splitlines(keepends=True):
            body = piece.rstrip(b"\r\n")
            self._append(body)
            if len(body) == len(piece):
                break  # the end of `data`, not of the line

            if piece.endswith(b"\n") or self._open:
                lines.append(self._take_line())

        if data:
            self._after_cr = data.endswith(b"\r")

        return lines

    def finish(self) -> list[str]:
        """Return what is left when the stream has ended: it is a line, too."""
        return [self._take_line()] if self._open else []

    def _append(self, body: bytes) -> None:
        room = self._max_line - len(self._open)
        if len(body) <= room:
            self._open += body
        else:
            self._open += body[:room]
            self._cut_bytes += len(body) - room

    def _take_line(self) -> str:
        text = self._text()
        self._open.clear()
        self._cut_bytes = 0
        return text

    def _text(self) -> str:
        text = neutralise(self._open.decode("utf-8", "replace"))
        return f"{text} …[+{self._cut_bytes} bytes]" if self._cut_bytes else text


class LogReader:
    """Empties a pipe into a sink until every writer has closed it. Owns `fd`. Made and used on the loop's thread.

    :ivar lines_refused: lines that the sink raised on
    """

    def __init__(self, fd: int, sink: LogSink) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._sink = sink
        self._splitter = LineSplitter()
        self._ended = self._loop.create_future()
        self.bytes_read = 0
        self.lines_refused = 0
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # over the user's limit on pipe memory: it stays at 64 KiB
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

        self._loop.add_reader(fd, self._on_readable)

    @property
    def pending(self) -> str:
        return self._splitter.pending

    async def drain(self, timeout_s: float) -> bool:
        """Wait for the end of the stream, at most this long, then close; False when somebody still holds the pipe."""
        await asyncio.wait((self._ended,), timeout=timeout_s)
        complete = self._ended.done()
        self.close()
        return complete

    def close(self) -> None:
        """Deliver what has arrived and close; idempotent."""
        if self._fd < 0:
            return

        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._deliver(self._splitter.finish())
        if not self._ended.done():
            self._ended.set_result(None)

    def _on_readable(self) -> None:
        for _ in range(READS_PER_TURN):
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return

            if not data:
                self.close()
                return

            self.bytes_read += len(data)
            self._deliver(self._splitter.feed(data))
            if len(data) < READ_BYTES:
                return

    def _deliver(self, lines: list[str]) -> None:
        if not lines:
            return

        try:
            self._sink.write(lines)
        except Exception as error:  # noqa: BLE001 a fault in a sink must not stop the child, which would block on its pipe
            self.lines_refused += len(lines)
            self._loop.call_exception_handler({"message": "a log sink failed", "exception": error})
