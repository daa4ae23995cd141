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
    Evict,
    LoadedBeside,
    MemoryLook,
    Refuse,
    Settling,
    Start,
    Use,
    Wait,
    WaitingStart,
    decide,
    return_slack_mib,
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
    RulesChanged,
    Told,
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
    Prepare,
    Preparing,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    describe,
    instance_of,
)
from orchestrator.core.fleet.resident import step_resident
from orchestrator.core.fleet.resident_states import (
    NOBODY,
    CancelRequested,
    EndCause,
    ResidentEvent,
    SleepRequested,
    SlotWoke,
    StopAllRequested,
    SwitchFinished,
    SwitchOperation,
    SwitchRequested,
    UpRequested,
    has_process,
    slot_of,
    state_is_active,
)
from orchestrator.core.fleet.restart import RestartPolicy


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
            turn.look(event)
        case SlotWoke():  # 8
            turn.step_slot(event.slot, event)
        case _:
            turn.report(event)

    turn.settle()
    return turn.fleet, tuple(turn.effects)


class _FleetTurn:
    """One step in the making: the fleet so far and the effects collected."""

    def __init__(self, fleet: Fleet, now: float, policy: RestartPolicy) -> None:
        self.fleet = fleet
        self.now = now
        self.policy = policy
        self.effects: list[FleetEffect] = []

    def name_focus(self, event: UpRequested | SwitchRequested, *, keep: bool) -> None:
        fleet, focus = self.fleet, self.fleet.focus
        seat = fleet.seat_of(event.target.profile)  # 1.1
        stays = focus is None or keep or self._is_pinned(focus)
        if seat is None:
            seat = event.slot if focus is None or (stays and self._is_used(focus)) else focus  # 1.2, 1.3

        for operation, move in fleet.moves.items():
            if operation != event.slot and move.seat != seat:
                self.step_seat(move.seat, CancelRequested(operation))

        self._take_over(seat)
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
            self._take_over(seat)
            self.step_seat(seat, event)
        else:  # it has just gone
            operation = SwitchOperation(event.slot, None, event.target, event.strategy, self.now)
            cause = EndCause("interrupted", f"{event.target.profile} is not loaded any more")
            self.effects.append(SwitchFinished(operation, False, False, cause, 0.0, 0.0))

    def load(self, event: LoadRequested) -> None:
        seat = self.fleet.seat_of(event.target.profile)
        if seat is None:
            if self._has_process_of(event.target.profile):  # 2.2
                return

            # 2.4; what nobody is in can be taken, and is the focus then.
            free = self.fleet.focus is not None and not self._is_used(self.fleet.focus)
            seat = self.fleet.focus if free and self.fleet.focus is not None else event.slot
            if self.fleet.focus is None:
                self.fleet = replace(self.fleet, focus=seat)
        else:
            resident = self.fleet.residents[seat]
            if not event.by_client:
                self._take_over(seat)

            ends = resident.busy and not state_is_active(resident.state)
            if resident.switch is not None or ends or state_is_active(resident.state):  # 2.1, 2.2
                return

            if event.by_client and isinstance(resident.state, Backoff):
                return

        if event.by_client:  # 2.3, 2.4
            self.fleet = replace(self.fleet, guests=self.fleet.guests | {seat})

        self.step_seat(seat, UpRequested(event.target, event.slot))

    def _take_over(self, seat: str) -> None:
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
            crowded = self._is_crowded(self.fleet.seat_with(slot), slot, event.failure)
            event = replace(event, failure=replace(event.failure, crowded=True)) if crowded else event

        self.step_slot(slot, event, crowded=crowded)

    def look(self, event: Looked) -> None:
        wanted = {each.profile: each.oldest_s for each in event.demand}
        for waiting in tuple(self.fleet.waiting.values()):  # 7.1
            if waiting.by_client and waiting.profile not in wanted:
                self.step_seat(waiting.seat, SleepRequested(None))

        for profile, use in event.use.items():  # 7.2
            if profile not in wanted and not event.unassigned:
                self._unload_idle(profile, use)

        settling = self.fleet.settling
        if settling is not None and event.memory is not None and settling.is_over(event.memory.free, self.now):
            self.fleet = replace(self.fleet, settling=None)

        for instance in tuple(self.fleet.waiting):  # 7.3
            self._drop_stale()
            if instance in self.fleet.waiting:
                self._decide(instance, wanted, event)

    def _unload_idle(self, profile: str, use: Use) -> None:
        limit_s = 0.0 if self.fleet.pinned(profile) else self.fleet.rules.idle_limit_s(profile)
        seat = self.fleet.seat_of(profile)
        if seat is None or not limit_s or use.in_flight or use.idle_s < limit_s:
            return

        resident = self.fleet.residents[seat]
        if resident.switch is None and isinstance(resident.state, Ready):
            target = resident.state.start_record.target
            self.step_seat(seat, SleepRequested(resident.state.instance))
            text = f"{target} had no request for {use.idle_s:.0f} s; the next one loads it again"
            self.effects.append(Told("unloaded", text))

    def _decide(self, instance: str, wanted: dict[str, float], event: Looked) -> None:
        fleet = self.fleet
        start = fleet.waiting[instance]
        others = self._others(start, event)
        waited_s = wanted.get(start.profile, 0.0) if start.by_client else self.now - start.since
        settling = fleet.settling is not None
        rules = fleet.rules
        decision = decide(
            start, waited_s, others, event.memory, self._moving(instance), settling, rules.stay, rules.max
        )
        match decision:
            case Start():
                self._let_in(instance)
            case Wait(why=why):
                self.fleet = replace(fleet, waiting={**fleet.waiting, instance: replace(start, why=why)})
            case Evict(seats=seats, why=why):
                assert event.memory is not None
                self._evict(instance, seats, why, event.memory)
            case Refuse(why=why):
                self._refuse(start, instance, why)

    def _evict(self, instance: str, seats: tuple[str, ...], why: str, memory: MemoryLook) -> None:
        """End these, and remember what memory is expected back."""
        names = [profile for seat in seats if (profile := self._profile_of(seat)) is not None]
        holds = [memory.holds.get(name, {}) for name in names]
        # Drivers give memory back a while after a process's end; the host's is back with it.
        gives = {place: sum(each.get(place, 0) for each in holds) for place in memory.free if place != "host"}
        expected = {place: memory.free[place] + mib - return_slack_mib(mib) for place, mib in gives.items() if mib}
        states = (state for seat in seats for state in self.fleet.residents[seat].slots.values())
        instances = frozenset(filter(None, map(instance_of, states)))
        for seat in seats:
            self.step_seat(seat, SleepRequested(None))

        start = replace(self.fleet.waiting[instance], crowded=False, why=f"{', '.join(names)} makes room")
        self.fleet = replace(
            self.fleet,
            settling=Settling(instances, expected),
            waiting={**self.fleet.waiting, instance: start},
        )
        self.effects.append(Told("evicted", f"{', '.join(names)} is unloaded to make room: {why}"))

    def _refuse(self, start: WaitingStart, instance: str, why: str) -> None:
        if start.by_client and self.fleet.residents[start.seat].switch is None:
            self.step_seat(start.seat, SleepRequested(None))
            self.effects.append(Refused(start.profile, why))
        else:
            hint = f"`orch unload` one of them, or `orch down` it, then `orch load {start.profile}`"
            self.step_slot(
                slot_of(instance), NotStarted(instance, Failure("device_oom", why, action="give_up", hint=hint))
            )

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
            if move.leaves is not None and move.leaves in self.fleet.residents and not self._is_pinned(move.leaves):
                self.step_seat(move.leaves, StopAllRequested())
        elif finished.operation.origin is None and resident.switch is None and not isinstance(resident.state, Ready):
            self.step_seat(
                move.seat, StopAllRequested(force=True)
            )  # what was in focus goes on, and nothing else is new

    def settle(self) -> None:
        """Let starts in where nobody else holds memory, and drop what is over."""
        self._drop_stale()
        for instance, start in tuple(self.fleet.waiting.items()):
            if not any(self._holds(seat) for seat, _ in self.fleet.beside(start.seat)):
                self._let_in(instance)

        self._drop_failed_guests()
        settling = self.fleet.settling
        if settling is not None and settling.until is None and not self._lives(settling.instances):
            self.fleet = replace(self.fleet, settling=replace(settling, until=self.now + RETURN_S))

        kept = {
            seat: each for seat, each in self.fleet.residents.items() if seat == self.fleet.focus or self._is_used(seat)
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

    def _drop_stale(self) -> None:
        """Forget the starts that were called off."""
        wanted = {instance_of(state) for state in self.fleet.slots.values() if isinstance(state, Preparing)}
        waiting = {name: each for name, each in self.fleet.waiting.items() if name in wanted}
        if len(waiting) != len(self.fleet.waiting):
            self.fleet = replace(self.fleet, waiting=waiting)

    def _let_in(self, instance: str) -> None:
        waiting = dict(self.fleet.waiting)
        start = waiting.pop(instance)
        self.fleet = replace(self.fleet, waiting=waiting)
        self.effects.append(start.prepare)

    def _others(self, start: WaitingStart, event: Looked) -> list[LoadedBeside]:
        """Return the residents that hold memory beside a start."""
        found = []
        for seat, resident in self.fleet.beside(start.seat):
            profile = self._profile_of(seat)
            if profile is None or not self._holds(seat):
                continue

            state, rules = resident.state, self.fleet.rules
            ready = state if isinstance(state, Ready) else None
            busy = sum(has_process(each) or isinstance(each, Preparing) for each in resident.slots.values())
            began = ready.start_record.attempts[-1].started if ready and ready.start_record.attempts else self.now
            found.append(
                LoadedBeside(
                    seat,
                    profile,
                    settled=ready is not None and resident.switch is None and busy == 1,
                    stays=self.fleet.pinned(profile),
                    excluded=rules.policy == "one" or rules.exclude(profile, start.profile),
                    stayed_s=self.now - ready.since if ready else 0.0,
                    load_s=ready.since - began if ready else 0.0,
                    priority=rules.of(profile).priority,
                    use=event.use.get(profile, Use()),
                )
            )

        return found

    def _moving(self, instance: str) -> list[str]:
        """Return the profiles of the instances that hold memory, or are about to, and do not serve."""
        return [
            state.start_record.target.profile
            for state in self.fleet.slots.values()
            if self._takes(state) and not isinstance(state, Ready | Stopped) and instance_of(state) != instance
        ]

    def _is_crowded(self, seat: str | None, slot: str, failure: Failure) -> bool:
        """Return whether a start ran out of memory beside others of whom one can go."""
        state: State = self.fleet.slots.get(slot, Stopped())
        if seat is None or not isinstance(state, Starting | Stopping):
            return False

        ran_out = response_to(failure.failure_class, failure.action, failure.phase) in ("margin", "steps", "host_steps")
        return ran_out and any(self._holds(each) and not self._is_pinned(each) for each, _ in self.fleet.beside(seat))

    def _holds(self, seat: str) -> bool:
        """Return whether a seat holds memory, or is about to: starts that wait do not."""
        resident = self.fleet.residents.get(seat, NOBODY)
        return any(map(self._takes, resident.slots.values()))

    def _takes(self, state: State) -> bool:
        """Return whether an instance in this state holds memory, or is about to."""
        return has_process(state) or (isinstance(state, Preparing) and state.instance not in self.fleet.waiting)

    def _lives(self, instances: frozenset[str]) -> bool:
        return any(has_process(each) and instance_of(each) in instances for each in self.fleet.slots.values())

    def _is_used(self, seat: str) -> bool:
        """Return whether anything is in a seat: a process, a start, a failure that clients are told of, what sleeps."""
        resident = self.fleet.residents[seat]
        return resident.asleep is not None or any(not isinstance(each, Stopped) for each in resident.slots.values())

    def _is_pinned(self, seat: str) -> bool:
        profile = self._profile_of(seat)
        return profile is not None and self.fleet.pinned(profile)

    def _profile_of(self, seat: str) -> str | None:
        """Return the profile that a seat is about; None for an empty one."""
        state = self.fleet.residents.get(seat, NOBODY).state
        return None if isinstance(state, Stopped) else state.start_record.target.profile

    def _has_process_of(self, profile: str) -> bool:
        return any(
            has_process(state) and not isinstance(state, Failed) and state.start_record.target.profile == profile
            for state in self.fleet.slots.values()
            if not isinstance(state, Stopped)
        )
