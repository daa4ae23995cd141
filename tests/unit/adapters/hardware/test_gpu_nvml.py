"""NVIDIA devices: what is told, what is not, and drivers in trouble."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader, GpuReading
from orchestrator.adapters.hardware.gpu_nvml import Nvml
from tests.fakes.nvml_driver import IDLE_MIB, TOTAL_MIB, Driver, install
from tests.support import until

MIB = 1 << 20
EVERYTHING = {
    "nvmlDeviceGetUUID": "GPU-1",
    "nvmlDeviceGetUtilizationRates": {"gpu": 97, "memory": 40},
    "nvmlDeviceGetPowerUsage": 168_500,
    "nvmlDeviceGetEnforcedPowerLimit": 170_000,
    "nvmlDeviceGetTemperature 0": 71,
    "nvmlDeviceGetClockInfo 1": 1837,
    "nvmlDeviceGetClockInfo 2": 7300,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1 | 0x4 | 0x20,
    "nvmlDeviceGetPcieThroughput 1": 2048,
    "nvmlDeviceGetPcieThroughput 0": 512,
    "nvmlDeviceGetTotalEnergyConsumption": 12_500,
    "nvmlDeviceGetComputeRunningProcesses": [{"pid": 41, "usedGpuMemory": 6000 * MIB}],
    "nvmlDeviceGetGraphicsRunningProcesses": [
        {"pid": 41, "usedGpuMemory": 6000 * MIB},
        {"pid": 42, "usedGpuMemory": 90 * MIB},
    ],
}


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    return install(str(tmp_path / "stub"), monkeypatch)


def device(told: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"used_mib": 6500, "total_mib": TOTAL_MIB, "told": told, **more}


def only(source: Nvml) -> GpuReading:
    readings = source.query(())
    assert readings is not None and len(readings) == 1
    return readings[0]


def test_everything_that_a_driver_tells_is_read_in_our_units(driver: Driver) -> None:
    driver.shows(device(EVERYTHING, reserved_mib=260))
    assert only(Nvml()) == GpuReading(
        index=0,
        name="Stub 0",
        used_mib=6500,
        total_mib=TOTAL_MIB,
        uuid="GPU-1",
        processes={41: 6000, 42: 90},
        utilization=0.97,
        power_w=168.5,
        power_limit_w=170.0,
        temperature_c=71.0,
        sm_clock_mhz=1837,
        memory_clock_mhz=7300,
        throttle=("power_cap", "thermal"),
        pcie_rx_mib_s=2.0,
        pcie_tx_mib_s=0.5,
        energy_j=12.5,
        reserved_mib=260,
    )


def test_what_a_device_does_not_support_is_none_and_not_zero(driver: Driver) -> None:
    driver.shows(device({}))
    assert only(Nvml()) == GpuReading(0, "Stub 0", 6500, TOTAL_MIB)


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_each_figure_may_be_missing_without_the_others(driver: Driver, name: str) -> None:
    driver.shows(device({each: value for each, value in EVERYTHING.items() if each != name}))
    whole = {each for each in GpuReading.__slots__ if getattr(only(Nvml()), each) in (None, (), "")}
    assert len(whole - {"reserved_mib", "throttle", "pci_address"}) <= 1


def test_memory_hidden_by_a_container_is_not_known(driver: Driver) -> None:
    hidden = {"nvmlDeviceGetComputeRunningProcesses": [{"pid": 41, "usedGpuMemory": None}]}
    driver.shows(device(hidden))
    assert only(Nvml()).processes is None


@pytest.mark.parametrize(
    "garbled",
    [
        {"pid": 0xFFFFFFFF, "usedGpuMemory": 90 * MIB},
        {"pid": 0, "usedGpuMemory": 90 * MIB},
        {"pid": 41, "usedGpuMemory": TOTAL_MIB * MIB + 1},
    ],
)
def test_a_process_list_of_another_layout_is_asked_for_in_version_2(driver: Driver, garbled: dict[str, int]) -> None:
    name = "nvmlDeviceGetComputeRunningProcesses"
    sound = {"pid": 41, "usedGpuMemory": 6000 * MIB}
    driver.shows(device({name: [sound, garbled], f"{name}_v2": [sound]}))
    assert only(Nvml()).processes == {41: 6000}
    driver.shows(device({name: [sound, garbled]}))
    assert only(Nvml()).processes is None


def test_what_blocks_or_hardly_changes_is_asked_rarely(driver: Driver) -> None:
    driver.shows(device(EVERYTHING))
    source = Nvml()
    assert only(source).pcie_rx_mib_s == 2.0
    driver.shows(device({**EVERYTHING, "nvmlDeviceGetPcieThroughput 1": 0, "nvmlDeviceGetPowerUsage": 30_000}))
    again = only(source)
    assert (again.pcie_rx_mib_s, again.power_w) == (2.0, 30.0)
    assert only(Nvml()).pcie_rx_mib_s == 0.0


def test_a_device_that_fell_off_the_bus_is_left_out_and_comes_back(driver: Driver, monkeypatch: Any) -> None:
    import pynvml

    driver.says(IDLE_MIB, IDLE_MIB)
    source = Nvml()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    driver.says(IDLE_MIB)
    assert [each.index for each in source.query(()) or ()] == [0]
    driver.says(IDLE_MIB, IDLE_MIB)
    assert [each.index for each in source.query(()) or ()] == [0, 1]


def test_without_a_driver_nobody_asks_again(driver: Driver) -> None:
    driver.says(IDLE_MIB, error=True)
    reader = GpuReader((Nvml(),), max_age_s=0)
    assert reader.read() == ()
    assert reader.age_s is None
    asked = len(driver.calls)
    assert [reader.read() for _ in range(5)] == [()] * 5
    assert len(driver.calls) == asked


def test_a_driver_that_hangs_leaves_the_last_reading_and_its_age(driver: Driver) -> None:
    reader = GpuReader((Nvml(),), max_age_s=0, patience_s=0.2)
    assert [each.used_mib for each in reader.read()] == [IDLE_MIB]
    driver.says(7000, hang=True)
    began = time.monotonic()
    assert [each.used_mib for each in reader.read()] == [IDLE_MIB]
    assert 0.2 <= time.monotonic() - began < 2.0
    assert [each.used_mib for each in reader.read()] == [IDLE_MIB]
    assert driver.unanswered == 1
    assert reader.age_s is not None and reader.age_s >= 0.2
    driver.says(7000)
    until(lambda: [each.used_mib for each in reader.read()] == [7000], "the driver is read again")


class Counted:
    """A source with devices of one vendor."""

    def __init__(self, *indexes: int) -> None:
        self.indexes = indexes

    def query(self, pids: object) -> tuple[GpuReading, ...]:
        return tuple(GpuReading(index, "x", 1, 2) for index in self.indexes)


def test_devices_of_two_vendors_keep_their_numbers_when_one_is_lost() -> None:
    first, second = Counted(0, 1), Counted(0)
    reader = GpuReader((first, second), max_age_s=0)
    assert [each.index for each in reader.read()] == [0, 1, 2]
    first.indexes = (0,)
    assert [each.index for each in reader.read()] == [0, 2]
