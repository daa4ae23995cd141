"""Machines as their drivers and /proc show them: a desktop with two engines, a card without a screen, AMD, Intel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.hardware.gpu_amd import AmdSysfs
from orchestrator.adapters.hardware.gpu_nvml import Nvml
from orchestrator.adapters.hardware.vram_holders import HOST_PIDS, read_vram
from orchestrator.core.vram.report import VramDevice
from tests.fakes.nvml_driver import install

MIB = 1 << 20


class Machine:
    """A root directory with `proc` and `sys`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/pid").symlink_to(HOST_PIDS)

    def write(self, path: str, data: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data)

    def process(self, pid: int, comm: str, *words: str, cgroup: str = "0::/user.slice") -> None:
        self.write(f"proc/{pid}/comm", f"{comm}\n")
        self.write(f"proc/{pid}/cmdline", "\0".join(words) + "\0")
        self.write(f"proc/{pid}/cgroup", f"{cgroup}\n")

    def client(self, pid: int, fd: int, client: int, mib: int, *, address: str, driver: str, region: str) -> None:
        text = f"pos:\t0\ndrm-driver:\t{driver}\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\n"
        self.write(f"proc/{pid}/fdinfo/{fd}", f"{text}drm-resident-{region}:\t{mib << 10} KiB\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


def told(device: VramDevice) -> list[tuple[int, str, str, int]]:
    return [(each["pid"], each["kind"], each["name"], each["mib"]) for each in device["holders"]]


def total(device: VramDevice) -> int:
    rest = device["untold_mib"]
    assert rest is not None
    held = sum(each["mib"] for each in device["holders"])
    return held + device["reserved_mib"] + rest - device["counted_twice_mib"]


def forbid(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """Make a process one of another user, of whom descriptors may not be seen: tests may run as root."""
    listdir = os.listdir

    def guarded(path: str) -> list[str]:
        if path.endswith(f"/{pid}/fdinfo"):
            raise PermissionError(13, "Permission denied", path)

        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)


def entries(**mib: int) -> list[dict[str, int]]:
    return [{"pid": int(pid.removeprefix("p")), "usedGpuMemory": size * MIB} for pid, size in mib.items()]


def test_a_desktop_with_two_engines_on_one_card(machine: Machine, tmp_path: Path, monkeypatch: Any) -> None:
    driver = install(str(tmp_path / "stub"), monkeypatch)
    lists = {
        "nvmlDeviceGetComputeRunningProcesses": entries(p4100=6212, p4200=2870, p2400=431),
        "nvmlDeviceGetGraphicsRunningProcesses": entries(p1800=312, p1830=54, p1900=96, p2400=431, p900=4),
    }
    driver.shows({"used_mib": 10_412, "total_mib": 12_288, "reserved_mib": 376, "told": lists})
    machine.write("sys/class/drm/card0/device/uevent", "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n")
    machine.process(4100, "llama-server", "/opt/ik/llama-server", "-m", "/m/chat.gguf")
    machine.process(4200, "ollama", "/usr/local/bin/ollama", "runner", cgroup="0::/system.slice/docker-9f3.scope")
    machine.process(1800, "kwin_wayland", "/usr/bin/kwin_wayland")
    machine.process(1830, "Xwayland", "/usr/bin/Xwayland", ":0")
    machine.process(1900, "plasmashell", "/usr/bin/plasmashell")
    machine.process(2400, "firefox-bin", "/usr/lib/firefox/firefox-bin")
    forbid(monkeypatch, 4200)
    report = read_vram(GpuReader((Nvml(), AmdSysfs(str(machine.root)))), {4100: "chat"}, str(machine.root))
    (card,) = report["devices"]
    assert told(card) == [
        (4100, "orch", "chat", 6212),
        (4200, "engine", "Ollama", 2870),
        (2400, "browser", "Firefox", 431),
        (1800, "compositor", "KWin", 312),
        (1900, "desktop", "Plasma", 96),
        (1830, "compositor", "X server", 54),
        (900, "hidden", "a process that /proc does not show here", 4),
    ]
    assert [each["container"] for each in card["holders"][:2]] == [None, "docker"]
    assert (card["told_by"], card["reserved_mib"], card["untold_mib"], card["free_mib"]) == ("driver", 376, 57, 1876)
    assert total(card) == card["used_mib"] == 10_412
    assert report["notes"] == []


def test_a_card_without_a_screen(machine: Machine, tmp_path: Path, monkeypatch: Any) -> None:
    driver = install(str(tmp_path / "stub"), monkeypatch)
    lists: dict[str, object] = {f"nvmlDeviceGet{kind}RunningProcesses": [] for kind in ("Compute", "Graphics")}
    driver.shows({"used_mib": 2, "total_mib": 81_559, "reserved_mib": 1, "told": lists})
    (card,) = read_vram(GpuReader((Nvml(),)), {}, str(machine.root))["devices"]
    assert (told(card), card["told_by"], card["untold_mib"], total(card)) == ([], "driver", 1, 2)


@pytest.mark.parametrize("hidden", [None, "unsupported"])
def test_where_the_driver_hides_the_processes_their_memory_is_held_by_others(
    machine: Machine, tmp_path: Path, monkeypatch: Any, hidden: str | None
) -> None:
    driver = install(str(tmp_path / "stub"), monkeypatch)
    name = "nvmlDeviceGetComputeRunningProcesses"
    lists = {} if hidden else {name: [{"pid": 41, "usedGpuMemory": None}]}  # NVML_VALUE_NOT_AVAILABLE
    driver.shows({"used_mib": 900, "total_mib": 8192, "reserved_mib": 100, "told": lists})
    (machine.root / "proc/self/ns/pid").unlink()
    (machine.root / "proc/self/ns/pid").symlink_to("pid:[4026532211]")
    report = read_vram(GpuReader((Nvml(),)), {}, str(machine.root))
    (card,) = report["devices"]
    assert (told(card), card["told_by"], card["untold_mib"], total(card)) == ([], None, 800, 900)
    assert [note for note in report["notes"] if "in a container" in note]


def test_amd_and_intel_by_the_kernels_own_figures(machine: Machine, monkeypatch: Any) -> None:
    for name, text in {
        "vendor": "0x1002",
        "device": "0x744c",
        "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0",
        "mem_info_vram_total": str(24_560 * MIB),
        "mem_info_vram_used": str(9000 * MIB),
    }.items():
        machine.write(f"sys/class/drm/card1/device/{name}", f"{text}\n")

    machine.write("sys/class/drm/card2/device/uevent", "DRIVER=xe\nPCI_SLOT_NAME=0000:04:00.0\n")
    machine.write("sys/class/drm/card2/device/device", "0xe20b\n")
    machine.write("sys/class/drm/card0/device/uevent", "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0\n")
    machine.process(1800, "sway", "sway")
    machine.process(1850, "Xwayland", "Xwayland", ":0")
    machine.process(4100, "llama-server", "/opt/llama-server")
    machine.process(77, "secret", "/usr/bin/secret")
    amd, intel = ("0000:03:00.0", "amdgpu", "vram"), ("0000:04:00.0", "xe", "vram0")
    for pid, fd, client, mib, (address, kind, region) in (
        (1800, 12, 31, 240, amd),
        (1800, 13, 31, 240, amd),  # the same opened file again
        (1850, 5, 31, 240, amd),  # and given on
        (1850, 6, 32, 30, amd),
        (4100, 9, 33, 8600, amd),
        (4100, 10, 4, 512, intel),
        (1800, 14, 2, 64, ("0000:00:02.0", "i915", "system0")),
    ):
        machine.client(pid, fd, client, mib, address=address, driver=kind, region=region)

    forbid(monkeypatch, 77)
    report = read_vram(GpuReader((AmdSysfs(str(machine.root)),)), {4100: "chat"}, str(machine.root))
    card, arc = report["devices"]
    engine, compositor, helper = (4100, "orch", "chat", 8600), (1800, "compositor", "sway", 240), (1850, 30)
    assert told(card)[:2] == [engine, compositor]
    assert [(each["pid"], each["mib"]) for each in card["holders"][2:]] == [helper]
    assert (card["told_by"], card["untold_mib"], total(card)) == ("fdinfo", 130, 9000)
    assert (arc["index"], arc["name"], told(arc)) == (1, "Intel 0xe20b (xe)", [(4100, "orch", "chat", 512)])
    assert report["notes"] == ["1 process of other users could not be looked at: `sudo orch vram` sees them as well"]


def test_a_machine_without_a_device_has_nothing_to_tell(machine: Machine) -> None:
    report = read_vram(GpuReader((AmdSysfs(str(machine.root)),)), {}, str(machine.root))
    assert report == {"version": 1, "devices": [], "notes": []}


def test_a_driver_that_does_not_answer_is_said(machine: Machine, tmp_path: Path, monkeypatch: Any) -> None:
    driver = install(str(tmp_path / "stub"), monkeypatch)
    driver.says(100, hang=True)
    report = read_vram(GpuReader((Nvml(),), patience_s=0.05), {}, str(machine.root))
    driver.says(100)
    assert report["devices"] == []
    assert "has not answered" in report["notes"][0]
