"""A driver for a test: the stub of NVML in a directory, and what it says."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

TOTAL_MIB = 8192
IDLE_MIB = 300


class Driver:
    """What the stub of NVML in a directory says."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory)
        stub = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stub_nvml.py")
        shutil.copyfile(stub, os.path.join(directory, "pynvml.py"))
        self.says(IDLE_MIB)

    def says(self, *used_mib: int, hang: bool = False, error: bool = False) -> None:
        devices: list[Mapping[str, object]] = [{"used_mib": used, "total_mib": TOTAL_MIB} for used in used_mib]
        self.shows(*devices, hang=hang, error=error)

    def shows(self, *devices: Mapping[str, object], hang: bool = False, error: bool = False) -> None:
        """As `says`, with everything that a device tells (`stub_nvml.py`)."""
        path = os.path.join(self._directory, "nvml.json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"devices": devices, "hang": hang, "error": error}, file)

        os.replace(path + ".new", path)

    @property
    def calls(self) -> list[str]:
        path = os.path.join(self._directory, "nvml.calls")
        return Path(path).read_text().split() if os.path.exists(path) else []

    @property
    def unanswered(self) -> int:
        return self.calls.count("asked") - self.calls.count("answered")


def install(directory: str, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Make it the driver of this process."""
    driver = Driver(directory)
    spec = importlib.util.spec_from_file_location("pynvml", os.path.join(directory, "pynvml.py"))
    assert spec is not None and spec.loader is not None
    stub = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pynvml", stub)
    spec.loader.exec_module(stub)
    return driver
