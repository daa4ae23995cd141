"""What a tuning is about, before it starts anything: a profile on its engine, the machine, the user's requests."""

from __future__ import annotations

import os

from orchestrator.adapters.hardware.cpu_topology import read_topology
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.history import read_requests
from orchestrator.bench.session import BenchShell
from orchestrator.bench.targets import BenchTarget
from orchestrator.bench.tune_forecast import TunePlanner
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.core.starts.cpu_pinning import pinning_of, useful_pins
from orchestrator.core.tune.axes import TuneFacts
from orchestrator.engines.plan_target import find_target
from orchestrator.engines.registry import EngineRegistry


def look_at(shell: BenchShell, target: BenchTarget) -> tuple[TunePlanner, TuneFacts]:
    """Return the planner of a target, and what decides its axes."""
    found = find_target(shell.paths, f"{target.base}@{target.engine}")
    engine = EngineRegistry(shell.paths).resolve(target.engine)
    settings = found.profile.settings
    frame = shell.link.frame()
    rooms = tuple(
        DeviceRoom(gpu["name"], gpu["total_mib"], gpu["total_mib"] - (gpu["others_mib"] or 0)) for gpu in frame["gpus"]
    )
    context = settings.get("context.size") or found.parts[0].context_length or 4096
    slots = settings.get("context.parallel", 1)
    slot_tokens = int(str(context)) // max(1, int(str(slots)))
    total = frame["host"]["memory_total_mib"]
    topology = read_topology()
    planner = TunePlanner(shell.paths, found, engine, rooms, HostRoom(total, total), topology)
    pinning = pinning_of(settings, topology)
    usable = [cpu for cpu in topology if pinning is None or cpu.number in pinning.cpus]
    cpus = len(usable) or len(os.sched_getaffinity(0))
    facts = TuneFacts(
        settings=settings,
        kind=engine.capabilities.kind,
        mtp=planner.geometry.mtp_blocks > 0,
        expert_layers=len(planner.geometry.expert_layers),
        devices=len(rooms) or int(bool(settings.get("memory.rpc"))),
        cores=len({cpu.core for cpu in usable}) or cpus,
        cpus=cpus,
        host_weights=not rooms or bool(planner.geometry.expert_layers),
        context_tokens=slot_tokens,
        pins=useful_pins(topology),
    )
    return planner, facts


def requests_of(paths: Paths, profile: str, since_s: float) -> list[RequestRecord]:
    """Return what clients have asked of a profile.

    :param since_s: Unix time
    """
    return [each for each in read_requests(paths.history_file, since_s) if each.profile == profile]
