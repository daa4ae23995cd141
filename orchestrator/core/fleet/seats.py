"""The residents in their seats while a step is made: the fleet so far, the effects collected, what steps a resident."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.fleet.admission import (
    WaitingStart,
)
from orchestrator.core.fleet.fleet_states import (
    Fleet,
    FleetEffect,
)
from orchestrator.core.fleet.lifecycle_states import (
    Failed,
    InstanceEvent,
    Prepare,
    Preparing,
    Ready,
    State,
    Stopped,
    instance_of,
)
from orchestrator.core.fleet.resident import step_resident
from orchestrator.core.fleet.resident_states import (
    NOBODY,
    ResidentEvent,
    SlotWoke,
    StopAllRequested,
    SwitchFinished,
    has_process,
)
from orchestrator.core.fleet.restart import RestartPolicy


class Seats:
    """One step in the making.

    :ivar fleet: so far
    :ivar effects: collected so far
    """

    def __init__(self, fleet: Fleet, now: float, policy: RestartPolicy) -> None:
        self.fleet = fleet
        self.now = now
        self.policy = policy
        self.effects: list[FleetEffect] = []

    def step_slot(self, slot: str, event: SlotWoke | InstanceEvent, *, crowded: bool = False) -> None:
        seat = self.fleet.seat_with(slot)
        if seat is not None:
            self.step_seat(seat, event, crowded=crowded)

    def step_seat(self, seat: str, event: ResidentEvent, *, crowded: bool = False) -> None:
        """Step one resident. The starts that it asks for are kept back."""
        resident, effects = step_resident(self.fleet.residents.get(seat, NOBODY), event, self.now, self.policy)
        self.fleet = replace(self.fleet, residents={**self.fleet.residents, seat: resident})
        for effect in effects:
            match effect:
                case Prepare():
                    waiting = WaitingStart(seat, effect, self.now, seat in self.fleet.guests, crowded)
                    self.fleet = replace(self.fleet, waiting={**self.fleet.waiting, effect.instance: waiting})
                case SwitchFinished():
                    self.effects.append(effect)
                    self._finish_move(effect)
                case _:
                    self.effects.append(effect)

    def _finish_move(self, finished: SwitchFinished) -> None:
        move = self.fleet.moves.get(finished.operation.id)
        if move is None:
            return

        moves = {name: each for name, each in self.fleet.moves.items() if name != finished.operation.id}
        self.fleet = replace(self.fleet, moves=moves)
        resident = self.fleet.residents[move.seat]
        if finished.ok:
            self.fleet = replace(self.fleet, focus=move.seat)
            if move.leaves is not None and move.leaves in self.fleet.residents and not self.is_pinned(move.leaves):
                self.step_seat(move.leaves, StopAllRequested())
        elif finished.operation.origin is None and resident.switch is None and not isinstance(resident.state, Ready):
            self.step_seat(move.seat, StopAllRequested(force=True))  # all is as it was before

    def let_in(self, instance: str) -> None:
        waiting = dict(self.fleet.waiting)
        start = waiting.pop(instance)
        self.fleet = replace(self.fleet, waiting=waiting)
        self.effects.append(start.prepare)

    def drop_stale(self) -> None:
        """Forget the starts that were called off."""
        wanted = {instance_of(state) for state in self.fleet.slots.values() if isinstance(state, Preparing)}
        waiting = {name: each for name, each in self.fleet.waiting.items() if name in wanted}
        if len(waiting) != len(self.fleet.waiting):
            self.fleet = replace(self.fleet, waiting=waiting)

    def holds(self, seat: str) -> bool:
        """Return whether a seat holds memory, or is about to: starts that wait do not."""
        resident = self.fleet.residents.get(seat, NOBODY)
        return any(map(self.takes, resident.slots.values()))

    def takes(self, state: State) -> bool:
        """Return whether an instance in this state holds memory, or is about to."""
        return has_process(state) or (isinstance(state, Preparing) and state.instance not in self.fleet.waiting)

    def lives(self, instances: frozenset[str]) -> bool:
        return any(has_process(each) and instance_of(each) in instances for each in self.fleet.slots.values())

    def is_used(self, seat: str) -> bool:
        """Return whether anything is in a seat: a process, a start, a failure that clients are told of, what sleeps."""
        resident = self.fleet.residents[seat]
        return resident.asleep is not None or any(not isinstance(each, Stopped) for each in resident.slots.values())

    def is_pinned(self, seat: str) -> bool:
        profile = self.profile_of(seat)
        return profile is not None and self.fleet.pinned(profile)

    def profile_of(self, seat: str) -> str | None:
        """Return the profile that a seat is about; None for an empty one."""
        state = self.fleet.residents.get(seat, NOBODY).state
        return None if isinstance(state, Stopped) else state.start_record.target.profile

    def has_process_of(self, profile: str) -> bool:
        return any(
            has_process(state) and not isinstance(state, Failed) and state.start_record.target.profile == profile
            for state in self.fleet.slots.values()
            if not isinstance(state, Stopped)
        )
