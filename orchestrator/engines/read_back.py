"""From what a start said of its memory to a record of it, and to the figures beside their plan. Blocking: a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.engine_log.loaded_memory import HOST, LoadedMemory
from orchestrator.core.plan.amounts import Amount
from orchestrator.core.plan.need import Component
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart, contradictions
from orchestrator.core.starts.start import StartPlan
from orchestrator.engines.start_plan import StartPlanner


class ReadBack(NamedTuple):
    """A start as it was planned with the devices that it turned out to have, and as it was measured.

    :param contradicts: what the build took against the formula, for people
    """

    plan: StartPlan
    start: MeasuredStart
    contradicts: tuple[str, ...]


def read_back(
    planner: StartPlanner,
    profile: EngineProfile,
    memory: LoadedMemory,
    *,
    build: str,
    model_path: str,
    beside: Mapping[str, int],
    hidden_mib: int | None,
    now: str,
) -> ReadBack | None:
    """Return what a start took; None where it said nothing, or cannot be planned.

    :param build: its key
    :param beside: device to bytes in use there that no line of the log has
    :param now: RFC 3339
    :raises OSError: when the model's file is gone
    """
    places = memory.by_place()
    names = sorted(name for name in places if name != HOST)
    plan = planner.plan(profile, len(names), by_formula=True) if places else None
    if plan is None:
        return None

    start = MeasuredStart(
        build=build,
        model=file_identity(model_path),
        shape=plan.shape,
        fitted=plan.fitted or not plan.certain,  # then the layers may be anywhere
        when=now,
        devices=tuple(MeasuredDevice(name, places[name], beside.get(name)) for name in names),
        host=places.get(HOST, {}),
        hidden_mib=hidden_mib,
    )
    contradicts = tuple(map(str, contradictions(plan.need, start))) if plan.certain else ()
    return ReadBack(plan, start, contradicts)


def keep(paths: Paths, found: ReadBack, profile: EngineProfile) -> None:
    """Keep a start for the plans to come, with what had been planned.

    :raises OSError: when it cannot be written
    """
    need = found.plan.need
    planned = {device.name: _figures(parts) for device, parts in zip(found.start.devices, need.devices, strict=True)}
    about = {
        "profile": profile.name,
        "engine": profile.engine,
        "planned": {**planned, HOST: _figures(need.host)},
        "contradicts": list(found.contradicts),
    }
    StartStore(paths.starts_file).record(found.start, about)


def _figures(parts: Mapping[Component, Amount]) -> dict[str, list[object]]:
    return {name: [amount.low_bytes, amount.high_bytes, amount.kind] for name, amount in parts.items()}
