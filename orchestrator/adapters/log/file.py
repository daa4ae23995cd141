"""A log file of bounded size, written from a thread of its own: a slow or full disk never reaches the loop.

Every byte given to it is written or counted as dropped. Another program may rename, truncate or delete the file.
"""

from __future__ import annotations

import contextlib
import os
import time

from orchestrator.adapters.paths import make_private
from orchestrator.adapters.writer_thread import WriterThread
from orchestrator.core.quantities import MIB

BATCH_BYTES = 256 * 1024
"""The most that is written at once."""

RETRY_S = 1.0
"""Between tries while the disk is full or broken; what arrives in between is dropped and counted."""


class LogFile:
    """Appends to `path`, and keeps what was before in `path.1`.

    :param max_bytes: size of one of the two files, at most
    :param backlog_bytes: memory for what waits for the disk
    :ivar produced_bytes: handed over so far; each of them is written, dropped, or waits
    """

    def __init__(self, path: str, *, max_bytes: int = 16 * MIB, backlog_bytes: int = 4 * MIB) -> None:
        self.path = path
        self.produced_bytes = 0
        self.written_bytes = 0
        self.dropped_bytes = 0
        self.last_error: str | None = None
        self._max_bytes = max_bytes
        self._backlog_limit = backlog_bytes
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._writer = WriterThread("log-file", self._run)
        # The rest belongs to the thread.
        self._fd = -1
        self._retry_at = 0.0
        self._reported_dropped_bytes = 0

    def write(self, data: bytes) -> None:
        """Hand over whole lines. Never blocks and never raises."""
        with self._writer.condition:
            self.produced_bytes += len(data)
            if not self._has_room_for(len(data)):
                self.dropped_bytes += len(data)
                return

            self._backlog.append(data)
            self._backlog_bytes += len(data)
            self._writer.condition.notify()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is left, at most this long; False when the disk did not take it in time. Blocks."""
        return self._writer.close(timeout_s)

    def _has_room_for(self, size: int) -> bool:
        if self._writer.closing or self._backlog_bytes + size > self._backlog_limit:
            return False

        if not self._writer.start():
            self.last_error = self._writer.start_error
            return False

        return True

    def _run(self) -> None:
        while True:
            with self._writer.condition:
                while not self._backlog and not self._writer.closing:
                    self._writer.condition.wait()

                if not self._backlog:
                    break

                batch = self._take_batch()

            written = self._append(batch)
            with self._writer.condition:
                self._backlog_bytes -= len(batch)
                self.written_bytes += written
                self.dropped_bytes += len(batch) - written

        self._close_fd()

    def _take_batch(self) -> bytes:
        taken = 0
        size = 0
        for data in self._backlog:
            if taken and size + len(data) > min(BATCH_BYTES, self._max_bytes):
                break

            taken += 1
            size += len(data)

        batch = b"".join(self._backlog[:taken])
        del self._backlog[:taken]
        return batch

    def _append(self, batch: bytes) -> int:
        if time.monotonic() < self._retry_at:
            return 0

        written = 0
        try:
            self._open_for(len(batch))
            self._write_drop_notice()
            while written < len(batch):
                written += os.write(self._fd, batch[written:])
        except OSError as error:
            self.last_error = error.strerror
            self._retry_at = time.monotonic() + RETRY_S
            self._close_fd()

        return written

    def _open_for(self, size: int) -> None:
        if self._fd >= 0 and not self._is_current():
            self._close_fd()

        if self._fd < 0:
            self._open()

        used = os.fstat(self._fd).st_size
        if used and used + size > self._max_bytes:
            os.replace(self.path, self.path + ".1")
            self._close_fd()
            self._open()

    def _open(self) -> None:
        make_private(os.path.dirname(self.path))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(self.path, flags, 0o640)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _write_drop_notice(self) -> None:
        with self._writer.condition:
            dropped = self.dropped_bytes

        if dropped > self._reported_dropped_bytes:
            count = dropped - self._reported_dropped_bytes
            os.write(self._fd, f"\n[orch: {count} bytes of this log were dropped: {self._reason()}]\n".encode())
            self._reported_dropped_bytes = dropped

    def _reason(self) -> str:
        return self.last_error or "the disk was too slow"

    def _close_fd(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # a deferred write error: its bytes are beyond counting
                os.close(self._fd)

            self._fd = -1
