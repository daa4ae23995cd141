"""The readings of devices: one form for every vendor, and a reader that a driver in trouble cannot hold up.

Drivers block, and can hang: one thread is asking at a time, and a caller gets the last reading when the current one is
late. The sources are `gpu_nvml`, `gpu_amd` and `gpu_replay`; `gpu_sources` chooses.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal, Protocol

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One device; memory in MiB.

    `used_mib` is what nobody can allocate any more: what processes hold and `reserved_mib`, the driver's own, where it
    tells that apart. What a driver does not tell is None. `processes` is pid to MiB, of those the driver tells about
    (NVIDIA: everybody's, nobody's in most containers; AMD: those that were asked for). `utilization` is 0 to 1.
    `pci_address` is as in `0000:03:00.0`, and AMD's devices have it alone.
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
    reserved_mib: int | None = None
    pci_address: str = ""


class GpuProvider(Protocol):
    """The readings that the daemon goes by."""

    @property
    def age_s(self) -> float | None:
        """The age of the last reading; None before the first one."""
        ...

    def read(self) -> tuple[GpuReading, ...]:
        """Return the devices now, or the last reading when the driver is late. Blocks: call it in a thread."""
        ...

    def read_now(self) -> tuple[GpuReading, ...]:
        """Ask the driver, however fresh the last reading is; otherwise as `read`."""
        ...

    def watch(self, pids: Collection[int]) -> None:
        """Name the processes whose memory is wanted, for drivers that have to be asked about each."""
        ...


class GpuSource(Protocol):
    """One vendor's driver."""

    def query(self, pids: Collection[int]) -> tuple[GpuReading, ...] | None:
        """Ask it; None when there is no such driver, and it need not be asked again. Blocks, perhaps for ever."""
        ...


class GpuReader:
    """Reads in a thread of its own, which may hang without anybody else.

    :param sources: their devices are numbered on, in this order
    :param max_age_s: a reading younger than this is used again
    :param patience_s: how long a caller waits for a call; for one that has taken longer nobody waits any more
    """

    def __init__(self, sources: Sequence[GpuSource], max_age_s: float = 2.0, patience_s: float = 1.0) -> None:
        self._sources = dict.fromkeys(sources, 0)
        """To how many devices each has ever had: one that is lost does not rename the others."""
        self._max_age_s = max_age_s
        self._patience_s = patience_s
        self._last: tuple[GpuReading, ...] = ()
        self._read_at: float | None = None
        self._lock = threading.Lock()
        self._answered: threading.Event | None = None
        self._asked_at = 0.0
        self._pids: frozenset[int] = frozenset()

    @property
    def age_s(self) -> float | None:
        return None if self._read_at is None or not self._sources else monotonic() - self._read_at

    def watch(self, pids: Collection[int]) -> None:
        self._pids = frozenset(pids)

    @property
    def late(self) -> bool:
        """Whether a driver was asked and has not answered yet."""
        return self._answered is not None

    def read(self) -> tuple[GpuReading, ...]:
        age_s = self.age_s
        if age_s is not None and age_s < self._max_age_s:
            return self._last

        return self.read_now()

    def read_now(self) -> tuple[GpuReading, ...]:
        if not self._sources:
            return ()

        with self._lock:
            answered = self._answered
            if answered is None:
                answered = self._answered = threading.Event()
                self._asked_at = monotonic()
                # Not one of a pool's: at the daemon's end it is not waited for.
                threading.Thread(target=self._ask, args=(answered,), name="gpu", daemon=True).start()

            rest_s = self._asked_at + self._patience_s - monotonic()

        if rest_s > 0:
            answered.wait(rest_s)

        return self._last

    def _ask(self, answered: threading.Event) -> None:
        try:
            self._last = self._query()
            self._read_at = monotonic()
        except OSError as error:  # out of descriptors: no source is given up for that
            _log.warning("devices could not be read: %s", error)
        finally:
            with self._lock:
                self._answered = None

            answered.set()

    def _query(self) -> tuple[GpuReading, ...]:
        found: list[GpuReading] = []
        counts: dict[GpuSource, int] = {}
        for source, count in self._sources.items():
            readings = source.query(self._pids)
            if readings is None:
                continue

            first = sum(counts.values())
            counts[source] = max([count, *(reading.index + 1 for reading in readings)])
            found += (replace(reading, index=first + reading.index) if first else reading for reading in readings)

        self._sources = counts
        return tuple(found)
