"""`orch doctor --measure`: how fast this machine reads what decoding reads, and what that means for one profile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from orchestrator.adapters.hardware.cpu_topology import read_topology
from orchestrator.adapters.hardware.disk_speed import DiskNotMeasured, file_system_of, measure_disk
from orchestrator.adapters.hardware.machine import machine_name
from orchestrator.adapters.hardware.memory_speed import measure_memory
from orchestrator.adapters.hardware.nvidia_driver import pcie_links
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.speeds import CardLinks, DiskSpeed, HostSpeed, SpeedStore
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.api import client
from orchestrator.core.errors import NotRunningError, OrchError
from orchestrator.core.plan.geometry import GeometryError
from orchestrator.core.plan.plan import plan_of
from orchestrator.core.plan.speed.forecast import decode_amounts
from orchestrator.core.setup.doctor import CheckResult
from orchestrator.core.setup.machine_speed import (
    PcieLink,
    ReadSpeed,
    judge_disk,
    judge_link,
    judge_memory,
    judge_profile,
)
from orchestrator.core.setup.memory_modules import MemoryModule, memory_modules
from orchestrator.core.starts.cpu_pinning import pinning_of
from orchestrator.doctor.examine import DoctorContext, examine
from orchestrator.engines.plan import devices_used, gather, measure_devices, measure_host
from orchestrator.engines.plan_target import PlanTarget, find_target

DMI_TABLE = "/sys/firmware/dmi/tables/DMI"
STATUS_S = 2.0
LOOK_S = 0.1
DRIVER_S = 3.0
"""For a driver in trouble, which may never answer."""

_AT_REST = ("stopped", "failed", "ready")


@dataclass(frozen=True)
class MeasuredMachine:
    """What was measured, and what it means.

    :param kept: the fastest that this machine's memory was read, now or earlier: what forecasts go by
    :param disk_gb_s: of the model's file; None where it was not measured
    """

    memory: ReadSpeed
    kept: HostSpeed
    disk_gb_s: float | None
    findings: tuple[CheckResult, ...]


def measure(paths: Paths, profile: str | None) -> MeasuredMachine:
    """Measure for the threads, the file and the placement of a profile, and keep what is found for forecasts.

    An engine that serves is not made to wait: while a request runs or waits, or a model loads, nothing is measured,
    and a request that comes meanwhile ends the measurement within a third of a second. Of one that was ended, or
    beside which a model began to load, nothing is kept.

    :param profile: None takes the memory with a thread for each core, and no file
    :raises OrchError: when the machine is in use, or the profile cannot be read
    """
    refuse_while_used(paths)
    may_go_on = refusal_of_requests(paths)
    target = find_target(paths, profile) if profile is not None else None
    context = DoctorContext(paths, os.environ, Tools())
    links: list[PcieLink] = []

    def check_links(_: DoctorContext) -> Iterator[CheckResult]:
        links.extend(pcie_links())
        return map(judge_link, links)

    disk_gb_s, findings = None, list(examine(context, {"pcie": check_links}, DRIVER_S))
    if target is not None:
        disk_gb_s, finding = _disk(target, may_go_on)
        findings.append(finding)

    threads, cpus = _threads_of(target)
    memory = measure_memory(threads, may_go_on, cpus=cpus)
    refuse_while_used(paths)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    store, machine = SpeedStore(paths.speeds_file), machine_name()
    now = HostSpeed(round(memory.best, 2), memory.readers, when)
    disks = {} if target is None or not disk_gb_s else {file_system_of(_file(target)): DiskSpeed(disk_gb_s, when)}
    store.record_machine(machine, now, disks, CardLinks(tuple(links), when) if links else None)
    kept = store.host(machine) or now
    findings += judge_memory(memory, read_modules())
    if target is not None and profile is not None:
        findings.append(_meaning(profile, target, kept.gb_s))

    return MeasuredMachine(memory, kept, disk_gb_s, tuple(findings))


def refuse_while_used(paths: Paths) -> None:
    """:raises OrchError: while a request runs or waits, a model loads, or a daemon does not say"""
    with suppress(NotRunningError):
        status = client.status(paths.control_socket, STATUS_S)
        gateway, moving = status["gateway"], [each for each in status["instances"] if each["state"] not in _AT_REST]
        if gateway["in_flight"] or gateway["queued"] or moving or status["switching"]:
            raise _in_use(f"{moving[0]['profile']} is {moving[0]['state']}" if moving else "a request is under way")


def refusal_of_requests(paths: Paths) -> Callable[[], None]:
    """Return a function that raises `OrchError` while a request runs or waits, or a daemon does not say.

    It may be called at any rate: every 0.1 s at most it asks the daemon, for the list of requests alone, since a whole
    status would itself read files, devices and the page cache while they are measured.
    """
    asked_at = float("-inf")

    def refuse() -> None:
        nonlocal asked_at
        if monotonic() - asked_at < LOOK_S:
            return

        with suppress(NotRunningError):
            if json.loads(client.request(paths.control_socket, "/v1/requests", timeout_s=STATUS_S))["requests"]:
                raise _in_use("a request is under way")

        asked_at = monotonic()

    return refuse


def _in_use(what: str) -> OrchError:
    return OrchError(
        f"nothing is measured: {what}, and reading memory would slow it down",
        hint="measure in a quiet moment; `orch requests` shows what runs",
    )


def usual_profile(paths: Paths, default: str) -> str | None:
    """Return the profile that is loaded in a daemon of this home, else the default one; None without either.

    :param default: as the configuration has it, empty for none
    """
    try:
        status = client.status(paths.control_socket, STATUS_S)
    except NotRunningError:
        return default or None

    return status["profile"] or default or None


def read_modules(table: str = DMI_TABLE) -> tuple[MemoryModule, ...] | None:
    """Return the memory modules by the firmware's table; None where this user may not read it."""
    try:
        with open(table, "rb") as file:
            return memory_modules(file.read())
    except PermissionError:
        return None
    except OSError:  # no firmware that tells: a container or a small virtual machine
        return ()


def _threads_of(target: PlanTarget | None) -> tuple[int, tuple[int, ...]]:
    """Return the threads with which the engine generates, and the CPUs that it is bound to, empty for none.

    Both engines start a thread for each core unless they are told.
    """
    settings = target.profile.settings if target is not None else {}
    topology, told = read_topology(), settings.get("cpu.threads")
    pinning = pinning_of(settings, topology)
    cpus = pinning.cpus if pinning is not None else ()
    cores = len(cpus) or len({cpu.core for cpu in topology}) or len(os.sched_getaffinity(0))
    return told if isinstance(told, int) else cores, cpus


def _file(target: PlanTarget) -> str:
    """Return the model's largest file, by which its disk is measured."""
    return max(target.parts, key=lambda part: part.file_size).path


def _disk(target: PlanTarget, may_go_on: Callable[[], None]) -> tuple[float | None, CheckResult]:
    path = _file(target)
    try:
        speed = measure_disk(path, may_go_on)
    except DiskNotMeasured as error:
        return None, judge_disk(path, None, target.size_bytes, str(error))

    return speed, judge_disk(path, speed, target.size_bytes)


def _meaning(profile: str, target: PlanTarget, speed_gb_s: float) -> CheckResult:
    """Return what a token takes where the plan for what is free now places the weights."""
    try:
        subject = gather(target.profile, target.engine, target.parts)
    except GeometryError as error:
        return CheckResult("note", "profile", f"{profile}: what a token reads is unknown: {error.message}")

    devices = devices_used(target.profile.settings, measure_devices())
    shape = plan_of(subject, devices, measure_host(), advise=False).shape
    basis = "as it would be placed now" if devices else "without a device"
    return judge_profile(profile, decode_amounts(subject.geometry, shape, subject.build.kind)[2], speed_gb_s, basis)


def figures(found: MeasuredMachine) -> Iterator[tuple[str, object]]:
    """Yield the figures under their names in JSON."""
    yield "host_gb_s", round(found.memory.best, 2)
    yield "middle_gb_s", round(found.memory.middle, 2)
    yield "disturbed", found.memory.disturbed
    yield "kept", {**found.kept._asdict(), "gb_s": round(found.kept.gb_s, 2)}
    yield "processes", found.memory.readers  # its name from when each reader was a process
    yield "disk_gb_s", None if found.disk_gb_s is None else round(found.disk_gb_s, 3)
