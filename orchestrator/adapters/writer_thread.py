"""A thread that writes to a disk, so that a slow one holds nobody up. What waits for it is its owner's."""

from __future__ import annotations

import threading
from collections.abc import Callable


class WriterThread:
    """A thread that begins with the first thing to write, and ends once it is closed and nothing is left.

    :param write_all: runs in the thread; returns when `closing` is set and everything is written
    :ivar condition: guards what waits; the writer is notified through it
    :ivar closing: nothing more is taken
    :ivar start_error: why the thread could not be started the last time
    """

    def __init__(self, name: str, write_all: Callable[[], None]) -> None:
        self.condition = threading.Condition()
        self.closing = False
        self.start_error: str | None = None
        self._name = name
        self._write_all = write_all
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Start it unless it runs; False when it cannot be started now. Call it with the condition held."""
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the limit on processes: tried again with the next thing to write
                self.start_error = str(error)
                return False

            self._thread = thread

        return True

    def close(self, timeout_s: float) -> bool:
        """Have it write what is left, at most this long; False when the disk did not take it in time. Blocks."""
        with self.condition:
            self.closing = True
            self.condition.notify()

        if self._thread is None:
            return True

        self._thread.join(timeout_s)
        return not self._thread.is_alive()
