"""The answer of `orch plan`: the plan with what this machine has learned, a forecast of its speed, and every source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.hardware.disk_speed import file_system_of
from orchestrator.adapters.hardware.machine import machine_name
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.speeds import SpeedStore
from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.plan.need import COLD_OVERHEAD_MIB
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, Plan, plan_of
from orchestrator.core.plan.report.document import FigureSource
from orchestrator.core.plan.speed.outlook import SpeedOutlook
from orchestrator.core.setup.machine_speed import cold_read_text, judge_link
from orchestrator.core.starts.readback import MeasuredStart, learned_beside_mib, learned_needs
from orchestrator.core.starts.start import engine_places
from orchestrator.engines.plan import devices_used, gather, speed_outlook
from orchestrator.engines.plan_target import PlanTarget
from orchestrator.engines.registry import engine_key


@dataclass(frozen=True)
class PlanAnswer:
    """A plan, how fast it would be, and where the figures come from."""

    plan: Plan
    speed: SpeedOutlook
    sources: tuple[FigureSource, ...]


def answer_plan(
    paths: Paths, target: PlanTarget, devices: Sequence[DeviceRoom], host: HostRoom, *, here: bool
) -> PlanAnswer:
    """Return the answer for a target.

    :param here: the devices are this machine's, of which earlier starts have measured what a context takes
    :raises OrchError: when the header does not say enough
    """
    subject = gather(target.profile, target.engine, target.parts)
    used = devices_used(target.profile.settings, devices)
    free = [room.free_mib for room in used if room.free_mib is not None]
    starts = _starts(paths, target)
    beside = learned_beside_mib(starts) if here else None
    formula = subject.needs(
        overhead_mib=COLD_OVERHEAD_MIB if beside is None else beside, free=free if len(free) == len(used) else ()
    )
    model = _identity(target)
    its_own = [start for start in starts if model is not None and start.model == model]
    need = learned_needs(formula, its_own)
    # A model without a profile is placed as it fits; a profile may say where everything goes.
    places = target.source is None or engine_places(target.profile, subject.build.kind)
    plan = plan_of(subject, used, host, need=need, may_offload=places)
    said: list[str] = []
    learned_needs(formula, its_own, said)(plan.shape)
    if plan.judgement.verdict == "unclear" and here and used and len(free) == len(used):
        from orchestrator.engines.plan_projected import ask_engine

        plan, answered = ask_engine(paths, target, plan, need, may_offload=places)
        said.append(answered)

    build = target.engine.build if target.engine else ""
    speed = speed_outlook(paths, subject.geometry, plan.shape, subject.build, build, plan.devices)
    sources = _sources(target, plan, said, measured=beside is not None)
    return PlanAnswer(plan, speed, (*sources, *_machine_sources(paths, target, cards=here and bool(used))))


def _starts(paths: Paths, target: PlanTarget) -> list[MeasuredStart]:
    try:
        return [] if target.engine is None else StartStore(paths.starts_file).find(engine_key(target.engine))
    except OSError:
        return []


def _identity(target: PlanTarget) -> str | None:
    try:
        return file_identity(target.parts[0].path)
    except OSError:  # it is in a repository
        return None


def _sources(target: PlanTarget, plan: Plan, read_back: Sequence[str], *, measured: bool) -> tuple[FigureSource, ...]:
    geometry = plan.subject.geometry
    build = target.engine.build if target.engine else "(not installed: its newest build)"
    formula = f"formula for {target.profile.engine} {build}"
    if not geometry.measured:
        formula += f", not compared with an engine for {geometry.architecture}"

    context = "measured on this machine" if measured else "reports of others: not measured on this card yet"
    return (
        FigureSource("weights, KV cache, state", f"the header of {target.model}"),
        FigureSource("compute buffers", formula),
        *(FigureSource("what the engine takes", said) for said in read_back),
        FigureSource("context, modules, growth", context),
        *(FigureSource("not covered", gap) for gap in geometry.gaps),
    )


def _machine_sources(paths: Paths, target: PlanTarget, *, cards: bool) -> Iterator[FigureSource]:
    """Yield what `orch doctor --measure` found on this machine: what a cold start reads, and how cards are linked.

    :param cards: the plan is for the cards of this machine
    """
    store, machine = SpeedStore(paths.speeds_file), machine_name()
    path = max(target.parts, key=lambda part: part.file_size).path
    if os.path.exists(path):  # it is in a repository otherwise
        place = file_system_of(path)
        if (disk := store.disk(machine, place)) is not None:
            text = f"reads {cold_read_text(disk.gb_s, target.size_bytes)}: {disk.gb_s:.2f} GB/s"
            yield FigureSource("a cold start", f"{text}, measured of {place} on {disk.when[:10]}")

    if cards and (links := store.links(machine)) is not None:
        for link in links.links:
            yield FigureSource("link to the host", f"{judge_link(link).text}, measured on {links.when[:10]}")
