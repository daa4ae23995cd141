"""AMD devices through sysfs of the amdgpu driver: no library, no process started.

Sources: Documentation/gpu/amdgpu/driver-misc.rst and thermal.rst of the kernel. Limits: an APU's `vram` is only what
the firmware set aside, and memory that a kernel before 6.5 gave out through /dev/kfd (ROCm) is in the device's total
alone. `pcie_bw` is left out: reading it takes a second.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from orchestrator.adapters.hardware.drm_cards import AMD_DRIVER, DrmCard, find_cards
from orchestrator.adapters.hardware.drm_clients import vram_by_device
from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.sysfs import names_in, read_number, read_text


class AmdSysfs:
    """AMD's devices as a source.

    :param root: the directory with `sys` and `proc`
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._cards: tuple[DrmCard, ...] | None = None

    def query(self, pids: Collection[int]) -> tuple[GpuReading, ...] | None:
        if self._cards is None:
            found = (card for card in find_cards(self._root) if card.driver == AMD_DRIVER)
            self._cards = tuple(card for card in found if read_number(card.device, "mem_info_vram_total") is not None)

        if not self._cards:
            return None

        held = vram_by_device(os.path.join(self._root, "proc"), pids).held
        readings = (_reading(card, index, held) for index, card in enumerate(self._cards))
        return tuple(reading for reading in readings if reading is not None)


def _reading(card: DrmCard, index: int, held: dict[str, dict[int, int]]) -> GpuReading | None:
    """Read one device; None when it is gone.

    :param held: PCI address to pid to bytes
    """
    device = card.device
    total, used = read_number(device, "mem_info_vram_total"), read_number(device, "mem_info_vram_used")
    if total is None or used is None:
        return None

    sensors = _hwmon(device)
    busy = read_number(device, "gpu_busy_percent")
    power_uw = read_number(sensors, "power1_average")
    if power_uw is None:  # renamed for what measures an instant instead
        power_uw = read_number(sensors, "power1_input")

    limit_uw = read_number(sensors, "power1_cap")
    temperature = read_number(sensors, "temp1_input")
    core_hz, memory_hz = read_number(sensors, "freq1_input"), read_number(sensors, "freq2_input")
    processes = {pid: size >> 20 for pid, size in held.get(card.address, {}).items()}
    return GpuReading(
        index=index,
        name=read_text(device, "product_name") or f"AMD {read_text(device, 'device') or 'GPU'}",
        used_mib=used >> 20,
        total_mib=total >> 20,
        uuid=read_text(device, "unique_id") or card.address,
        pci_address=card.address,
        vendor="amd",
        processes=processes or None,
        utilization=None if busy is None else busy / 100,
        power_w=None if power_uw is None else power_uw / 1e6,
        power_limit_w=None if limit_uw is None else limit_uw / 1e6,
        temperature_c=None if temperature is None else temperature / 1000,
        sm_clock_mhz=None if core_hz is None else core_hz // 1_000_000,
        memory_clock_mhz=None if memory_hz is None else memory_hz // 1_000_000,
    )


def _hwmon(device: str) -> str:
    """Return the directory of the card's sensors; one that is not there where it has none."""
    directory = os.path.join(device, "hwmon")
    return os.path.join(directory, min(names_in(directory), default=""))
