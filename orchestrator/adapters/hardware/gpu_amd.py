"""AMD devices through sysfs of the amdgpu driver: no library, no process started.

Sources: Documentation/gpu/amdgpu/driver-misc.rst and thermal.rst of the kernel. Limits: an APU's `vram` is only what
the firmware set aside, and memory that a kernel before 6.5 gave out through /dev/kfd (ROCm) is in the device's total
alone. `pcie_bw` is left out: reading it takes a second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from orchestrator.adapters.hardware.drm_clients import vram_by_device
from orchestrator.adapters.hardware.gpu import GpuReading

VENDOR = "0x1002"
_CARD = re.compile(r"card(\d+)")


class AmdSysfs:
    """AMD's devices as a source.

    :param root: the directory with `sys` and `proc`
    """

    def __init__(self, root: str = "/") -> None:
        self._drm = os.path.join(root, "sys/class/drm")
        self._proc = os.path.join(root, "proc")
        self._devices: tuple[str, ...] | None = None

    def query(self, pids: Collection[int]) -> tuple[GpuReading, ...] | None:
        if self._devices is None:
            self._devices = self._find_cards()

        if not self._devices:
            return None

        held = vram_by_device(self._proc, pids).held
        readings = (_reading(device, at, held) for at, device in enumerate(self._devices))
        return tuple(reading for reading in readings if reading is not None)

    def _find_cards(self) -> tuple[str, ...]:
        try:
            names = os.listdir(self._drm)
        except OSError:  # no graphics driver at all, or no /sys in this container
            return ()

        numbers = sorted(int(found[1]) for found in map(_CARD.fullmatch, names) if found)
        devices = (os.path.join(self._drm, f"card{number}", "device") for number in numbers)
        return tuple(
            device
            for device in devices
            if _text(device, "vendor") == VENDOR and _number(device, "mem_info_vram_total") is not None
        )


def _reading(device: str, index: int, held: dict[str, dict[int, int]]) -> GpuReading | None:
    """Read one device; None when it is gone.

    :param held: PCI address to pid to bytes
    """
    total, used = _number(device, "mem_info_vram_total"), _number(device, "mem_info_vram_used")
    if total is None or used is None:
        return None

    sensors = _hwmon(device)
    busy = _number(device, "gpu_busy_percent")
    power_uw = _number(sensors, "power1_average")
    if power_uw is None:  # renamed for what measures an instant instead
        power_uw = _number(sensors, "power1_input")

    limit_uw = _number(sensors, "power1_cap")
    temperature = _number(sensors, "temp1_input")
    core_hz, memory_hz = _number(sensors, "freq1_input"), _number(sensors, "freq2_input")
    address = _address(device)
    processes = {pid: size >> 20 for pid, size in held.get(address, {}).items()}
    return GpuReading(
        index=index,
        name=_text(device, "product_name") or f"AMD {_text(device, 'device') or 'GPU'}",
        used_mib=used >> 20,
        total_mib=total >> 20,
        uuid=_text(device, "unique_id") or address,
        pci_address=address,
        vendor="amd",
        processes=processes or None,
        utilization=None if busy is None else busy / 100,
        power_w=None if power_uw is None else power_uw / 1e6,
        power_limit_w=None if limit_uw is None else limit_uw / 1e6,
        temperature_c=None if temperature is None else temperature / 1000,
        sm_clock_mhz=None if core_hz is None else core_hz // 1_000_000,
        memory_clock_mhz=None if memory_hz is None else memory_hz // 1_000_000,
    )


def _address(device: str) -> str:
    found = re.search(r"^PCI_SLOT_NAME=(\S+)$", _text(device, "uevent"), re.MULTILINE)
    return found[1] if found else ""


def _hwmon(device: str) -> str:
    directory = os.path.join(device, "hwmon")
    try:
        return os.path.join(directory, min(os.listdir(directory), default=""))
    except OSError:  # a card without sensors
        return directory


def _number(directory: str, name: str) -> int | None:
    text = _text(directory, name)
    return int(text) if text.lstrip("-").isdecimal() else None


def _text(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:  # not there on this card, or not readable at the moment (EBUSY while the card sleeps)
        return ""
