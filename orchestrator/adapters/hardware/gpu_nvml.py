"""NVIDIA devices through NVML, or nothing on a machine without its driver. Every call blocks, see `gpu.GpuReader`.

What a device or a driver does not support is None: consumer cards, vGPUs, MIG and containers each lack something.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.nvidia_driver import as_text

SLOW_S = 5.0
"""Period of the questions whose answers hardly change, or block for long (20 ms for a PCIe counter)."""

MAX_PID = 1 << 22
"""Linux's largest; see `Nvml._processes`."""

THROTTLE = {
    0x002: "application_clocks",
    0x004: "power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "thermal",
    0x040: "hw_thermal",
    0x080: "power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
"""nvmlClocksEventReasons (nvml.h); 1 is that the device is idle, which slows nobody."""


@dataclass(frozen=True, slots=True)
class SlowFigures:
    """The figures that are asked for rarely, and the monotonic time of the last answer."""

    taken: float
    name: str
    uuid: str
    power_limit_w: float | None
    pcie_rx_mib_s: float | None
    pcie_tx_mib_s: float | None


class Nvml:
    """NVIDIA's devices as a source. One thread at a time.

    :param slow_s: how old the figures of `SlowFigures` may get
    """

    def __init__(self, slow_s: float = SLOW_S) -> None:
        self._slow_s = slow_s
        self._ready = False
        self._slow: dict[int, SlowFigures] = {}

    def query(self, pids: Collection[int]) -> tuple[GpuReading, ...] | None:
        import pynvml

        if not self._ready:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:  # no driver, or one that does not match: a machine without a GPU, to us
                return None

            self._ready = True

        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:  # the driver is gone, or being reset
            return ()

        readings = []
        for index in range(count):
            try:
                readings.append(self._reading(pynvml, index))
            except pynvml.NVMLError:  # a device that fell off the bus; the others are still there
                self._slow.pop(index, None)

        return tuple(readings)

    def _reading(self, nvml: Any, index: int) -> GpuReading:
        """Read one device.

        :raises NVMLError: when it does not even tell its memory
        """

        def query(call: Callable[..., Any], *words: object) -> Any:
            try:
                return call(handle, *words)
            # The second is no NVMLError: pynvml has it for a function that the driver's library lacks.
            except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
                return None

        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        slow = self._slow.get(index)
        if slow is None or monotonic() - slow.taken >= self._slow_s:
            slow = self._slow[index] = _read_slow_figures(nvml, handle, query)

        memory = query(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2)
        reserved = int(memory.reserved) if memory is not None else None
        if memory is None:  # drivers before 510; there `used` includes what the driver reserves
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)

        used = int(memory.used) + (reserved or 0)
        rates = query(nvml.nvmlDeviceGetUtilizationRates)
        reasons = query(nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
        power_mw = query(nvml.nvmlDeviceGetPowerUsage)
        energy_mj = query(nvml.nvmlDeviceGetTotalEnergyConsumption)
        temperature = query(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
        return GpuReading(
            index=index,
            name=slow.name,
            used_mib=used >> 20,
            total_mib=int(memory.total) >> 20,
            uuid=slow.uuid,
            processes=_processes(nvml, int(memory.total), query),
            utilization=None if rates is None else rates.gpu / 100,
            power_w=None if power_mw is None else power_mw / 1000,
            power_limit_w=slow.power_limit_w,
            temperature_c=None if temperature is None else float(temperature),
            sm_clock_mhz=query(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=query(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            throttle=tuple(word for bit, word in THROTTLE.items() if reasons & bit),
            pcie_rx_mib_s=slow.pcie_rx_mib_s,
            pcie_tx_mib_s=slow.pcie_tx_mib_s,
            energy_j=None if energy_mj is None else energy_mj / 1000,
            reserved_mib=None if reserved is None else reserved >> 20,
        )


def _read_slow_figures(nvml: Any, handle: Any, query: Callable[..., Any]) -> SlowFigures:
    """:raises NVMLError: when the device does not tell its name"""
    limit_mw = query(nvml.nvmlDeviceGetEnforcedPowerLimit)
    rx_kib, tx_kib = (
        query(nvml.nvmlDeviceGetPcieThroughput, counter)
        for counter in (nvml.NVML_PCIE_UTIL_RX_BYTES, nvml.NVML_PCIE_UTIL_TX_BYTES)
    )
    return SlowFigures(
        taken=monotonic(),
        name=as_text(nvml.nvmlDeviceGetName(handle)),
        uuid=as_text(query(nvml.nvmlDeviceGetUUID) or ""),
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        pcie_rx_mib_s=None if rx_kib is None else rx_kib / 1024,
        pcie_tx_mib_s=None if tx_kib is None else tx_kib / 1024,
    )


def _processes(nvml: Any, total: int, query: Callable[..., Any]) -> dict[int, int] | None:
    """Return the memory of each process, MiB, compute and graphics; None when the driver does not tell.

    Version 3 of the list has had two layouts: the drivers 535.43 to 535.86 append a field, and a library of the other
    layout then reads every second entry from the middle of one (nvitop's `libnvml.py` tells the two apart by symbols
    that came with them). Such an entry shows by a pid or a size that cannot be; version 2 is asked then.
    """
    for suffix in ("", "_v2"):
        held: dict[int, int] = {}
        told_any = False
        sound = True
        for kind in ("Compute", "Graphics"):
            entries = query(getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses{suffix}"))
            told_any = told_any or entries is not None
            for entry in entries or ():
                if entry.usedGpuMemory is None:  # hidden: MIG without the right to see, vGPU
                    return None

                sound = sound and 0 < entry.pid < MAX_PID and entry.usedGpuMemory <= total
                # A process that computes and draws is in both lists, with the same memory.
                held[entry.pid] = max(held.get(entry.pid, 0), int(entry.usedGpuMemory) >> 20)

        if told_any and sound:
            return held

    return None
