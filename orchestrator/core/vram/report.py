"""Who holds the memory of each device, in figures that add up to what the device has in use.

For each device, in MiB:

    used = each process + reserved by the driver + told of nobody - counted twice

`told of nobody` is what is left: what a driver does not attribute, and processes that may not be seen. `counted twice`
is more than zero only where processes together tell of more than is in use: each of them counts the buffers that it
shares with others, such as a window's with the compositor (drm-usage-stats.rst).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from orchestrator.core.vram.process_kinds import Identity, ProcessFacts, ProcessKind, identify

RECLAIM = "`orch vram reclaim --plan`"


class VramHolder(TypedDict):
    """A process that holds memory of a device. `name` is the program's, or the profile's where `kind` is `orch`.

    `release` says what would free it, `frees_mib` how much that is: null where it is not known, or nothing of it.
    """

    pid: int
    kind: ProcessKind
    name: str
    user: str | None
    container: str | None
    mib: int
    release: str | None
    frees_mib: int | None


class VramDevice(TypedDict):
    """One device. `told_by` is where the processes come from; null when nothing tells them. See the module for the sum.

    `pci_address` is empty where the driver does not tell it (NVIDIA). `used_mib` and `untold_mib` are null where the
    driver tells what processes hold and not what is in use (Intel).
    """

    index: int
    name: str
    pci_address: str
    total_mib: int | None
    used_mib: int | None
    free_mib: int | None
    told_by: Literal["driver", "fdinfo"] | None
    holders: list[VramHolder]
    reserved_mib: int
    untold_mib: int | None
    counted_twice_mib: int


class VramReport(TypedDict):
    """Who holds device memory; the answer of `GET /v1/vram` and of `orch vram --json`."""

    version: Literal[1]
    devices: list[VramDevice]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What drivers and the kernel tell of a device; None is "not told". `processes` is pid to MiB."""

    index: int
    name: str
    used_mib: int | None
    total_mib: int | None
    reserved_mib: int | None
    processes: Mapping[int, int] | None
    told_by: Literal["driver", "fdinfo"]
    pci_address: str = ""


def vram_report(
    devices: Sequence[DeviceFigures],
    facts: Mapping[int, ProcessFacts],
    profiles: Mapping[int, str],
    notes: Sequence[str] = (),
) -> VramReport:
    """Return who holds the memory of each device, the largest first.

    :param facts: of the processes that /proc shows, by pid
    :param profiles: of the engines that this orch runs, by pid
    :param notes: what could not be seen, for people
    """
    return VramReport(version=1, devices=[_device(each, facts, profiles) for each in devices], notes=list(notes))


def _device(figures: DeviceFigures, facts: Mapping[int, ProcessFacts], profiles: Mapping[int, str]) -> VramDevice:
    """Return a device with its holders, the largest first, and with what of its memory in use nobody holds."""
    processes = figures.processes or {}
    holders = [_holder(pid, mib, facts.get(pid), profiles) for pid, mib in processes.items()]
    used_mib, reserved_mib = figures.used_mib, figures.reserved_mib or 0
    rest_mib = None if used_mib is None else used_mib - reserved_mib - sum(processes.values())
    return VramDevice(
        index=figures.index,
        name=figures.name,
        pci_address=figures.pci_address,
        total_mib=figures.total_mib,
        used_mib=used_mib,
        free_mib=None if used_mib is None or figures.total_mib is None else max(figures.total_mib - used_mib, 0),
        told_by=None if figures.processes is None else figures.told_by,
        holders=sorted(holders, key=lambda each: (-each["mib"], each["pid"])),
        reserved_mib=reserved_mib,
        untold_mib=None if rest_mib is None else max(rest_mib, 0),
        counted_twice_mib=max(-(rest_mib or 0), 0),
    )


def _holder(pid: int, mib: int, facts: ProcessFacts | None, profiles: Mapping[int, str]) -> VramHolder:
    """Return a process with what it is, what it holds, and what would free that."""
    who = Identity("hidden", "a process that /proc does not show here")
    if facts is not None or pid in profiles:
        who = identify(facts or ProcessFacts(pid, ""), profiles)

    release = release_of(who)
    return VramHolder(
        pid=pid,
        kind=who.kind,
        name=who.name,
        user=facts.user if facts else None,
        container=facts.container if facts else None,
        mib=mib,
        release=release,
        frees_mib=mib if release is not None and who.kind not in ("compositor", "desktop") else None,
    )


def release_of(who: Identity) -> str | None:
    """Return what a person can do to free the memory of a program; None where orch knows of nothing."""
    match who.kind:
        case "orch":
            return f"`orch unload {who.name}`"
        case "engine":
            return {"Ollama": "`ollama stop MODEL`", "LM Studio": "`lms unload --all`"}.get(who.name, "stop it")
        case "compositor" | "desktop":
            return RECLAIM
        case "browser":
            return "close it, or turn off its hardware acceleration"
        case "game":
            return "quit it"
        case "other" | "hidden":
            return None


def report_lines(report: VramReport) -> list[tuple[str, str, str]]:
    """Return a report as rows of amount, owner and what frees it; a device's first row has only an owner."""
    rows: list[tuple[str, str, str]] = []
    for device in report["devices"]:
        rows.append(("", device_title(device), ""))
        rows += ((f"{each['mib']} MiB", _owner(each), each["release"] or "") for each in device["holders"])
        if device["reserved_mib"]:
            rows.append((f"{device['reserved_mib']} MiB", "reserved by the driver", ""))

        if device["untold_mib"]:
            why = "told of nobody" if device["told_by"] else "held by processes that the driver does not tell"
            rows.append((f"{device['untold_mib']} MiB", why, ""))

        if device["counted_twice_mib"]:
            rows.append((f"-{device['counted_twice_mib']} MiB", "shared buffers, counted in each process above", ""))

    return rows


def device_title(device: VramDevice) -> str:
    """Return the line above the holders of a device: its name, and how much of it is in use."""
    used, total = device["used_mib"], device["total_mib"]
    if used is None or total is None:
        return f"GPU {device['index']}  {device['name']}: its driver does not tell how much is in use"

    return f"GPU {device['index']}  {device['name']}: {used} of {total} MiB in use, {device['free_mib']} free"


def _owner(holder: VramHolder) -> str:
    """Return who holds memory, `browser: Firefox (pid 2400, user me)`."""
    kind = "" if holder["kind"] in ("other", "hidden") else f"{holder['kind']}: "
    whose = [f"pid {holder['pid']}"]
    whose += [f"user {holder['user']}"] if holder["user"] else []
    whose += [f"in {holder['container']}"] if holder["container"] else []
    return f"{kind}{holder['name']} ({', '.join(whose)})"
