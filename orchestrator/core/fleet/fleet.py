"""All that is loaded, as a pure function: which resident an event is for, what starts beside what, what makes room.

Each resident is a machine of its own (`resident.py`: its slots and its switch). This one is above them: it finds or
makes the seat that an event is for, keeps each start back until the memory is there (`admission.py`), and ends what
nobody uses. With one resident it adds nothing: a start that is alone is let in at once.

The decision tree of `step_fleet`:

1. `UpRequested`, `SwitchRequested`, `FocusRequested`: a person names what requests without a model go to. The seat is
   1.1 that of its profile, if it has one; 1.2 a new one, if there is no focus or what is in it stays (`keep`, or it is
   pinned); 1.3 else that of the focus, as one switch. Another move of the focus that is under way is cancelled.
   Once it serves it is the focus; what was it before, in another seat, is ended unless it stays.
   `RestartRequested`: 1.4 the seat of its profile, and the focus stays where it is.
   `RestoreRequested`: 1.5 the seat of its profile, that of the focus unless what is there stays, or a new one; what is
   in it ends, whatever switch was under way, and no failure brings it back.
2. `LoadRequested`: 2.1 its profile serves, is on its way, or will be started again: nothing. 2.2 It ends, or is
   one side of a switch: not yet; whoever wants it asks again. 2.3 It was unloaded, or failed: again in its seat.
   2.4 A new seat.
3. `DownRequested`: these seats, or all; what they held is forgotten. 4. `UnloadRequested`: the next request loads it.
5. `PinRequested`, `RulesChanged`: from the next decision on.
6. `CancelRequested`: the seat whose switch it is.
7. `Looked`: 7.1 starts that clients wanted and nobody waits for any more are dropped. 7.2 What was idle for long is
   unloaded. 7.3 Starts that wait are decided (`admission.decide`).
8. `SlotWoke` and what is reported of one process: the seat of its slot. 8.1 A start that ran out of memory beside
   others of whom one can go is tried the same again after that.

After each: starts that are asked for wait, or go on where nobody else holds memory; what was loaded for clients and has
failed is refused to them; empty seats are dropped.

Invariants, checked by the property tests: a profile has at most one seat; what is let in never exceeds what was free;
who is pinned never goes to make room; each start that waits goes on, is refused, or is not wanted any more.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.failure.reactions import response_to
from orchestrator.core.fleet.admission import (
    RETURN_S,
)
from orchestrator.core.fleet.fleet_states import (
    DownRequested,
    Fleet,
    FleetEffect,
    FleetEvent,
    FocusMove,
    FocusRequested,
    LoadRequested,
    Looked,
    PinRequested,
    Refused,
    RestartRequested,
    RestoreRequested,
    RulesChanged,
    UnloadRequested,
)
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    CheckFailed,
    Exited,
    Failed,
    Failure,
    InstanceEvent,
    NotStarted,
    Starting,
    State,
    Stopped,
    Stopping,
    describe,
)
from orchestrator.core.fleet.looks import look
from orchestrator.core.fleet.resident_states import (
    NOBODY,
    CancelRequested,
    EndCause,
    SleepRequested,
    SlotWoke,
    StopAllRequested,
    SwitchFinished,
    SwitchOperation,
    SwitchRequested,
    UpRequested,
    slot_of,
    state_is_active,
    target_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.fleet.seats import Seats


def step_fleet(
    fleet: Fleet, event: FleetEvent, now: float, policy: RestartPolicy
) -> tuple[Fleet, tuple[FleetEffect, ...]]:
    """Return the fleet that follows, and the effects to perform. Total. The numbers are those of the module."""
    turn = _FleetTurn(fleet, now, policy)
    match event:
        case UpRequested() | SwitchRequested():  # 1
            turn.name_focus(event, keep=False)
        case FocusRequested():
            turn.name_focus(event.switch, keep=event.keep)
        case RestartRequested():  # 1.4
            turn.restart(event.switch)
        case RestoreRequested():  # 1.5
            turn.restore(event)
        case LoadRequested():  # 2
            turn.load(event)
        case DownRequested():  # 3
            turn.take_down(event)
        case UnloadRequested():  # 4
            turn.unload(event.profile)
        case PinRequested():  # 5
            turn.fleet = replace(fleet, pins={**fleet.pins, event.profile: event.pinned})
        case RulesChanged():
            turn.fleet = replace(fleet, rules=event.rules)
        case CancelRequested():  # 6
            turn.cancel(event.operation)
        case Looked():  # 7
            look(turn, event)
        case SlotWoke():  # 8
            turn.step_slot(event.slot, event)
        case _:
            turn.report(event)

    turn.settle()
    return turn.fleet, tuple(turn.effects)


class _FleetTurn(Seats):
    """What each event does."""

    def name_focus(self, event: UpRequested | SwitchRequested, *, keep: bool) -> None:
        fleet, focus = self.fleet, self.fleet.focus
        seat = fleet.seat_of(event.target.profile)  # 1.1
        stays = focus is None or keep or self.is_pinned(focus)
        if seat is None:
            seat = event.slot if focus is None or (stays and self.is_used(focus)) else focus  # 1.2, 1.3

        for operation, move in fleet.moves.items():
            if operation != event.slot and move.seat != seat:
                self.step_seat(move.seat, CancelRequested(operation))

        self.take_over(seat)
        if focus is None or seat == focus:
            self.fleet = replace(self.fleet, focus=seat)
            self.step_seat(seat, event)
            return

        if isinstance(event, UpRequested):
            event = SwitchRequested(event.target, event.slot, "replace")

        move = FocusMove(seat, None if stays else focus)
        self.fleet = replace(self.fleet, moves={**self.fleet.moves, event.slot: move})
        self.step_seat(seat, event)

    def restart(self, event: SwitchRequested) -> None:
        seat = self.fleet.seat_of(event.target.profile)
        if seat is not None:
            self.take_over(seat)
            self.step_seat(seat, event)
        else:  # it has just gone
            operation = SwitchOperation(event.slot, None, event.target, event.strategy, self.now)
            cause = EndCause("interrupted", f"{event.target.profile} is not loaded any more")
            self.effects.append(SwitchFinished(operation, False, False, cause, 0.0, 0.0))

    def restore(self, event: RestoreRequested) -> None:
        seat, focus = self.fleet.seat_of(event.target.profile), self.fleet.focus
        if seat is None:
            seat = event.slot if focus is None or not (event.focus and self._makes_room(focus, event.keeps)) else focus

        for operation, move in self.fleet.moves.items():
            if event.focus and move.seat != seat:
                self.step_seat(move.seat, CancelRequested(operation))

        # The end of a switch in this seat is not to empty it.
        self.fleet = replace(self.fleet, moves={name: m for name, m in self.fleet.moves.items() if m.seat != seat})
        self.take_over(seat)
        if event.focus or focus is None:
            self.fleet = replace(self.fleet, focus=seat)

        resident = self.fleet.residents.get(seat, NOBODY)
        switch, serves = resident.switch, state_is_active(resident.state) and target_of(resident.state) == event.target
        if switch is not None and switch.operation.origin == event.target != switch.operation.target:
            self.step_seat(seat, CancelRequested(switch.operation.id))  # what has not ended yet serves on
            return

        if not resident.holding and (switch is not None or not serves):
            self.step_seat(seat, StopAllRequested())

        self.step_seat(seat, UpRequested(event.target, event.slot))

    def _makes_room(self, seat: str, keeps: frozenset[str]) -> bool:
        """Return whether what is in a seat may be replaced."""
        resident = self.fleet.residents[seat]
        stays = resident.profiles & keeps or self.is_pinned(seat)
        return not stays or not self.is_used(seat)

    def load(self, event: LoadRequested) -> None:
        seat = self.fleet.seat_of(event.target.profile)
        if seat is None:
            if self.has_process_of(event.target.profile):  # 2.2
                return

            # 2.4; what nobody is in can be taken, and is the focus then.
            free = self.fleet.focus is not None and not self.is_used(self.fleet.focus)
            seat = self.fleet.focus if free and self.fleet.focus is not None else event.slot
            if self.fleet.focus is None:
                self.fleet = replace(self.fleet, focus=seat)
        else:
            resident = self.fleet.residents[seat]
            if not event.by_client:
                self.take_over(seat)

            ends = resident.busy and not state_is_active(resident.state)
            if resident.switch is not None or ends or state_is_active(resident.state):  # 2.1, 2.2
                return

            if event.by_client and isinstance(resident.state, Backoff):
                return

        if event.by_client:  # 2.3, 2.4
            self.fleet = replace(self.fleet, guests=self.fleet.guests | {seat})

        self.step_seat(seat, UpRequested(event.target, event.slot))

    def take_over(self, seat: str) -> None:
        """Note that a person wants what clients had asked for: it stays, whether anybody waits for it or not."""
        waiting = {
            name: replace(each, by_client=False) if each.seat == seat else each
            for name, each in self.fleet.waiting.items()
        }
        self.fleet = replace(self.fleet, guests=self.fleet.guests - {seat}, waiting=waiting)

    def take_down(self, event: DownRequested) -> None:
        chosen = {
            seat
            for seat, each in self.fleet.residents.items()
            if not event.profiles or each.profiles & set(event.profiles)
        }
        for seat in chosen:
            self.step_seat(seat, StopAllRequested(event.force))

        left = [seat for seat in self.fleet.residents if seat not in chosen]
        if self.fleet.focus in chosen and left:
            self.fleet = replace(self.fleet, focus=left[0])

    def unload(self, profile: str) -> None:
        seat = self.fleet.seat_of(profile)
        if seat is not None:
            self.step_seat(seat, SleepRequested(None))

    def cancel(self, operation: str) -> None:
        for seat, resident in self.fleet.residents.items():
            if resident.switch is not None and resident.switch.operation.id == operation:
                self.step_seat(seat, CancelRequested(operation))

    def report(self, event: InstanceEvent) -> None:
        slot = slot_of(event.instance)
        crowded = False
        if isinstance(event, Exited | CheckFailed | NotStarted):
            crowded = self.is_crowded(self.fleet.seat_with(slot), slot, event.failure)
            event = replace(event, failure=replace(event.failure, crowded=True)) if crowded else event

        self.step_slot(slot, event, crowded=crowded)

    def settle(self) -> None:
        """Let starts in where nobody else holds memory, and drop what is over."""
        self.drop_stale()
        for instance, start in tuple(self.fleet.waiting.items()):
            if not any(self.holds(seat) for seat, _ in self.fleet.beside(start.seat)):
                self.let_in(instance)

        self._drop_failed_guests()
        settling = self.fleet.settling
        if settling is not None and settling.until is None and not self.lives(settling.instances):
            self.fleet = replace(self.fleet, settling=replace(settling, until=self.now + RETURN_S))

        kept = {
            seat: each for seat, each in self.fleet.residents.items() if seat == self.fleet.focus or self.is_used(seat)
        }
        if len(kept) != len(self.fleet.residents):
            self.fleet = replace(self.fleet, residents=kept, guests=self.fleet.guests & set(kept))

    def _drop_failed_guests(self) -> None:
        """What was loaded for clients and failed is refused to them for a while, and leaves nothing to be seen."""
        for seat in self.fleet.guests:
            state = self.fleet.residents[seat].state if seat in self.fleet.residents else None
            if seat != self.fleet.focus and isinstance(state, Failed):
                profile, failure = state.start_record.target.profile, state.failure
                text = f"`{profile}` did not start: {describe(failure)}"
                self.effects.append(Refused(profile, text, failure.permanent))
                self.step_seat(seat, StopAllRequested())

    def is_crowded(self, seat: str | None, slot: str, failure: Failure) -> bool:
        """Return whether a start ran out of memory beside others of whom one can go."""
        state: State = self.fleet.slots.get(slot, Stopped())
        if seat is None or not isinstance(state, Starting | Stopping):
            return False

        ran_out = response_to(failure.failure_class, failure.action, failure.phase) in ("margin", "steps", "host_steps")
        return ran_out and any(self.holds(each) and not self.is_pinned(each) for each, _ in self.fleet.beside(seat))
