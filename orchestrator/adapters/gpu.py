"""Device memory through NVML, or nothing on a machine without an NVIDIA driver.

NVML calls block, and a driver in trouble can hang them: one thread owns them, one call is under way at a time, and a
caller gets the last reading when the current one is late.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One device; memory in MiB as NVML counts it (v1: what the driver reserves is part of `used`)."""

    index: int
    name: str
    used_mib: int
    total_mib: int


class NvmlReader:
    """Reads in a thread of its own.

    :param max_age_s: a reading younger than this is used again
    """

    def __init__(self, max_age_s: float = 2.0) -> None:
        self._max_age_s = max_age_s
        self._last: tuple[GpuReading, ...] = ()
        self._read_at = float("-inf")
        self._busy = threading.Lock()
        self._available: bool | None = None

    def read(self) -> tuple[GpuReading, ...]:
        """The devices now, or the last reading while another thread is still asking. Blocks: call it in a thread."""
        if self._available is False or monotonic() - self._read_at < self._max_age_s:
            return self._last

        return self.read_now()

    def read_now(self) -> tuple[GpuReading, ...]:
        """As `read`, however fresh the last reading is."""
        if self._available is False:
            return ()

        if not self._busy.acquire(blocking=False):
            return self._last

        try:
            self._last = self._query()
            self._read_at = monotonic()
        finally:
            self._busy.release()

        return self._last

    def _query(self) -> tuple[GpuReading, ...]:
        import pynvml

        if self._available is None:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:  # no driver, or one that does not match: a machine without a GPU, to us
                self._available = False
                return ()

            self._available = True

        readings = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                name = pynvml.nvmlDeviceGetName(handle)
            except pynvml.NVMLError:  # a device that fell off the bus; the others are still there
                continue

            text = name.decode() if isinstance(name, bytes) else str(name)
            readings.append(GpuReading(index, text, int(memory.used) >> 20, int(memory.total) >> 20))

        return tuple(readings)
