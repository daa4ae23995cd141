"""A plan that is unclear, with the engine's own projection in the formula's place.

Imported when it is needed: the wording of engines' logs is a third of what the command costs otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.adapters.paths import Paths
from orchestrator.core.engine_log.loaded_memory import HOST
from orchestrator.core.engine_log.projection import Projection
from orchestrator.core.plan.amounts import NOTHING, Amount
from orchestrator.core.plan.need import Component, Need
from orchestrator.core.plan.plan import Plan, plan_of
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import NeedOf
from orchestrator.core.quantities import MIB
from orchestrator.engines.plan_target import PlanTarget
from orchestrator.engines.projection import NoProjectionError, project


def ask_engine(paths: Paths, target: PlanTarget, plan: Plan, need: NeedOf, *, may_offload: bool) -> tuple[Plan, str]:
    """Return the plan with the engine's own projection of what was asked for, and what came of it, for people."""
    if target.source is None or target.engine is None:
        return plan, "the engine is not asked: that takes a profile and an engine"

    settings, extra_args = target.profile.settings, target.profile.extra_args
    asked = replace(target.source, settings=settings, overrides={}, extra_args=extra_args)
    free_mib = [room.free_mib for room in plan.devices if room.free_mib is not None]
    state = plan.need.devices[0].get("state", NOTHING).low_mib
    try:
        found = project(paths, asked, target.engine, state_mib=state, free_mib=free_mib, engine_runs=False)
    except NoProjectionError as error:
        return plan, error.message

    projected = projected_needs(need, plan.shape, found)
    again = plan_of(plan.subject, plan.devices, plan.host, need=projected, may_offload=may_offload)
    return again, f"asked of {target.engine.id}: its own projection of the compute buffers"


def projected_needs(need: NeedOf, asked: PlanShape, found: Projection) -> NeedOf:
    """Return a need in which the compute buffers of one shape are those that the engine has projected for it."""
    places = sorted(place for place in found.compute if place != HOST)

    def projected(shape: PlanShape) -> Need:
        plan = need(shape)
        if shape != asked or len(places) != len(plan.devices):
            return plan

        devices: list[Mapping[Component, Amount]] = []
        for place, parts in zip(places, plan.devices, strict=True):
            # Both contexts in one figure, in whole MiB each.
            size = found.compute[place]
            kept = dict(parts)
            kept.pop("draft_compute", None)
            kept["compute"] = Amount(size, size + 2 * MIB, "computed")
            devices.append(kept)

        return replace(plan, devices=tuple(devices))

    return projected
