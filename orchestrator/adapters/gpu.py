"""Device memory through NVML, or nothing on a machine without an NVIDIA driver.

NVML calls block, and a driver in trouble can hang them: one thread is asking at a time, and a caller gets the last
reading when the current one is late.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Literal


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One device; memory in MiB as NVML counts it (v1: what the driver reserves is part of `used`).

    What a driver does not tell is None. `processes` is pid to MiB; `utilization` 0 to 1.
    """

    index: int
    name: str
    used_mib: int
    total_mib: int
    uuid: str = ""
    vendor: Literal["nvidia", "amd"] = "nvidia"
    processes: Mapping[int, int] | None = None
    utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    pcie_rx_mib_s: float | None = None
    pcie_tx_mib_s: float | None = None
    energy_j: float | None = None


class NvmlReader:
    """Reads in a thread of its own, which may hang without anybody else.

    :param max_age_s: a reading younger than this is used again
    :param patience_s: how long a caller waits for a call; for one that has taken longer nobody waits any more
    """

    def __init__(self, max_age_s: float = 2.0, patience_s: float = 1.0) -> None:
        self._max_age_s = max_age_s
        self._patience_s = patience_s
        self._last: tuple[GpuReading, ...] = ()
        self._read_at = float("-inf")
        self._lock = threading.Lock()
        self._answered: threading.Event | None = None
        self._asked_at = 0.0
        self._available: bool | None = None

    def read(self) -> tuple[GpuReading, ...]:
        """The devices now, or the last reading when the driver is late. Blocks: call it in a thread."""
        if self._available is False or monotonic() - self._read_at < self._max_age_s:
            return self._last

        return self.read_now()

    def read_now(self) -> tuple[GpuReading, ...]:
        """As `read`, however fresh the last reading is."""
        if self._available is False:
            return ()

        with self._lock:
            answered = self._answered
            if answered is None:
                answered = self._answered = threading.Event()
                self._asked_at = monotonic()
                # Not one of a pool's: at the daemon's end it is not waited for.
                threading.Thread(target=self._ask, args=(answered,), name="nvml", daemon=True).start()

            rest_s = self._asked_at + self._patience_s - monotonic()

        if rest_s > 0:
            answered.wait(rest_s)

        return self._last

    def _ask(self, answered: threading.Event) -> None:
        try:
            self._last = self._query()
            self._read_at = monotonic()
        finally:
            with self._lock:
                self._answered = None

            answered.set()

    def _query(self) -> tuple[GpuReading, ...]:
        import pynvml

        if self._available is None:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:  # no driver, or one that does not match: a machine without a GPU, to us
                self._available = False
                return ()

            self._available = True

        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:  # the driver is gone, or being reset
            return ()

        readings = []
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                name = pynvml.nvmlDeviceGetName(handle)
            except pynvml.NVMLError:  # a device that fell off the bus; the others are still there
                continue

            text = name.decode() if isinstance(name, bytes) else str(name)
            readings.append(GpuReading(index, text, int(memory.used) >> 20, int(memory.total) >> 20))

        return tuple(readings)
