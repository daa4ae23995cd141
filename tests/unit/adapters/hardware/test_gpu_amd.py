"""AMD devices, from a tree of files as the amdgpu driver shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader, GpuReading
from orchestrator.adapters.hardware.gpu_amd import AmdSysfs
from tests.fakes.descriptors import no_descriptors_left

MIB = 1 << 20
UEVENT = "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0"
FDINFO = """\
pos:\t0
flags:\t02100002
drm-driver:\tamdgpu
drm-client-id:\t{client}
drm-pdev:\t0000:03:00.0
drm-memory-vram:\t{kib} KiB
drm-memory-gtt:\t16 KiB
drm-engine-gfx:\t0 ns
"""


class Tree:
    """A root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def card(self, number: int, **values: str) -> None:
        for name, text in values.items():
            self.write(f"sys/class/drm/card{number}/device/{name.replace('__', '/')}", f"{text}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.card(
        1,
        device="0x744c",
        uevent=UEVENT,
        unique_id="1f2e3d",
        mem_info_vram_total=str(24560 * MIB),
        mem_info_vram_used=str(9000 * MIB),
        gpu_busy_percent="83",
        hwmon__hwmon4__power1_average="212000000",
        hwmon__hwmon4__power1_cap="303000000",
        hwmon__hwmon4__temp1_input="64000",
        hwmon__hwmon4__freq1_input="2371000000",
        hwmon__hwmon4__freq2_input="1249000000",
    )
    tree.write("sys/class/drm/card1-DP-1/status", "connected\n")
    tree.write("sys/class/drm/renderD128/dev", "226:128\n")
    return tree


def read(tree: Tree, *pids: int) -> list[GpuReading]:
    return list(AmdSysfs(str(tree.root)).query(pids) or ())


def test_everything_that_sysfs_tells_is_read_in_our_units(tree: Tree) -> None:
    assert read(tree) == [
        GpuReading(
            index=0,
            name="AMD 0x744c",
            used_mib=9000,
            total_mib=24560,
            uuid="1f2e3d",
            pci_address="0000:03:00.0",
            vendor="amd",
            utilization=0.83,
            power_w=212.0,
            power_limit_w=303.0,
            temperature_c=64.0,
            sm_clock_mhz=2371,
            memory_clock_mhz=1249,
        )
    ]


def test_what_a_card_does_not_have_is_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.card(0, uevent=UEVENT, mem_info_vram_total=str(512 * MIB), mem_info_vram_used="0")
    assert read(tree) == [
        GpuReading(0, "AMD GPU", 0, 512, uuid="0000:03:00.0", pci_address="0000:03:00.0", vendor="amd")
    ]


def test_an_instant_of_power_is_read_where_there_is_no_average(tree: Tree) -> None:
    (tree.root / "sys/class/drm/card1/device/hwmon/hwmon4/power1_average").unlink()
    tree.card(1, hwmon__hwmon4__power1_input="190000000")
    assert read(tree)[0].power_w == 190.0


def test_memory_of_processes_counts_each_client_once(tree: Tree) -> None:
    tree.write("proc/77/fdinfo/3", FDINFO.format(client=5, kib=2048 * 1024))
    tree.write("proc/77/fdinfo/4", FDINFO.format(client=5, kib=2048 * 1024))
    tree.write("proc/77/fdinfo/5", FDINFO.format(client=6, kib=1024))
    tree.write("proc/77/fdinfo/0", "pos:\t0\nflags:\t0100000\n")
    tree.write("proc/78/fdinfo/3", FDINFO.format(client=7, kib=4096).replace("03:00.0", "04:00.0"))
    assert read(tree, 77, 78, 79)[0].processes == {77: 2049}
    assert read(tree)[0].processes is None


def test_a_client_that_two_processes_have_open_counts_once(tree: Tree) -> None:
    """A compositor gives its descriptor on to its helpers; a fork has the same."""
    tree.write("proc/78/fdinfo/9", FDINFO.format(client=5, kib=2048 * 1024))
    tree.write("proc/77/fdinfo/3", FDINFO.format(client=5, kib=2048 * 1024))
    tree.write("proc/78/fdinfo/3", FDINFO.format(client=8, kib=1024))
    assert read(tree, 78, 77)[0].processes == {77: 2048, 78: 1}


def test_only_descriptors_of_drm_are_read(tree: Tree) -> None:
    tree.write("proc/77/fdinfo/3", FDINFO.format(client=5, kib=2048))
    tree.write("proc/77/fdinfo/4", FDINFO.format(client=6, kib=1024))
    (tree.root / "proc/77/fd").mkdir()
    (tree.root / "proc/77/fd/3").symlink_to("/dev/dri/renderD128")
    (tree.root / "proc/77/fd/4").symlink_to("/home/me/notes")
    assert read(tree, 77)[0].processes == {77: 2}


def test_cards_of_others_are_not_ours(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.card(0, uevent=UEVENT.replace("amdgpu", "xe"), mem_info_vram_total="1", mem_info_vram_used="1")
    tree.card(1, uevent=UEVENT)
    assert AmdSysfs(str(tmp_path)).query(()) is None


def test_a_machine_without_graphics_has_no_such_driver(tmp_path: Path) -> None:
    assert AmdSysfs(str(tmp_path)).query(()) is None


def test_a_card_that_is_gone_is_left_out_and_the_others_keep_their_numbers(tree: Tree) -> None:
    tree.card(10, uevent=UEVENT, mem_info_vram_total=str(512 * MIB), mem_info_vram_used="0")
    tree.card(2, uevent=UEVENT, mem_info_vram_total=str(256 * MIB), mem_info_vram_used="0")
    source = AmdSysfs(str(tree.root))
    assert [(each.index, each.total_mib) for each in source.query(()) or ()] == [(0, 24560), (1, 256), (2, 512)]
    (tree.root / "sys/class/drm/card1/device/mem_info_vram_used").unlink()
    assert [each.index for each in source.query(()) or ()] == [1, 2]


def test_a_process_without_descriptors_left_keeps_its_cards(tree: Tree) -> None:
    reader = GpuReader((AmdSysfs(str(tree.root)),))
    with no_descriptors_left():
        assert (reader.read_now(), reader.age_s) == ((), None)

    assert [each.total_mib for each in reader.read_now()] == [24560]
    with no_descriptors_left():
        assert [each.total_mib for each in reader.read_now()] == [24560]
