"""Everything that runs, and the switch from one instance to another, as a pure function.

A slot is one lifecycle machine (`lifecycle.py`). Clients are routed to the `current` one. There is one slot, except
during a switch and while a replaced instance finishes its streams.

    side by side                 the new slot starts beside the old one, which serves on
      beside --new ready--> flip, the old one drains and stops
             --new failed-> the new one is dropped; nobody noticed

    hold and replace             new requests wait in the gateway
      stopping old --old gone--> starting new --new ready--> done
                                 starting new --new failed-> rolling back --old target ready--> rolled back
                                                                          --that failed too---> failed

A replaced instance may end its streams while the next switch begins. Side by side the new slot starts all the same: the
strategy was chosen by the memory that is free beside it. In hold and replace it waits for it as well.

Invariants, checked by the property tests: in hold and replace no process is started before the others are gone (but a
start that was under way beside another one, and is asked for again, goes on); a newer switch takes the place of the one
under way; a slot is dropped only when it has no
process; every switch that was asked for ends in exactly one `SwitchFinished`; every state can be reached from every
other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from orchestrator.core.fleet.lifecycle import step
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    InstanceEvent,
    Ready,
    ResumeRequested,
    StartRequested,
    State,
    Stopped,
    Stopping,
    StopRequested,
    Target,
    WakeAt,
    Woke,
    describe,
)
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    EndCause,
    Resident,
    ResidentEffect,
    ResidentEvent,
    RollingBack,
    SideBySide,
    SleepRequested,
    SlotWoke,
    StartingNew,
    StopAllRequested,
    StoppingOld,
    Switch,
    SwitchFinished,
    SwitchOperation,
    SwitchRequested,
    UpRequested,
    WakeSlot,
    has_process,
    slot_of,
    state_is_active,
    target_of,
)
from orchestrator.core.fleet.restart import RestartPolicy


def step_resident(
    fleet: Resident, event: ResidentEvent, now: float, policy: RestartPolicy
) -> tuple[Resident, tuple[ResidentEffect, ...]]:
    """Return the fleet that follows, and the effects to perform. Total."""
    if isinstance(event, UpRequested | StopAllRequested | SwitchRequested):
        fleet = replace(fleet, asleep=None)

    turn = _Turn(fleet, now, policy)
    match event:
        case UpRequested():
            turn.start_target(event)
        case StopAllRequested():
            turn.stop_all(event)
        case SwitchRequested():
            turn.switch_target(event)
        case CancelRequested():
            turn.cancel_switch(event)
        case SleepRequested():
            turn.unload(event)
        case SlotWoke():
            turn.step_slot(event.slot, Woke())
        case _:
            turn.step_slot(slot_of(event.instance), event)

    turn.settle()
    return turn.fleet, tuple(turn.effects)


CANCELLED = EndCause("interrupted", "cancelled")


class _Turn:
    """One step in the making: the fleet so far and the effects collected."""

    def __init__(self, fleet: Resident, now: float, policy: RestartPolicy) -> None:
        self.fleet = fleet
        self.now = now
        self.policy = policy
        self.effects: list[ResidentEffect] = []

    def start_target(self, event: UpRequested) -> None:
        switch = self.fleet.switch
        if switch is not None:
            if isinstance(switch, SideBySide):
                self.step_slot(switch.new, StopRequested(force=True))

            self._finish_switch(False, False, EndCause("interrupted", f"replaced by a start of {event.target}"))

        if not isinstance(switch, StoppingOld | StartingNew | RollingBack) and state_is_active(self.fleet.state):
            self.switch_target(SwitchRequested(event.target, event.slot, "replace"))
            return

        self.fleet = replace(self.fleet, desired=event.target)
        busy = [slot for slot, each in self.fleet.slots.items() if has_process(each)]
        for slot in self.fleet.slots:
            if [slot] != busy:
                self.step_slot(slot, StopRequested())

        if not busy:
            self._open_slot(event.slot, event.target)
        elif len(busy) == 1:
            # Something is on its way out: the slot starts the new target when its process is gone.
            self.fleet = replace(self.fleet, current=busy[0])
            self.step_slot(busy[0], StartRequested(event.target, f"{busy[0]}.1"))
        else:
            operation = SwitchOperation(event.slot, None, event.target, "replace", self.now, self.now)
            self.fleet = replace(self.fleet, current=busy[-1], switch=StoppingOld(operation, busy[-1]))

    def stop_all(self, event: StopAllRequested) -> None:
        if self.fleet.switch is not None:
            self._finish_switch(False, False, EndCause("interrupted", "everything was stopped"))

        self.fleet = replace(self.fleet, desired=None)
        for slot in tuple(self.fleet.slots):
            self.step_slot(slot, StopRequested(event.force))

    def switch_target(self, event: SwitchRequested) -> None:
        """1. This switch is under way already: nothing. 2. Another one is: it is replaced. 3. The target runs: done.
        4. Nothing runs: a plain start. 5. Switch.
        """
        fleet = self.fleet
        if fleet.switch is not None:
            if fleet.switch.operation.id != event.slot:
                self._supersede(fleet.switch, event)

            return

        state = fleet.state
        running = target_of(state) if state_is_active(state) or isinstance(state, Backoff) else None
        # What is failing is started anew by the same target; there is nothing to return to.
        failing = isinstance(state, Stopping | Backoff)
        origin = None if failing and running == event.target else running
        operation = SwitchOperation(event.slot, origin, event.target, event.strategy, self.now)
        if origin == event.target and not event.again and fleet.current is not None and not isinstance(state, Ready):
            # It is on its way already: done once it is proven.
            operation = replace(operation, origin=None, held_since=self.now)
            self.fleet = replace(fleet, switch=StartingNew(operation, fleet.current))
        elif origin == event.target and not event.again:
            self.effects.append(SwitchFinished(operation, True, False, None, 0.0, 0.0))
        elif fleet.current is None:
            self._start_new(replace(operation, held_since=self.now))
        elif origin is not None and event.strategy == "beside":
            self.fleet = replace(fleet, switch=SideBySide(operation, fleet.current, event.slot))
        else:
            operation = replace(operation, held_since=self.now)
            self.fleet = replace(fleet, switch=StoppingOld(operation, fleet.current))
            for slot in fleet.slots:
                self.step_slot(slot, StopRequested(force=event.now))

    def _supersede(self, switch: Switch, event: SwitchRequested) -> None:
        """Put a newer switch in the place of the one under way; what ran before that stays what it returns to."""
        origin = switch.operation.origin
        self._finish_switch(False, False, EndCause("interrupted", f"replaced by a switch to {event.target}"))
        operation = SwitchOperation(event.slot, origin, event.target, "replace", self.now, self.now)
        for slot, state in self.fleet.slots.items():
            if event.now and isinstance(state, Draining):
                self.step_slot(slot, StopRequested(force=True))

        back = event.target == origin and not event.again
        match switch:
            case SideBySide():
                self.step_slot(switch.new, StopRequested(force=True))
                self.switch_target(event)
            case StoppingOld() if back:
                self.step_slot(switch.old, ResumeRequested())
                if isinstance(self.fleet.state, Ready):
                    self.fleet = replace(self.fleet, switch=StartingNew(replace(operation, origin=None), switch.old))
                else:
                    self.fleet = replace(self.fleet, switch=StoppingOld(operation, switch.old))
            case StoppingOld():
                self.fleet = replace(self.fleet, switch=StoppingOld(operation, switch.old))
            case StartingNew():
                self.step_slot(switch.new, StopRequested(force=True))
                self.fleet = replace(self.fleet, switch=StoppingOld(operation, switch.new))
            case RollingBack() if back:  # it is on its way back already
                self.fleet = replace(self.fleet, switch=StartingNew(replace(operation, origin=None), switch.slot))
            case RollingBack():
                self.step_slot(switch.slot, StopRequested(force=True))
                self.fleet = replace(self.fleet, switch=StoppingOld(operation, switch.slot))
            case _:
                assert_never(switch)

    def cancel_switch(self, event: CancelRequested) -> None:
        switch = self.fleet.switch
        if switch is None or switch.operation.id != event.operation:
            return

        match switch:
            case SideBySide():
                self._drop_beside(switch, CANCELLED)
            case StoppingOld(operation=SwitchOperation(origin=None)):
                self._finish_switch(False, False, CANCELLED)
                self.fleet = replace(self.fleet, desired=None)
            case StoppingOld():
                self.step_slot(switch.old, ResumeRequested())
                if isinstance(self.fleet.slots[switch.old], Ready):
                    self._finish_switch(False, True, CANCELLED)
                else:
                    self.fleet = replace(self.fleet, switch=replace(switch, cancelled=True))
            case StartingNew(cause=None):
                self._drop_new(switch, CANCELLED)
            case StartingNew() | RollingBack():
                pass  # it is on its way back already
            case _:
                assert_never(switch)

    def unload(self, event: SleepRequested) -> None:
        """End the current instance if it is the one that is meant; what is wanted stays so."""
        current, state = self.fleet.current, self.fleet.state
        if self.fleet.switch is not None or current is None or isinstance(state, Stopped | Draining):
            return

        target = target_of(state)
        meant = event.instance is None or (isinstance(state, Ready) and state.instance == event.instance)
        if meant and target is not None:
            self.fleet = replace(self.fleet, asleep=target)
            self.step_slot(current, StopRequested())

    def step_slot(
        self, slot: str, event: InstanceEvent | StartRequested | StopRequested | ResumeRequested | Woke
    ) -> None:
        """Step the lifecycle of one slot."""
        state = self.fleet.slots.get(slot)
        if state is None:
            return

        state, effects = step(state, event, self.now, self.policy)
        self.fleet = replace(self.fleet, slots={**self.fleet.slots, slot: state})
        for effect in effects:
            self.effects.append(WakeSlot(slot, effect.time) if isinstance(effect, WakeAt) else effect)

    def settle(self) -> None:
        """Follow the switch as far as the slots' states allow, then drop the slots that are done with."""
        switch = None
        while self.fleet.switch is not None and self.fleet.switch is not switch:
            switch = self.fleet.switch
            self._advance_switch(switch)

        kept = {
            slot: state
            for slot, state in self.fleet.slots.items()
            if slot == self.fleet.current or self._in_switch(slot) or not isinstance(state, Stopped | Failed | Backoff)
        }
        if len(kept) != len(self.fleet.slots):
            self.fleet = replace(self.fleet, slots=kept)

    def _advance_switch(self, switch: Switch) -> None:
        match switch:
            case SideBySide():
                new = self.fleet.slots.get(switch.new)
                if new is None:
                    if not self._has_processes(besides=switch.old, draining=False):
                        self._open_slot(switch.new, switch.operation.target, current=False)
                elif isinstance(new, Ready):
                    self.fleet = replace(self.fleet, current=switch.new)
                    self.step_slot(switch.old, StopRequested())
                    self._finish_switch(True, False, None)
                elif (cause := _end_cause(new)) is not None:
                    self._drop_beside(switch, cause)
            case StoppingOld():
                if not self._has_processes():
                    if switch.cancelled:
                        self._roll_back(switch.operation, CANCELLED)
                    else:
                        self._start_new(switch.operation)
            case StartingNew():
                new = self.fleet.slots[switch.new]
                if isinstance(new, Ready):
                    self._finish_switch(True, False, None)
                elif switch.cause is None and (cause := _end_cause(new)) is not None:
                    if switch.operation.origin is None:
                        self._finish_switch(False, False, cause)  # nothing ran before: the failure stays, and is shown
                    else:
                        self._drop_new(switch, cause)
                elif switch.cause is not None and isinstance(new, Stopped):
                    self._roll_back(switch.operation, switch.cause)
            case RollingBack():
                state = self.fleet.slots[switch.slot]
                if isinstance(state, Ready):
                    self._finish_switch(False, True, switch.cause)
                elif (cause := _end_cause(state)) is not None:
                    text = f"{switch.cause.text}; and what ran before did not start again: {cause.text}"
                    self._finish_switch(False, False, EndCause(switch.cause.kind, text))
            case _:
                assert_never(switch)

    def _has_processes(self, besides: str | None = None, *, draining: bool = True) -> bool:
        """:param draining: count those, too, that were replaced and still end their streams"""
        return any(
            has_process(state) and (draining or not isinstance(state, Draining))
            for slot, state in self.fleet.slots.items()
            if slot != besides
        )

    def _start_new(self, operation: SwitchOperation) -> None:
        self._open_slot(operation.id, operation.target)
        self.fleet = replace(self.fleet, switch=StartingNew(operation, operation.id))

    def _drop_beside(self, switch: SideBySide, cause: EndCause) -> None:
        self.step_slot(switch.new, StopRequested(force=True))
        self._finish_switch(False, not isinstance(self.fleet.slots[switch.old], Failed), cause)

    def _drop_new(self, switch: StartingNew, cause: EndCause) -> None:
        self.fleet = replace(self.fleet, switch=replace(switch, cause=cause))
        self.step_slot(switch.new, StopRequested(force=True))

    def _roll_back(self, operation: SwitchOperation, cause: EndCause) -> None:
        if operation.origin is None:
            self._finish_switch(False, False, cause)
            self.fleet = replace(self.fleet, desired=None)  # a cancelled start: there is nothing to go back to
            return

        slot = f"{operation.id}r"
        self._open_slot(slot, operation.origin)
        self.fleet = replace(self.fleet, switch=RollingBack(operation, slot, cause))

    def _open_slot(self, slot: str, target: Target, *, current: bool = True) -> None:
        slots = {**self.fleet.slots, slot: Stopped()}
        self.fleet = replace(self.fleet, slots=slots, current=slot if current else self.fleet.current)
        self.step_slot(slot, StartRequested(target, f"{slot}.1"))

    def _finish_switch(self, ok: bool, rolled_back: bool, cause: EndCause | None) -> None:
        switch = self.fleet.switch
        assert switch is not None
        operation = switch.operation
        gap_s = 0.0 if operation.held_since is None else self.now - operation.held_since
        total_s = self.now - operation.started
        self.effects.append(SwitchFinished(operation, ok, rolled_back, cause, gap_s, total_s))
        desired = operation.target if ok or operation.origin is None else operation.origin
        self.fleet = replace(self.fleet, switch=None, desired=desired)

    def _in_switch(self, slot: str) -> bool:
        match self.fleet.switch:
            case SideBySide(old=old, new=new):
                return slot in (old, new)
            case StoppingOld(old=old):
                return slot == old
            case StartingNew(new=new):
                return slot == new
            case RollingBack(slot=returning):
                return slot == returning
            case None:
                return False


def _end_cause(state: State) -> EndCause | None:
    """Return the reason why a start of a switch is given up: it failed, would have to wait, or was stopped."""
    match state:
        case Failed(failure=failure) | Backoff(failure=failure):
            return EndCause("permanent" if failure.permanent else "failed", describe(failure))
        case Stopped():
            return EndCause("interrupted", "it was stopped")
        case _:
            return None
