"""Questions that are put to NVIDIA's driver once: its version, its cards. `gpu_nvml` is what asks it all the time.

Every call blocks, for ever with a driver in trouble: call it in a thread that nobody has to wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.core.errors import OrchError


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
