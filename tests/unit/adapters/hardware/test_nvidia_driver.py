from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.nvidia_driver import (
    DriverMissing,
    DriverUnresponsive,
    compute_capabilities,
    describe_driver,
    pcie_links,
)
from orchestrator.core.setup.machine_speed import PcieLink
from tests.fakes.nvml_driver import IDLE_MIB, TOTAL_MIB, Driver, install

CAPABILITY = "nvmlDeviceGetCudaComputeCapability"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    return install(str(tmp_path / "stub"), monkeypatch)


def device(**told: object) -> dict[str, object]:
    return {"used_mib": IDLE_MIB, "total_mib": TOTAL_MIB, "told": told}


def test_a_driver_is_described_by_its_version_and_cards(driver: Driver) -> None:
    driver.says(IDLE_MIB, IDLE_MIB)
    found = describe_driver()
    assert (found.version, found.cards) == ("580.1", (("Stub 0", TOTAL_MIB), ("Stub 1", TOTAL_MIB)))


def test_a_driver_that_cannot_be_opened_is_told_from_one_that_is_missing(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.says(IDLE_MIB, error=True)
    with pytest.raises(DriverUnresponsive, match="the driver is not loaded"):
        describe_driver()

    stub = sys.modules["pynvml"]
    monkeypatch.setattr(stub, "NVMLError", stub.NVMLError_LibraryNotFound)
    with pytest.raises(DriverMissing):
        describe_driver()


def test_each_compute_capability_is_told_once_in_order(driver: Driver) -> None:
    driver.shows(*(device(**{CAPABILITY: pair}) for pair in ([12, 0], [8, 6], [12, 0])))
    assert compute_capabilities() == ((8, 6), (12, 0))


def test_a_driver_that_does_not_answer_has_no_compute_capabilities(driver: Driver) -> None:
    driver.says(IDLE_MIB, error=True)
    assert compute_capabilities() == ()
    driver.says(IDLE_MIB)  # a card that does not know its own
    assert compute_capabilities() == ()


def test_links_are_told_with_the_cards_own_width(driver: Driver, tmp_path: Path) -> None:
    told = {
        "nvmlDeviceGetCurrPcieLinkGeneration": 1,
        "nvmlDeviceGetMaxPcieLinkGeneration": 3,
        "nvmlDeviceGetGpuMaxPcieLinkGeneration": 4,
        "nvmlDeviceGetCurrPcieLinkWidth": 4,
        "nvmlDeviceGetMaxPcieLinkWidth": 4,
        "nvmlDeviceGetPciInfo": {"busId": "00000000:0B:00.0"},
    }
    card = tmp_path / "0000:0b:00.0"
    card.mkdir()
    (card / "max_link_width").write_text("16\n")
    driver.shows(device(**told), device())
    assert pcie_links(str(tmp_path)) == (
        PcieLink("Stub 0", 1, 3, 4, 4, 16),
        PcieLink("Stub 1", None, None, None, None, None),
    )


def test_without_an_answer_there_are_no_links(driver: Driver) -> None:
    driver.says(IDLE_MIB, error=True)
    assert pcie_links() == ()
