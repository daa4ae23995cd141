"""What a machine is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.hardware import machine


def test_the_driver_s_own_line_is_read_and_none_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "version"
    monkeypatch.setattr(machine, "NVIDIA_VERSION", str(file))
    assert machine.driver_version() is None
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version: 12\n")
    assert machine.driver_version() == "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22"


def test_processor_and_kernel_have_names() -> None:
    assert machine.processor_name().strip()
    assert machine.kernel_release().startswith("Linux ")


def test_a_machine_is_told_from_others_by_its_name_and_its_processor() -> None:
    assert machine.machine_name() == f"{os.uname().nodename}, {machine.processor_name()}"
