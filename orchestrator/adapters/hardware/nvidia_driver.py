"""Questions that are put to NVIDIA's driver once: its version, its cards. `gpu_nvml` is what asks it all the time.

Every call blocks, for ever with a driver in trouble: call it in a thread that nobody has to wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.core.errors import OrchError
from orchestrator.core.setup.machine_speed import PcieLink


class DriverMissing(OrchError):
    """Raised when there is no library of NVIDIA's driver on this machine."""


class DriverUnresponsive(OrchError):
    """Raised when the library is there and the driver does not answer it; the message is the library's."""


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """A driver that answers: its version, and the name and memory (MiB) of each card."""

    version: str
    cards: tuple[tuple[str, int], ...]


def describe_driver() -> NvidiaDriver:
    """Return the driver's version and its cards.

    :raises DriverMissing: when there is none
    :raises DriverUnresponsive: when it cannot be opened
    """
    with _nvml() as nvml:
        cards = tuple(
            (as_text(nvml.nvmlDeviceGetName(handle)), int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20)
            for handle in _handles(nvml)
        )
        return NvidiaDriver(as_text(nvml.nvmlSystemGetDriverVersion()), cards)


def compute_capabilities() -> tuple[tuple[int, int], ...]:
    """Return the compute capabilities (major, minor) of the cards, each once; none when the driver does not answer."""
    import pynvml

    try:
        with _nvml() as nvml:
            return tuple(sorted({tuple(nvml.nvmlDeviceGetCudaComputeCapability(each)) for each in _handles(nvml)}))
    except (DriverMissing, DriverUnresponsive, pynvml.NVMLError):
        return ()


def pcie_links(sysfs: str = "/sys/bus/pci/devices") -> tuple[PcieLink, ...]:
    """Return each card's link to the host; none when the driver does not answer.

    NVML's widest link is that of card and slot together (nvml.h, nvmlDeviceGetMaxPcieLinkWidth): the card's own is in
    its capabilities, which the kernel shows in sysfs.
    """
    import pynvml

    def asked(name: str, handle: Any) -> int | None:
        try:
            return int(getattr(pynvml, name)(handle))
        # As in `gpu_nvml`: what this card, or this version of the library, does not tell.
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
            return None

    try:
        with _nvml() as nvml:
            return tuple(
                PcieLink(
                    as_text(nvml.nvmlDeviceGetName(handle)),
                    generation=asked("nvmlDeviceGetCurrPcieLinkGeneration", handle),
                    generation_here=asked("nvmlDeviceGetMaxPcieLinkGeneration", handle),
                    generation_card=asked("nvmlDeviceGetGpuMaxPcieLinkGeneration", handle),
                    width=asked("nvmlDeviceGetCurrPcieLinkWidth", handle),
                    width_card=_own_width(nvml, handle, sysfs) or asked("nvmlDeviceGetMaxPcieLinkWidth", handle),
                )
                for handle in _handles(nvml)
            )
    except (DriverMissing, DriverUnresponsive, pynvml.NVMLError):
        return ()


def _own_width(nvml: Any, handle: Any, sysfs: str) -> int | None:
    """Return the lanes that a card has, whatever its slot has; None where the kernel does not tell."""
    try:
        domain, _, rest = as_text(nvml.nvmlDeviceGetPciInfo(handle).busId).lower().partition(":")
        with open(f"{sysfs}/{domain[-4:]}:{rest}/max_link_width", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError, nvml.NVMLError):
        return None


def as_text(value: bytes | str) -> str:
    """Return a string of NVML, which is bytes in older versions of `pynvml`."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _handles(nvml: Any) -> Iterator[Any]:
    return (nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount()))


@contextmanager
def _nvml() -> Iterator[Any]:
    import pynvml  # 60 ms

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        raise DriverMissing("NVIDIA's driver is not installed") from error
    except pynvml.NVMLError as error:
        raise DriverUnresponsive(str(error)) from error

    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
