"""The machine's answer to "who holds device memory": devices, processes, and what could not be seen. Blocks.

NVIDIA's driver tells the memory of every process; of others' cards the kernel tells it, process by process. What a
process is, /proc says.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Collection, Mapping

from orchestrator.adapters.hardware.drm_cards import AMD_DRIVER, INTEL_DRIVERS, find_cards
from orchestrator.adapters.hardware.drm_clients import DrmMemory, vram_by_device
from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.process.linux import all_pids, read_proc
from orchestrator.adapters.sysfs import read_text
from orchestrator.core.vram.process_kinds import ProcessFacts
from orchestrator.core.vram.report import DeviceFigures, VramReport, vram_report

PATIENCE_S = 8.0
"""Without its persistence daemon NVIDIA's driver takes seconds to wake its cards."""

HOST_PIDS = "pid:[4026531836]"
"""The pid namespace of the host: PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h."""

_CONTAINER = re.compile(r"(docker|libpod|podman|containerd|crio|kubepods|lxc|nspawn)")


def read_vram(gpus: GpuReader, profiles: Mapping[int, str], root: str = "/") -> VramReport:
    """Return who holds the memory of each device.

    :param gpus: told already which processes are our engines, see `GpuReader.watch`
    :param profiles: of the engines that this orch runs, by pid
    :param root: the directory with `sys` and `proc`
    """
    proc = os.path.join(root, "proc")
    pids = all_pids(proc)
    readings = gpus.read_now()
    cards = _other_cards(root)
    asked = any(each.vendor == "amd" for each in readings) or bool(cards)
    drm = vram_by_device(proc, pids) if asked else DrmMemory({}, ())
    devices = []
    for each in readings:
        told = each.vendor == "nvidia" or not each.pci_address
        processes = each.processes if told else _in_mib(drm.held.get(each.pci_address, {}))
        devices.append(
            DeviceFigures(
                each.index, each.name, each.used_mib, each.total_mib, each.reserved_mib, processes,
                "driver" if told else "fdinfo", each.pci_address,
            )
        )  # fmt: skip

    first = max((each.index + 1 for each in devices), default=0)
    for index, address in enumerate((each for each in cards if each in drm.held), first):
        processes = _in_mib(drm.held[address])
        devices.append(DeviceFigures(index, cards[address], None, None, None, processes, "fdinfo", address))

    holding = {pid for each in devices for pid in each.processes or ()}
    facts = {pid: found for pid in holding if (found := process_facts(proc, pid)) is not None}
    return vram_report(devices, facts, profiles, _notes(gpus, root, drm.unreadable))


def process_facts(proc: str, pid: int) -> ProcessFacts | None:
    """Return what /proc shows of a process; None when it shows none of this number."""
    directory = os.path.join(proc, str(pid))
    comm = read_proc(f"{directory}/comm")
    if comm is None:
        return None

    program = ""
    with contextlib.suppress(OSError):  # another user's
        program = os.readlink(os.path.join(directory, "exe"))

    words = (read_proc(f"{directory}/cmdline") or b"").rstrip(b"\0").split(b"\0")
    container = _CONTAINER.search(_text(read_proc(f"{directory}/cgroup")))
    return ProcessFacts(
        pid=pid,
        comm=_text(comm).strip(),
        words=tuple(_text(word) for word in words if word),
        program=program,
        user=_other_user(directory),
        container=container[1] if container else None,
    )


def _other_cards(root: str) -> dict[str, str]:
    """Return PCI address to name of each card with memory of its own whose driver tells no totals: all but NVIDIA's and
    AMD's."""
    cards = {}
    for card in find_cards(root):
        if card.driver not in ("nvidia", AMD_DRIVER) and not card.integrated:
            vendor = "Intel" if card.driver in INTEL_DRIVERS else "GPU"
            cards[card.address] = f"{vendor} {read_text(card.device, 'device')} ({card.driver})"

    return cards


def _notes(gpus: GpuReader, root: str, unreadable: Collection[int]) -> list[str]:
    """Return what could not be seen, for people."""
    notes = []
    if gpus.late:
        notes.append("a driver has not answered in time: what is shown may be old, or lack its devices")

    proc = os.path.join(root, "proc")
    programs = sum(1 for pid in unreadable if read_proc(f"{proc}/{pid}/cmdline"))  # not the kernel's
    if programs:
        what = "1 process" if programs == 1 else f"{programs} processes"
        notes.append(f"{what} of other users could not be looked at: `sudo orch vram` sees them as well")

    try:
        inside = os.readlink(os.path.join(proc, "self/ns/pid")) != HOST_PIDS
    except OSError:  # a tree of a test, or a /proc without namespaces
        inside = False

    if inside:
        notes.append("orch runs in a container: processes outside of it are not seen, their memory is told of nobody")

    return notes


def _in_mib(held: Mapping[int, int]) -> dict[int, int]:
    """Return pid to MiB, without those that hold less than one."""
    return {pid: size >> 20 for pid, size in held.items() if size >> 20}


def _other_user(directory: str) -> str | None:
    """Return the name of the user whose process it is; None where it is this process's own."""
    try:
        uid = os.stat(directory).st_uid
    except OSError:  # gone meanwhile
        return None

    if uid == os.geteuid():
        return None

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of a container, say
        return str(uid)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
