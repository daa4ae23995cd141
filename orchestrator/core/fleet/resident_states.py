"""The data of the fleet machine: slots, the switch under way, the events it takes and the effects it asks for.

`fleet.py` has the transitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.fleet.lifecycle_states import (
    Draining,
    Effect,
    InstanceEvent,
    Preparing,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    Target,
)

Strategy = Literal["beside", "replace"]
EndKind = Literal["interrupted", "failed", "permanent"]
"""Why a switch did not reach its target: somebody asked for something else, its start failed in a way that may pass, or
it would fail the same way again.
"""


@dataclass(frozen=True, slots=True)
class EndCause:
    """The reason why a switch is given up; `text` is for people."""

    kind: EndKind
    text: str


@dataclass(frozen=True, slots=True)
class SwitchOperation:
    """One switch: what was asked for, and the monotonic times that its gap is counted from."""

    id: str
    origin: Target | None
    target: Target
    strategy: Strategy
    started: float
    held_since: float | None = None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The new slot starts while the old one serves."""

    operation: SwitchOperation
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class StoppingOld:
    """Requests wait; the old slot is on its way out. `cancelled`: then it is started again instead of the new one."""

    operation: SwitchOperation
    old: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class StartingNew:
    """Requests wait; the new slot starts. `cause` is set once it is being dropped."""

    operation: SwitchOperation
    new: str
    cause: EndCause | None = None


@dataclass(frozen=True, slots=True)
class RollingBack:
    """Requests wait; what ran before is started again."""

    operation: SwitchOperation
    slot: str
    cause: EndCause


Switch = SideBySide | StoppingOld | StartingNew | RollingBack


@dataclass(frozen=True, slots=True)
class Resident:
    """All slots, the current one, the target that a person wants, and the switch under way.

    :param asleep: what was unloaded because nobody used it: the next request for it has it loaded
    """

    slots: Mapping[str, State] = field(default_factory=dict)
    current: str | None = None
    desired: Target | None = None
    switch: Switch | None = None
    asleep: Target | None = None

    @property
    def state(self) -> State:
        """The state of the current slot: what people mean by "the state"."""
        return self.slots[self.current] if self.current is not None else Stopped()

    @property
    def profiles(self) -> frozenset[str]:
        """The profiles that this is about: what serves, starts, failed or was unloaded, and both sides of a switch."""
        switch, state = self.switch, self.state
        targets = [self.asleep, self.desired, None if isinstance(state, Stopped) else target_of(state)]
        if switch is not None:
            targets += [switch.operation.target, switch.operation.origin]

        return frozenset(each.profile for each in targets if each is not None)

    @property
    def busy(self) -> bool:
        """True while a process may live, or is about to: memory is held, or will be."""
        return any(has_process(state) or isinstance(state, Preparing) for state in self.slots.values())

    @property
    def holding(self) -> bool:
        """True while clients wait because of a switch."""
        return isinstance(self.switch, StoppingOld | StartingNew | RollingBack)


@dataclass(frozen=True, slots=True)
class UpRequested:
    """Run this; whatever else runs is replaced. `slot` is a fresh id."""

    target: Target
    slot: str


@dataclass(frozen=True, slots=True)
class StopAllRequested:
    """Stop everything; `force` skips the draining."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class SwitchRequested:
    """`slot` is a fresh id, and the id of the operation. `again` starts anew what runs already: its profile changed.

    `now` cuts the requests that run instead of waiting for their end.
    """

    target: Target
    slot: str
    strategy: Strategy
    again: bool = False
    now: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """End the switch under way, if it is this operation; what ran before serves on."""

    operation: str


@dataclass(frozen=True, slots=True)
class SlotWoke:
    """The time of a `WakeSlot` has come."""

    slot: str


@dataclass(frozen=True, slots=True)
class SleepRequested:
    """End this instance, or whatever is there, and load its target again for the next request."""

    instance: str | None


ResidentEvent = (
    UpRequested | StopAllRequested | SwitchRequested | CancelRequested | SleepRequested | SlotWoke | InstanceEvent
)


@dataclass(frozen=True, slots=True)
class WakeSlot:
    """Send `SlotWoke` at this monotonic time."""

    slot: str
    time: float


@dataclass(frozen=True, slots=True)
class SwitchFinished:
    """The end of a switch. `gap_s` is how long clients had to wait, 0 when they did not; `cause` is None when ok."""

    operation: SwitchOperation
    ok: bool
    rolled_back: bool
    cause: EndCause | None
    gap_s: float
    total_s: float

    @property
    def cause_text(self) -> str | None:
        return self.cause.text if self.cause is not None else None


ResidentEffect = Effect | WakeSlot | SwitchFinished


def slot_of(instance: str) -> str:
    """Return the slot of an instance, which is named `slot.number`."""
    return instance.partition(".")[0]


def has_process(state: State) -> bool:
    """Return whether a process may live in this state."""
    return isinstance(state, Starting | Ready | Draining | Stopping)


def state_is_active(state: State) -> bool:
    """Return whether an instance in this state serves its target, or is on its way to."""
    return isinstance(state, Preparing | Starting | Ready) or (
        isinstance(state, Stopping) and state.failure is not None
    )


def target_of(state: State) -> Target | None:
    """Return what runs, is to run or ran last in this state; None when nothing ever did."""
    match state:
        case Stopped(last=None):
            return None
        case Stopped(last=start_record):
            return start_record.target if start_record else None
        case _:
            return state.start_record.target


NOBODY = Resident()
