"""The data of the fleet machine: its residents, the rules for them, what it is told and what it asks for.

`fleet.py` has the transitions, `admission.py` the decision whether a start may go on beside the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.fleet.admission import MemoryLook, Settling, Use, WaitingStart
from orchestrator.core.fleet.demand import Demand, DemandPolicy
from orchestrator.core.fleet.lifecycle_states import InstanceEvent, State, Target
from orchestrator.core.fleet.resident_states import (
    NOBODY,
    CancelRequested,
    Resident,
    ResidentEffect,
    SlotWoke,
    Switch,
    SwitchRequested,
    UpRequested,
)

Policy = Literal["fit", "one"]
"""`fit`: as many models as the memory holds. `one`: one at a time, each takes the place of the one before."""


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """What one profile says of itself.

    :param idle_unload_s: unloaded after so long without a request; 0 for never, None for what `orch.toml` says
    :param pinned: never unloaded to make room, and not for idleness
    :param priority: how much more it is worth to keep than another one
    :param max_in_flight: requests that it is given at a time; 0 for any number
    """

    idle_unload_s: float | None = None
    pinned: bool = False
    priority: float = 1.0
    max_in_flight: int = 0


_DEFAULT = ProfileRules()


@dataclass(frozen=True, slots=True)
class ResidencyRules:
    """What holds for all of them.

    :param max: the most that are loaded at a time; 0 for any number
    :param exclusive: groups of which one at a time is loaded
    :param preload: profiles that are loaded when the daemon starts
    :param stay: when one that is used makes room for another
    """

    policy: Policy = "fit"
    max: int = 0
    idle_unload_s: float = 0.0
    exclusive: tuple[frozenset[str], ...] = ()
    preload: tuple[str, ...] = ()
    stay: DemandPolicy = field(default_factory=DemandPolicy)
    profiles: Mapping[str, ProfileRules] = field(default_factory=dict)

    def of(self, profile: str) -> ProfileRules:
        """Return the rules of one profile."""
        return self.profiles.get(profile, _DEFAULT)

    def idle_limit_s(self, profile: str) -> float:
        """Return after how long without a request a profile is unloaded; 0 for never."""
        own = self.of(profile)
        if own.pinned:
            return 0.0

        return self.idle_unload_s if own.idle_unload_s is None else own.idle_unload_s

    def exclude(self, one: str, other: str) -> bool:
        """Return whether two profiles are never loaded at the same time."""
        return any(one in group and other in group for group in self.exclusive)


@dataclass(frozen=True, slots=True)
class FocusMove:
    """A switch whose target becomes the focus when it serves.

    :param seat: of the target
    :param leaves: the seat that is emptied then; None where the one before stays loaded
    """

    seat: str
    leaves: str | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All residents by their seats.

    A seat is where one resident is, under an id that nothing else has; a switch may put another profile in it. A
    profile has at most one seat.

    :param focus: the seat that a request without a known model name goes to; None before anything was started
    :param moves: by the id of the switch under way
    :param waiting: starts that wait for memory, by instance, in the order in which they came
    :param guests: seats of what was loaded because requests asked for it, not a person
    :param settling: memory that is on its way back from what was ended to make room; None when none is
    :param pins: profiles that a person pinned or unpinned while the daemon runs, whatever their rules say
    """

    residents: Mapping[str, Resident] = field(default_factory=dict)
    focus: str | None = None
    moves: Mapping[str, FocusMove] = field(default_factory=dict)
    rules: ResidencyRules = field(default_factory=ResidencyRules)
    pins: Mapping[str, bool] = field(default_factory=dict)
    waiting: Mapping[str, WaitingStart] = field(default_factory=dict)
    guests: frozenset[str] = frozenset()
    settling: Settling | None = None

    @property
    def focused(self) -> Resident:
        """The resident in focus; one that never was where there is none."""
        return NOBODY if self.focus is None else self.residents[self.focus]

    @property
    def slots(self) -> Mapping[str, State]:
        """The states of all slots, those of the focus first."""
        found = dict(self.focused.slots)
        for resident in self.residents.values():
            found.update(resident.slots)

        return found

    # What people mean by "the state" while one model runs: that of the focus.

    @property
    def current(self) -> str | None:
        return self.focused.current

    @property
    def state(self) -> State:
        return self.focused.state

    @property
    def desired(self) -> Target | None:
        return self.focused.desired

    @property
    def switch(self) -> Switch | None:
        return self.focused.switch

    @property
    def asleep(self) -> Target | None:
        return self.focused.asleep

    def pinned(self, profile: str) -> bool:
        """Return whether a profile is never unloaded to make room."""
        return self.pins.get(profile, self.rules.of(profile).pinned)

    def seat_of(self, profile: str) -> str | None:
        """Return the seat of a profile: what serves there, starts there, failed there or was unloaded."""
        return next((seat for seat, each in self.residents.items() if profile in each.profiles), None)

    def seat_with(self, slot: str) -> str | None:
        """Return the seat that has a slot."""
        return next((seat for seat, each in self.residents.items() if slot in each.slots), None)

    def beside(self, seat: str) -> Iterator[tuple[str, Resident]]:
        """Return the residents in other seats."""
        return ((each, resident) for each, resident in self.residents.items() if each != seat)


@dataclass(frozen=True, slots=True)
class FocusRequested:
    """A switch of the focus: to what may be resident already, with what was the focus unloaded once this serves.

    :param keep: what was the focus stays loaded
    """

    switch: SwitchRequested
    keep: bool = False


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """A switch in the seat of its profile, where there is one, whatever is in focus: its target is started anew."""

    switch: SwitchRequested


@dataclass(frozen=True, slots=True)
class RestoreRequested:
    """Have this serve again, after others were tried; what was tried is not returned to, should the start fail.

    :param slot: a fresh id
    :param focus: requests without a known model name go to it at once, and wait for it
    :param keeps: profiles that stay loaded: anything else in focus makes room
    """

    target: Target
    slot: str
    focus: bool = True
    keeps: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """Load this beside what runs, if it is not loaded already; `slot` is a fresh id.

    :param by_client: because requests wait for it: it is let go again when none does any more, and it makes nobody
        leave who is in use before they have waited long enough
    """

    target: Target
    slot: str
    by_client: bool = False


@dataclass(frozen=True, slots=True)
class DownRequested:
    """Stop these profiles, or everything; `force` skips the draining. Nothing brings them back but a person or a
    request."""

    profiles: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """End this profile; the next request for it loads it again."""

    profile: str


@dataclass(frozen=True, slots=True)
class PinRequested:
    """:param pinned: False lets it go even where its rules pin it"""

    profile: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class RulesChanged:
    rules: ResidencyRules


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of clients and memory at this moment.

    :param demand: who waits, by profile
    :param use: of loaded profiles
    :param memory: read since the starts that wait began to; None where it was not read
    :param unassigned: requests of which it is not known yet what they are for
    """

    demand: tuple[Demand, ...] = ()
    use: Mapping[str, Use] = field(default_factory=dict)
    memory: MemoryLook | None = None
    unassigned: int = 0


FleetEvent = (
    UpRequested
    | SwitchRequested
    | FocusRequested
    | RestartRequested
    | RestoreRequested
    | LoadRequested
    | DownRequested
    | UnloadRequested
    | PinRequested
    | CancelRequested
    | RulesChanged
    | Looked
    | SlotWoke
    | InstanceEvent
)


@dataclass(frozen=True, slots=True)
class Told:
    """Something for `orch events`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests for a profile are refused for a while: it did not start, or cannot beside what may not go.

    :param permanent: the same start would fail the same way
    """

    profile: str
    text: str
    permanent: bool = False


FleetEffect = ResidentEffect | Told | Refused
