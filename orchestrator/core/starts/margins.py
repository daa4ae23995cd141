"""What a build's fit really leaves free, against what it was told to leave: one margin means the same on both engines.

Upstream's probe allocates a hybrid's recurrent state, reads the free memory meanwhile, and adds the state to the need
once more, so that as much stays free beside the margin. The fork's fit counts neither the logits of a whole batch nor
the copies that a quantised cache is converted to while serving: as much of the margin is used. Both are computed, and
the margin that the engine is given is moved by it. What the fork's MTP context takes was not measured, and is left to
the margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from orchestrator.core.plan.amounts import NOTHING, Amount
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.need import COLD_GROWTH_MIB, Component
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.readback import MeasuredStart
from orchestrator.core.starts.start import StartPlan

LEAST_MARGIN_MIB = 64
"""No fit is told to leave less, whatever it hides, but by the profile itself."""

STATE_COUNTED_TWICE_FROM = 11434
"""The first upstream build that was seen to; others once a start of theirs has shown it."""

_SEEN_FROM_MIB = 32
"""A smaller state does not tell whether it was counted twice."""


class MarginOffset(NamedTuple):
    """How much less than its margin a fit is given, MiB (negative: more), and why, for people."""

    mib: int
    reason: str


def margin_offset(
    plan: StartPlan, extra_args: Sequence[str] = (), starts: Sequence[MeasuredStart] = ()
) -> MarginOffset | None:
    """Return how far the margin of a fit is moved; None where it means what it says, or that is not known.

    :param starts: of any model on this build
    """
    if not plan.fitted or plan.geometry.gaps or not plan.certain or extra_args:
        return None

    if plan.build.kind == "upstream":
        state = min((parts.get("state", NOTHING).low_bytes for parts in plan.whole.devices), default=0)
        hidden = state // MIB
        if hidden and counts_state_twice(plan.build.number, starts):
            return MarginOffset(hidden, f"this build's fit keeps the recurrent state, {hidden} MiB, free a second time")

        return None

    missing = round(max((_missing_in_fork(plan, parts) for parts in plan.whole.devices), default=0) / MIB)
    if not missing:
        return None

    return MarginOffset(-missing, f"the fork's fit leaves {missing} MiB of buffers out of its sum")


def counts_state_twice(number: int | None, starts: Sequence[MeasuredStart]) -> bool:
    """Return whether an upstream build's fit does, by its starts, or by its number where none has shown it."""
    for start in reversed(starts):
        state = sum(device.sizes.get("state", 0) for device in start.devices) // MIB
        if start.hidden_mib is not None and state >= _SEEN_FROM_MIB:
            return 2 * start.hidden_mib >= state

    return number is not None and number >= STATE_COUNTED_TWICE_FROM


def moved_margin(profile: EngineProfile, offset: MarginOffset | None) -> tuple[EngineProfile, str | None]:
    """Return the profile with the margin that the engine is given, and a note on it; as it was without one."""
    before = profile.settings.get("memory.fit_margin")
    if offset is None or before is None:
        return profile, None

    after: Value
    if isinstance(before, tuple):
        after = tuple(_moved(int(each), offset) for each in before)
        told = ", ".join(map(str, after))
    elif isinstance(before, int):
        after = _moved(before, offset)
        told = str(after)
    else:
        return profile, None

    note = f"memory.fit_margin is passed as {told} so that what it says stays free: {offset.reason}"
    return replace(profile, settings={**profile.settings, "memory.fit_margin": after}), note


def own_estimate(geometry: Geometry, shape: PlanShape) -> int:
    """Return the compute buffer that the fork's fit counts with, bytes."""
    tokens = shape.ubatch_in(shape.context_tokens)
    row = 4 * geometry.embedding * tokens
    if geometry.expert_layers:
        return geometry.experts_used * (row + 8 * geometry.expert_feed_forward * tokens) + 2 * row

    return 8 * tokens * max((layer.feed_forward for layer in geometry.trunk), default=0) + 3 * row


def _missing_in_fork(plan: StartPlan, parts: Mapping[Component, Amount]) -> int:
    geometry, tokens = plan.geometry, plan.shape.ubatch_in(plan.shape.context_tokens)
    compute = parts.get("compute", NOTHING)
    takes = compute.high_bytes
    if compute.kind != "computed":  # several devices, a graph that was not measured: the logits are certain
        takes = 4 * tokens * (geometry.vocabulary + 2 * geometry.embedding)

    copies = parts.get("growth", NOTHING).high_bytes - COLD_GROWTH_MIB * MIB
    return max(0, takes - own_estimate(geometry, plan.shape)) + max(0, copies)


def _moved(margin_mib: int, offset: MarginOffset) -> int:
    return max(margin_mib - offset.mib, min(margin_mib, LEAST_MARGIN_MIB))
