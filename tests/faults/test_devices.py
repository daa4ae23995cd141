"""Device memory that comes back late, a driver that hangs, devices that vanish: scenarios 41, 42 and 53."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio
import pytest

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.hardware.gpu_nvml import Nvml
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from tests.busy import in_time
from tests.fakes.nvml_driver import IDLE_MIB, Driver, install
from tests.faults.lab import Lab
from tests.support import PATIENCE_S, until

TAKEN_MIB = 7000
LATE_S = 3.0
"""Longer than the daemon waits for a driver, shorter than the invariants allow an answer to take."""

LOST = (
    "CUDA error: GPU is lost",
    "ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error",
)


@pytest.fixture
def driver(lab: Lab) -> Driver:
    """The driver of the lab's daemon."""
    directory = os.path.join(lab.root, "stub")
    lab.env["PYTHONPATH"] = directory
    return Driver(directory)


def shown(lab: Lab) -> list[tuple[int, int]]:
    """Index and MiB in use of each device in the status."""
    return [(gpu["index"], gpu["used_mib"]) for gpu in lab.status()["gpus"]]


# 41. Memory that comes back late.


def test_a_start_waits_until_the_memory_of_the_engine_before_it_is_free(lab: Lab, driver: Driver) -> None:
    before = lab.run("m")
    driver.says(TAKEN_MIB)
    os.kill(before["pid"], 9)
    lab.state("preparing")
    asked = len(driver.calls)
    until(lambda: len(driver.calls) > asked + 10, "the daemon looks again and again")
    assert len(lab.starts("m")) == 1
    released = time.monotonic()
    driver.says(IDLE_MIB)
    after = lab.ready("m")
    assert lab.starts("m")[1]["time"] > released
    assert after["margin_mib"] == before["margin_mib"]
    assert [attempt["outcome"] for attempt in after["attempts"]] == ["killed", "ready"]
    assert not lab.events("memory_kept")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The driver of this process."""
    return install(str(tmp_path / "stub"), monkeypatch)


def test_memory_that_does_not_come_back_is_waited_for_once_and_told(here: Driver) -> None:
    async def run() -> tuple[int, int]:
        memory = DeviceMemory(GpuReader((Nvml(),)))
        await memory.before_start()
        here.says(TAKEN_MIB)
        memory.ended()
        first = await memory.until_released(0.3)
        return first, await memory.until_released(PATIENCE_S)

    began = time.monotonic()
    assert anyio.run(run) == (TAKEN_MIB - IDLE_MIB, 0)
    took_s = time.monotonic() - began
    assert took_s >= 0.3 and in_time(took_s, PATIENCE_S / 2)


# 42. A driver that hangs.


def test_a_driver_that_hangs_slows_one_question_and_nothing_piles_up(lab: Lab, driver: Driver) -> None:
    pid = lab.run("m")["pid"]
    until(lambda: shown(lab) == [(0, IDLE_MIB)], "the device is shown")
    assert lab.daemon is not None
    driver.says(TAKEN_MIB, hang=True)
    until(lambda: [lab.status(), driver.unanswered][1], "a call hangs")
    threads = len(os.listdir(f"/proc/{lab.daemon.pid}/task"))
    for _ in range(20):
        began = time.monotonic()
        assert shown(lab) == [(0, IDLE_MIB)]
        assert in_time(time.monotonic() - began, 1.0)

    assert driver.unanswered == 1
    assert len(os.listdir(f"/proc/{lab.daemon.pid}/task")) <= threads + 1
    lab.ask("r").check_complete(8)

    os.kill(pid, 9)
    until(lambda: len(lab.starts("m")) == 2, "an engine is started though nobody knows the memory")
    lab.ready("m")
    assert driver.unanswered == 1
    driver.says(TAKEN_MIB)
    until(lambda: shown(lab) == [(0, TAKEN_MIB)], "the driver is read again")
    driver.says(IDLE_MIB)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_a_daemon_ends_while_its_driver_hangs(lab: Lab, driver: Driver, when: str) -> None:
    if when == "from the start":
        driver.says(IDLE_MIB, hang=True)

    lab.run("m")
    driver.says(IDLE_MIB, hang=True)
    until(lambda: [lab.status(), driver.unanswered][1], "a call hangs")
    began = time.monotonic()
    lab.end()
    assert lab.daemon is not None and lab.daemon.returncode == 0
    assert in_time(time.monotonic() - began, LATE_S + 2.0)


# 53. A device vanishes.


def test_an_engine_that_lost_its_device_is_not_started_again_and_again(lab: Lab, driver: Driver) -> None:
    driver.says(IDLE_MIB, IDLE_MIB)
    lab.model("m", {"die_at": "request", "after": 1, "signal": "ABRT", "say": LOST}, engine="fake-upstream")
    profile = Path(lab.root, "config", "profiles", "m.toml")
    text = profile.read_text()
    lab.serve("m")
    until(lambda: shown(lab) == [(0, IDLE_MIB), (1, IDLE_MIB)], "both devices are shown")
    driver.says(IDLE_MIB)
    lab.replayed.add("r")
    answer = lab.ask("r")
    assert answer.status == 424
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["driver"]
    assert "GPU is lost" in status["attempts"][0]["evidence"]
    assert len(lab.starts("m")) == 1
    assert profile.read_text() == text
    until(lambda: shown(lab) == [(0, IDLE_MIB)], "the other device is still shown")


def test_a_driver_that_goes_away_takes_no_daemon_with_it(lab: Lab, driver: Driver) -> None:
    pid = lab.run("m")["pid"]
    driver.says(IDLE_MIB, error=True)
    until(lambda: shown(lab) == [], "no device is shown")
    os.kill(pid, 9)
    until(lambda: len(lab.starts("m")) == 2, "the engine is started again")
    lab.ready("m")
    lab.ask("r").check_complete(8)


def test_one_device_that_fails_does_not_hide_the_others(here: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = sys.modules["pynvml"]
    here.says(IDLE_MIB, TAKEN_MIB)
    reader = GpuReader((Nvml(),), max_age_s=0)
    assert [each.used_mib for each in reader.read()] == [IDLE_MIB, TAKEN_MIB]
    monkeypatch.setattr(stub, "nvmlDeviceGetCount", lambda: 3)
    assert [each.index for each in reader.read()] == [0, 1]
