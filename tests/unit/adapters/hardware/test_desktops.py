"""Cards, screens, sessions and files of ours, from trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.hardware.desktops import MESA_VENDOR_FILE, desktop_facts
from orchestrator.core.vram.desktop_facts import DesktopFacts, GraphicsCard
from orchestrator.core.vram.process_kinds import ProcessFacts
from orchestrator.core.vram.report import DeviceFigures, VramReport, vram_report
from orchestrator.core.vram.session_files import MARK, RULES
from tests.fakes.descriptors import no_descriptors_left

NOBODY: VramReport = {"version": 1, "devices": [], "notes": []}
SESSION = "[Desktop Entry]\nName={name}\nExec=sway\n"


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def card(self, number: int, driver: str, address: str, screens: dict[str, str], **values: int) -> None:
        self.write(f"sys/class/drm/card{number}/device/uevent", f"DRIVER={driver}\nPCI_SLOT_NAME={address}\n")
        for name, status in screens.items():
            self.write(f"sys/class/drm/card{number}-{name}/status", f"{status}\n")

        for name, value in values.items():
            self.write(f"sys/class/drm/card{number}/device/{name}", f"{value}\n")

    def facts(self, report: VramReport = NOBODY) -> DesktopFacts:
        return desktop_facts(report, str(self.root))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_an_empty_machine_has_nothing(tree: Tree) -> None:
    assert tree.facts() == DesktopFacts()


def test_cards_are_told_with_their_screens_and_what_is_integrated(tree: Tree) -> None:
    tree.card(0, "nvidia", "0000:01:00.0", {"DP-1": "connected", "HDMI-A-1": "disconnected"})
    tree.card(1, "i915", "0000:00:02.0", {"HDMI-A-2": "connected"})
    tree.card(2, "xe", "0000:04:00.0", {})
    tree.card(10, "amdgpu", "0000:0c:00.0", {}, mem_info_vram_total=512 << 20, mem_info_gtt_total=16 << 30)
    tree.card(11, "amdgpu", "0000:03:00.0", {}, mem_info_vram_total=24 << 30, mem_info_gtt_total=16 << 30)
    tree.card(12, "amdgpu", "0000:05:00.0", {}, mem_info_vram_total=4 << 30, mem_info_gtt_total=2 << 30)
    tree.card(13, "ast", "0000:06:00.0", {"VGA-1": "connected"})
    tree.write("sys/class/drm/card14/device/uevent", "DRIVER=simple-framebuffer\n")
    assert tree.facts().cards == (
        GraphicsCard("card0", "nvidia", "0000:01:00.0", integrated=False, screens=("DP-1",)),
        GraphicsCard("card1", "i915", "0000:00:02.0", integrated=True, screens=("HDMI-A-2",)),
        GraphicsCard("card2", "xe", "0000:04:00.0", integrated=False),
        GraphicsCard("card10", "amdgpu", "0000:0c:00.0", integrated=True),
        GraphicsCard("card11", "amdgpu", "0000:03:00.0", integrated=False),
        GraphicsCard("card12", "amdgpu", "0000:05:00.0", integrated=False),
    )


def test_sessions_of_others_and_files_of_ours_are_told_apart(tree: Tree) -> None:
    tree.write("/usr/share/wayland-sessions/sway.desktop", SESSION.format(name="Sway"))
    tree.write("/usr/local/share/wayland-sessions/own.desktop", SESSION.format(name="Own"))
    tree.write("/usr/share/xsessions/gone.desktop", SESSION.format(name="Gone") + "Hidden=true\n")
    tree.write("/usr/share/xsessions/README", "no session")
    tree.write("/usr/share/wayland-sessions/orch-sway-software.desktop", MARK + SESSION.format(name="Sway, ours"))
    tree.write(RULES, "# of somebody else\n")
    tree.write(MESA_VENDOR_FILE, "{}")
    facts = tree.facts()
    assert [each.name for each in facts.sessions] == ["Sway", "Own"]
    assert list(facts.written) == ["/usr/share/wayland-sessions/orch-sway-software.desktop"]
    assert RULES in facts.foreign and facts.mesa_vendor_file == MESA_VENDOR_FILE


def test_a_file_that_cannot_be_looked_at_is_not_taken_for_none(tree: Tree) -> None:
    tree.write(RULES, "# of somebody else\n")
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        tree.facts()


def test_only_the_desktops_programs_on_cards_of_their_own_count(tree: Tree) -> None:
    tree.card(0, "amdgpu", "0000:0c:00.0", {}, mem_info_vram_total=512 << 20, mem_info_gtt_total=16 << 30)
    facts = {pid: ProcessFacts(pid, comm) for pid, comm in {1: "kwin_wayland", 2: "firefox", 3: "plasmashell"}.items()}
    integrated = DeviceFigures(1, "AMD", 200, 512, None, {1: 150}, "fdinfo", "0000:0c:00.0")
    card = DeviceFigures(0, "RTX 3060", 600, 12288, None, {1: 300, 2: 90, 3: 40}, "driver")
    silent = DeviceFigures(0, "RTX 3060", 600, 12288, None, None, "driver")
    assert tree.facts(vram_report([card, integrated], facts, {})).held_mib == {"KWin": 300, "Plasma": 40}
    assert tree.facts(vram_report([silent, integrated], facts, {})).held_mib is None
    headless = DeviceFigures(0, "RTX 3060", 90, 12288, None, {2: 90}, "driver")
    assert tree.facts(vram_report([headless], facts, {})).held_mib == {}
    assert tree.facts(vram_report([headless], facts, {}, ["3 processes could not be looked at"])).held_mib is None
