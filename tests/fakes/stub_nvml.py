"""Stands in for `pynvml`: copied under that name to a directory on PYTHONPATH, it says what `nvml.json` beside it says.

    {"devices": [{"used_mib": 100, "total_mib": 8192}], "hang": false, "error": false}

Each reading of the driver leaves a line in `nvml.calls`: "asked" before it may hang, "answered" after.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))


class NVMLError(Exception):
    """As the real one's."""


class Memory(NamedTuple):
    """In bytes."""

    used: int
    total: int


def nvmlInit() -> None:
    _ask()


def nvmlDeviceGetCount() -> int:
    return len(_ask()["devices"])


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> Memory:
    devices = _wanted()["devices"]
    if handle >= len(devices):
        raise NVMLError("GPU is lost")

    return Memory(devices[handle]["used_mib"] << 20, devices[handle]["total_mib"] << 20)


def nvmlDeviceGetName(handle: int) -> str:
    return f"Stub {handle}"


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
