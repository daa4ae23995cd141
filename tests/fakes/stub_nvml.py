"""Stands in for `pynvml`: copied under that name to a directory on PYTHONPATH, it says what `nvml.json` beside it says.

    {"devices": [{"used_mib": 100, "total_mib": 8192, "told": {}}], "hang": false, "error": false}

`told` is what a device answers to further questions, by the name of the function and its words, as in
`{"nvmlDeviceGetPowerUsage": 250000, "nvmlDeviceGetClockInfo 1": 1500}`; an object becomes a structure, and what is not
in it is not supported. With `reserved_mib`, memory is told in version 2.

Each reading of the driver leaves a line in `nvml.calls`: "asked" before it may hang, "answered" after.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))


class NVMLError(Exception):
    """As the real one's."""


class NVMLError_LibraryNotFound(NVMLError):
    """As the real one's."""


class NVMLLibraryMismatchError(Exception):
    """As the real one's: not an NVMLError."""


NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2
NVML_PCIE_UTIL_TX_BYTES = 0
NVML_PCIE_UTIL_RX_BYTES = 1
nvmlMemory_v2 = 0x02000028


class Memory(NamedTuple):
    """In bytes."""

    used: int
    total: int
    reserved: int = 0


def nvmlInit() -> None:
    _ask()


def nvmlShutdown() -> None:
    pass


def nvmlSystemGetDriverVersion() -> str:
    return "580.1"


def nvmlDeviceGetCount() -> int:
    return len(_ask()["devices"])


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetMemoryInfo(handle: int, version: int = 0) -> Memory:
    device = _device(handle)
    if version and "reserved_mib" not in device:
        raise NVMLLibraryMismatchError("nvmlDeviceGetMemoryInfo_v2 is not in this library")

    reserved = device["reserved_mib"] << 20 if version else 0
    return Memory((device["used_mib"] << 20) - reserved, device["total_mib"] << 20, reserved)


def nvmlDeviceGetName(handle: int) -> str:
    return f"Stub {handle}"


def __getattr__(name: str) -> Callable[..., Any]:
    """Every other question to a device."""
    if not name.startswith("nvmlDeviceGet"):
        raise AttributeError(name)

    def answer(handle: int, *words: int) -> Any:
        told = _device(handle).get("told", {})
        key = " ".join((name, *map(str, words)))
        if key not in told:
            raise NVMLError("Not Supported")

        return _friendly(told[key])

    return answer


def _friendly(value: Any) -> Any:
    if isinstance(value, list):
        return [_friendly(each) for each in value]

    return SimpleNamespace(**value) if isinstance(value, dict) else value


def _device(handle: int) -> Any:
    devices = _wanted()["devices"]
    if handle >= len(devices):
        raise NVMLError("GPU is lost")

    return devices[handle]


def _ask() -> Any:
    _note("asked")
    while (wanted := _wanted())["hang"]:
        time.sleep(0.02)

    if wanted["error"]:
        raise NVMLError("the driver is not loaded")

    _note("answered")
    return wanted


def _wanted() -> Any:
    with open(os.path.join(_DIRECTORY, "nvml.json"), encoding="utf-8") as file:
        return json.load(file)


def _note(what: str) -> None:
    with open(os.path.join(_DIRECTORY, "nvml.calls"), "a", encoding="ascii") as file:
        file.write(f"{what}\n")
