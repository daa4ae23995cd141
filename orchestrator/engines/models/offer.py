"""Which of the models that were found are proposed, and how each would be started."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.core.plan.verdict import Verdict
from orchestrator.core.quantities import MIB
from orchestrator.core.setup.first_profile import Use
from orchestrator.core.setup.found_models import FoundModel, rank
from orchestrator.engines.ask import ask
from orchestrator.engines.locate import BUILT_IN
from orchestrator.engines.models.examine import Examined, examine
from orchestrator.engines.models.first_profile import Proposal, engine_for, propose
from orchestrator.engines.models.pull import room_of
from orchestrator.engines.registry import Engine, EngineRegistry

MOST_OFFERED = 9
MOST_READ = 16
"""Models whose headers are read; the others are told by their names alone."""

HOST_BYTES = 8 << 30
"""Without a device a processor reads all of a model for each token: a larger one is slow, whatever memory there is."""

_DEVICE = re.compile(r"^\s+[A-Za-z]+\d*: (?P<name>.+) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)$")
_ORDER: dict[Verdict, int] = {"fits": 0, "fits_with_offload": 0, "unclear": 1, "does_not_fit": 2}


class EngineHere(NamedTuple):
    """An engine, and the devices that it can use.

    :param blind: devices are there, and this build uses none of them
    """

    engine: Engine
    devices: tuple[DeviceRoom, ...]
    blind: bool


class Offer(NamedTuple):
    """Models that can be started, the one to take first, and why others are not among them."""

    proposals: tuple[Proposal, ...]
    notes: tuple[str, ...]


def engines_here(paths: Paths, measured: Sequence[DeviceRoom]) -> tuple[EngineHere, ...]:
    """Return the engines that are found, those that use this machine's devices first.

    :param measured: what drivers tell of
    """
    registry = EngineRegistry(paths)
    found = []
    added = (name for name in registry.ids() if name not in BUILT_IN)
    for name in ("upstream", "ik-fork", *added, "embedded"):
        try:
            engine = registry.resolve(name)
        except OrchError:
            continue

        seen = devices_seen(engine, paths)
        devices = tuple(measured) if seen is None or (seen and measured) else seen
        found.append(EngineHere(engine, devices, bool(measured) and not devices))

    return tuple(sorted(found, key=lambda each: not each.devices))


def devices_seen(engine: Engine, paths: Paths) -> tuple[DeviceRoom, ...] | None:
    """Return the devices that a build lists; None of one that cannot be asked."""
    if engine.capabilities.find("--list-devices") is None:
        return None

    environment = child_environment(os.environ, state_dir=paths.state, extra={})
    try:
        answer = ask(engine.path, ("--list-devices",), env=environment, cwd="/")
    except OSError:
        return None

    if answer.returncode != 0:
        return None

    matches = filter(None, map(_DEVICE.match, answer.stdout.splitlines()))
    return tuple(DeviceRoom(each["name"], int(each["total"]), int(each["free"])) for each in matches)


def offer(models: Sequence[FoundModel], engines: Sequence[EngineHere], host: HostRoom, use: Use) -> Offer:
    """Return what can be started of these models.

    :param engines: at least one
    """
    room = room_of(engines[0].devices, host)
    notes: list[str] = []
    proposals: list[Proposal] = []
    read = 0
    for model in rank(models, memory_bytes(room.devices, host)):
        if model.usable and read >= MOST_READ:
            continue

        read += model.usable
        try:
            proposals.append(proposal_of(examine(model), engines, host, use))
        except OrchError as error:
            notes.append(error.message + (f" ({error.details[0]})" if error.details else ""))

    return Offer(tuple(sorted(proposals, key=_place)[:MOST_OFFERED]), tuple(notes))


def proposal_of(examined: Examined, engines: Sequence[EngineHere], host: HostRoom, use: Use) -> Proposal:
    """Return how a model would be started.

    :raises OrchError: when it cannot be, with the reason
    """
    engine = engine_for(examined, [each.engine for each in engines])
    here = next(each for each in engines if each.engine is engine)
    room = room_of(here.devices, host)
    return propose(examined, engine, room.devices, room.host, use)


def _place(proposal: Proposal) -> tuple[bool, bool, int, float, int]:
    """Return by what proposals are put in order: what runs well, the largest first; then what is slow."""
    examined = proposal.examined
    slow = proposal.host_gb_a_token if proposal.is_slow else 0.0
    runs = _ORDER[proposal.plan.judgement.verdict]
    return examined.kind != "chat", not examined.has_template, runs, slow, -examined.model.size_bytes


def memory_bytes(devices: Sequence[DeviceRoom], host: HostRoom) -> int:
    """Return how large a model may be that is proposed first."""
    if devices:
        return sum(room.free_mib or room.total_mib or 0 for room in devices) * MIB

    return min((host.total_mib or 0) * MIB * 2 // 3, HOST_BYTES)
