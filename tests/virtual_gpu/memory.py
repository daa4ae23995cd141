"""The memory of a device that is not there: what it says it has, what it gives, and who holds how much."""

from __future__ import annotations

import threading
from collections.abc import Callable

MIB = 1024 * 1024


class DeviceMemory:
    """Counts bytes; all methods may be called from any thread.

    A device that grants less than it reports is what the ladder exists for: the driver, the back end's pools and other
    programs take what the engine's fit knows nothing of.

    :param reported_bytes: total and, with nothing allocated, free memory that clients are told
    :param granted_bytes: what all buffers together may take
    :param linger_s: how long the most that a client held stays taken once it is gone, freed or not: drivers give
        memory back a while after a process's end. Clients that only looked (a fit's probes) leave nothing.
    :param clock: monotonic seconds
    """

    def __init__(self, reported_bytes: int, granted_bytes: int, linger_s: float, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._reported = reported_bytes
        self._granted = granted_bytes
        self._linger_s = linger_s
        self._clock = clock
        self._held: dict[object, dict[int, int]] = {}
        self._most: dict[object, int] = {}
        self._lingering: list[tuple[float, int]] = []
        self._reserved = 0
        self._peak = 0
        self._refused: list[int] = []

    def used_bytes(self) -> int:
        with self._lock:
            return self._used()

    def peak_bytes(self) -> int:
        with self._lock:
            return self._peak

    def refused_bytes(self) -> list[int]:
        """The sizes that were refused, in their order."""
        with self._lock:
            return list(self._refused)

    def grant(self, granted_bytes: int) -> None:
        """Change what all buffers together may take; what is held stays held."""
        with self._lock:
            self._granted = granted_bytes

    def told(self) -> tuple[int, int]:
        """Free and total bytes, as clients are told."""
        with self._lock:
            return max(self._reported - self._used(), 0), self._reported

    def reserve(self, size_bytes: int) -> bool:
        """Set bytes aside for an allocation that is on its way; False refuses it."""
        with self._lock:
            if self._used() + size_bytes > self._granted:
                self._refused.append(size_bytes)
                return False

            self._reserved += size_bytes
            return True

    def settle(self, client: object, reserved_bytes: int, pointer: int, size_bytes: int) -> None:
        """The allocation came back: count what it really took; a pointer of 0 is none."""
        with self._lock:
            self._reserved -= reserved_bytes
            if pointer:
                held = self._held.setdefault(client, {})
                held[pointer] = size_bytes
                self._most[client] = max(self._most.get(client, 0), sum(held.values()))

            self._peak = max(self._peak, self._used())

    def free(self, client: object, pointer: int) -> None:
        with self._lock:
            self._held.get(client, {}).pop(pointer, None)

    def leave(self, client: object, *, worked: bool) -> None:
        """The client is gone, and the server frees what it held.

        :param worked: whether it put anything on the device
        """
        with self._lock:
            self._held.pop(client, None)
            most = self._most.pop(client, 0)
            if worked and self._linger_s:
                self._lingering.append((self._clock() + self._linger_s, most))

    def _used(self) -> int:
        now = self._clock()
        self._lingering = [(until, size) for until, size in self._lingering if until > now]
        held = sum(sum(buffers.values()) for buffers in self._held.values())
        return held + self._reserved + sum(size for _, size in self._lingering)
