"""What served before somebody tried other targets, and what is left to do until it serves again. Pure.

A client that measures or tries (`orch bench`) holds a lease meanwhile (`daemon/residency/leases.py`). What it owes to
those who were served before is decided here, from what was noted when the lease began and from the fleet as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from orchestrator.core.fleet.fleet_states import Fleet, RestoreRequested
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Ready,
    Stopped,
    Stopping,
    Target,
    describe,
)
from orchestrator.core.fleet.resident_states import (
    EndCause,
    Resident,
    RollingBack,
    StartingNew,
    StoppingOld,
    state_is_active,
    target_of,
)


@dataclass(frozen=True, slots=True)
class ServedTargets:
    """What was there to serve.

    :param focus: what requests without a known model name went to; None where nothing did
    :param beside: what was loaded beside it
    """

    focus: Target | None = None
    beside: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.beside if self.focus is None else (self.focus, *self.beside)

    @property
    def profiles(self) -> frozenset[str]:
        return frozenset(target.profile for target in self.targets)


def served_by(fleet: Fleet) -> ServedTargets:
    """Return what serves, is on its way, would be loaded by the next request, or is wanted and failed."""
    beside = (destination(each) for seat, each in fleet.residents.items() if seat != fleet.focus)
    return ServedTargets(destination(fleet.focused), tuple(target for target in beside if target is not None))


def with_loaded(served: ServedTargets, target: Target) -> ServedTargets:
    """Return what is owed once a person has loaded this beside the rest."""
    if served.focus is not None and served.focus.profile == target.profile:
        return served

    return replace(served, beside=(*_without(served.beside, {target.profile}), target))


def without_profiles(served: ServedTargets, profiles: Collection[str]) -> ServedTargets:
    """Return what is owed once a person has ended these."""
    focus = None if served.focus is not None and served.focus.profile in profiles else served.focus
    return ServedTargets(focus, _without(served.beside, profiles))


def destination(resident: Resident) -> Target | None:
    """Return what serves in a seat, or will by itself; None where nothing does."""
    switch, state = resident.switch, resident.state
    match switch:
        case None:
            pass
        case RollingBack() | StoppingOld(cancelled=True) | StartingNew(cause=EndCause()):
            return switch.operation.origin
        case _:
            return switch.operation.target

    if resident.asleep is not None:
        return resident.asleep

    if state_is_active(state) or isinstance(state, Backoff):
        return target_of(state)

    match state:
        case Draining(then=then) | Stopping(then=then):
            return then
        case Failed():
            return resident.desired
        case _:
            return None


def next_restore(served: ServedTargets, tried: Collection[Target], fleet: Fleet, slot: str) -> RestoreRequested | None:
    """Return what to ask the fleet for next, the focus first; None when nothing is left.

    :param tried: what was asked for already, or cannot be
    :param slot: a fresh id
    """
    for target in served.targets:
        focus = target == served.focus
        if target not in tried and not _is_there(target, fleet, focus=focus):
            return RestoreRequested(target, slot, focus=focus, keeps=served.profiles)

    return None


def left_over(served: ServedTargets, started: Iterable[str], fleet: Fleet) -> tuple[str, ...]:
    """Return the profiles that are there because of the lease alone.

    :param started: what was started under the lease
    """
    there = {target.profile for each in fleet.residents.values() if (target := destination(each)) is not None}
    return tuple(sorted((set(started) - served.profiles) & there))


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """:param problem: why it does not serve again; None when it does"""

    problem: str | None = None


def restore_result(target: Target, fleet: Fleet) -> RestoreResult | None:
    """Return what became of a target that was asked for; None while it is on its way."""
    seat = fleet.seat_of(target.profile)
    resident = fleet.residents[seat] if seat is not None else None
    if resident is None or destination(resident) != target:
        return RestoreResult("it was stopped")

    state = resident.state
    match state:
        case Ready() if resident.switch is None:
            return RestoreResult()
        case Failed(failure=failure) | Backoff(failure=failure):
            again = "; it is tried again" if isinstance(state, Backoff) or state.until is not None else ""
            return RestoreResult(f"{describe(failure)}{again}")
        case _:
            return None


def _is_there(target: Target, fleet: Fleet, *, focus: bool) -> bool:
    """Return whether a target serves or starts where it is to be, with nothing that would lead away from it."""
    seat = fleet.seat_of(target.profile)
    if seat is None or (focus and seat != fleet.focus):
        return False

    resident = fleet.residents[seat]
    state = resident.state
    active = state_is_active(state) and not isinstance(state, Stopped) and target_of(state) == target
    return active and resident.switch is None and resident.asleep is None


def _without(targets: Iterable[Target], profiles: Collection[str]) -> tuple[Target, ...]:
    return tuple(target for target in targets if target.profile not in profiles)
