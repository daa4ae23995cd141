"""Whether a start may go on beside what is loaded, and who makes room for it. Pure; sizes in MiB by place.

A place is a device, or the host; the shell names them and says which a profile needs (`daemon/fleet`).

The decision (`decide`):

1. Nothing else holds memory or is about to: start. What is too large for the machine is tried alone, on the ladder.
2. Some may not be loaded beside it: by the rules (`exclusive`, `max`, `policy = "one"`), or one more because a start
   beside the others ran out of memory. They have to go whatever is free.
3. The memory is not known yet, or is still on its way back from what was ended for this: wait.
4. Nobody has to go, and it fits into what is free, less what those need that start or end elsewhere: start.
5. Something starts or ends elsewhere: wait until that is settled. It decides what is free.
6. What has to go and the cheapest set that makes room beside it: end them. Nobody who is pinned or in the middle of a
   switch goes; nobody who is used, for a client, before he has stayed and the client has waited long enough.
7. Room could be made by some who may not go yet: wait for them.
8. Those who are pinned are in its way: refuse, with the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from orchestrator.core.fleet.demand import DemandPolicy, may_leave
from orchestrator.core.fleet.lifecycle_states import Prepare

Amounts = Mapping[str, int]

EXACT_UP_TO = 8
"""Residents of which every set is looked at: 256 sets. Beyond, the cheapest are taken one by one."""

HOT_S = 60.0
"""An idle time by which the worth of what was used is halved."""

RETURN_S = 15.0
"""Memory of an engine that ended comes back within seconds; what has not by then belongs to somebody else."""

RETURN_SLACK_MIB = 64
"""Readings wobble by so much; of what is smaller than a few times that, a quarter is not waited for."""


@dataclass(frozen=True, slots=True)
class Use:
    """How a loaded profile is used.

    :param in_flight: requests that it is answering, or that are on their way to it
    :param idle_s: since the end of its last request; since it became ready when it had none
    :param recent: requests of late, each counted less the longer ago it was (`after_use`)
    """

    in_flight: int = 0
    idle_s: float = 0.0
    recent: float = 0.0


@dataclass(frozen=True, slots=True)
class MemoryLook:
    """The memory at one moment.

    :param free: MiB by place that a start could take, less the margin kept free; a place that is not in it is unknown
    :param needs: what a start of a profile needs, by profile
    :param holds: what a loaded profile gives back when it ends, by profile
    """

    free: Amounts = field(default_factory=dict)
    needs: Mapping[str, Amounts] = field(default_factory=dict)
    holds: Mapping[str, Amounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settling:
    """What was ended to make room.

    :param instances: that end; another one may start in their seats meanwhile
    :param expected: free MiB by place once their memory is back
    :param until: no longer than this, monotonic; None while they have not ended
    """

    instances: frozenset[str]
    expected: Amounts
    until: float | None = None

    def is_over(self, free: Amounts, now: float) -> bool:
        """Return whether the memory is back, or will not come back any more."""
        if self.until is None:
            return False

        return now >= self.until or all(free.get(place, mib) >= mib for place, mib in self.expected.items())


@dataclass(frozen=True, slots=True)
class LoadedBeside:
    """A resident beside the one that starts.

    :param settled: it serves, and no switch of it is under way
    :param stays: it is pinned
    :param excluded: the rules do not allow it beside the one that starts
    :param stayed_s: time since it became ready
    :param load_s: how long its last start took
    """

    seat: str
    profile: str
    settled: bool
    stays: bool
    excluded: bool
    stayed_s: float
    load_s: float
    priority: float
    use: Use


@dataclass(frozen=True, slots=True)
class WaitingStart:
    """A start that has not been let in.

    :param prepare: the effect that is kept back
    :param since: monotonic
    :param by_client: as in `LoadRequested`
    :param crowded: it ran out of memory beside others: one more of them goes, and it is tried the same again
    :param why: what it waits for, in words
    """

    seat: str
    prepare: Prepare
    since: float
    by_client: bool = False
    crowded: bool = False
    why: str = ""

    @property
    def profile(self) -> str:
        return self.prepare.target.profile


@dataclass(frozen=True, slots=True)
class Start:
    """It goes on."""


@dataclass(frozen=True, slots=True)
class Evict:
    """:param why: for people, with the figures"""

    seats: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    why: str


Decision = Start | Evict | Wait | Refuse


def decide(
    start: WaitingStart,
    waited_s: float,
    others: Sequence[LoadedBeside],
    memory: MemoryLook | None,
    moving: Sequence[str],
    settling: bool,
    stay: DemandPolicy,
    most: int = 0,
) -> Decision:
    """Return what becomes of a start; the numbers in the code are those of the module's docstring.

    :param waited_s: how long the oldest who waits for it has waited
    :param others: residents in other seats that hold memory or are about to
    :param moving: profiles of the other instances that start or end, whose memory is not in the reading yet
    :param settling: memory is on its way back
    :param stay: when one who is used makes room for a client
    :param most: so many may be loaded; 0 for any number
    """
    if not others:  # 1
        return Start()

    must = {each.seat for each in others if each.excluded}  # 2
    over = len(others) + 1 - most if most else 0
    if memory is None or settling:  # 3
        return Wait(
            "the memory is being looked at" if memory is None else "memory of what was ended is on its way back"
        )

    need = memory.needs.get(start.profile, {})
    free = _less(memory.free, [memory.needs.get(profile, {}) for profile in moving])
    planned = all(memory.needs.get(profile) for profile in moving)
    missing = {place: mib - free[place] for place, mib in need.items() if place in free and mib > free[place]}
    if not must and over <= 0 and not start.crowded and not missing and planned:  # 4
        return Start()

    restless = [each.profile for each in others if not each.settled]
    if restless:  # 5
        return Wait(f"{', '.join(restless)} starts or ends")

    at_least = max(over, 1 if start.crowded and not all(each.stays for each in others) else 0, 0)
    excluded = [each.profile for each in others if each.excluded]
    why = _why(start, excluded, most if over > 0 else 0, missing, need, free)
    movable = [each for each in others if not each.stays]
    willing = [each for each in movable if not start.by_client or _may_go(each, waited_s, stay)]
    seats = cheapest_set(willing, must, at_least, missing, memory.holds)
    if seats is not None:  # 6
        return Evict(seats, why)

    if cheapest_set(movable, must, at_least, missing, memory.holds) is not None:  # 7
        return Wait(f"{why}; what could go is used")

    pinned = [each.profile for each in others if each.stays]
    if not pinned:  # not even all of them make enough room: it is tried alone
        everybody = tuple(each.seat for each in others)
        return Evict(everybody, f"{why}; it is tried alone") if len(willing) == len(others) else Wait(why)

    return Refuse(f"{why}, and {', '.join(pinned)} may not go (pinned)")  # 8


def cheapest_set(
    may_go: Sequence[LoadedBeside],
    must: set[str],
    at_least: int,
    missing: Amounts,
    holds: Mapping[str, Amounts],
) -> tuple[str, ...] | None:
    """Return the seats that make room at the least cost: `must` and as many as are needed; None where no set does.

    :param at_least: so many go at least
    """
    if not must <= {each.seat for each in may_go}:
        return None

    forced = [each for each in may_go if each.seat in must]
    free = sorted((each for each in may_go if each.seat not in must), key=lambda each: (cost(each), each.seat))

    def enough(chosen: Sequence[LoadedBeside]) -> bool:
        gone = [*forced, *chosen]
        gives = [holds.get(each.profile, {}) for each in gone]
        return len(gone) >= at_least and all(
            sum(each.get(place, 0) for each in gives) >= mib for place, mib in missing.items()
        )

    if len(free) > EXACT_UP_TO:
        taken: list[LoadedBeside] = []
        for each in free:
            if enough(taken):
                break

            taken.append(each)

        # One that came in early may be of no use by now.
        for each in reversed(tuple(taken)):
            without = [other for other in taken if other is not each]
            taken = without if enough(without) else taken

        return tuple(each.seat for each in (*forced, *taken)) if enough(taken) else None

    sets = (chosen for count in range(len(free) + 1) for chosen in combinations(free, count) if enough(chosen))
    best = min(sets, key=lambda chosen: (sum(map(cost, chosen)), len(chosen)), default=None)
    return None if best is None else tuple(each.seat for each in (*forced, *best))


def return_slack_mib(gives_mib: int) -> int:
    """Return how much of what is expected back from those who end is not waited for."""
    return min(RETURN_SLACK_MIB, gives_mib // 4)


def cost(each: LoadedBeside) -> float:
    """Return what it costs to end a resident: the time to load it again, by how likely that is and what it is worth.

    How likely: its requests of late, halved with each `HOT_S` without one. One that was never used costs least.
    """
    likely = (0.1 + each.use.recent) * 0.5 ** (each.use.idle_s / HOT_S)
    return float(max(each.load_s, 0.1) * likely * each.priority)


def _may_go(each: LoadedBeside, waited_s: float, stay: DemandPolicy) -> bool:
    """Return whether one who is loaded makes room for a client's request."""
    return may_leave(each.use.in_flight, each.stayed_s, each.use.idle_s, waited_s, stay)


def _less(free: Amounts, reserved: Sequence[Amounts]) -> dict[str, int]:
    return {place: mib - sum(each.get(place, 0) for each in reserved) for place, mib in free.items()}


def _why(
    start: WaitingStart, excluded: Sequence[str], most: int, missing: Amounts, need: Amounts, free: Amounts
) -> str:
    if start.crowded:
        return f"{start.profile} ran out of memory beside others"

    if missing:
        parts = (f"{need[place]} MiB {where(place)}, {max(free[place], 0)} MiB are free" for place in missing)
        return f"{start.profile} needs {' and '.join(parts)}"

    if excluded:
        return f"{start.profile} and {', '.join(excluded)} are not loaded at the same time (residency)"

    return f"{start.profile} is one too many: {most} may be loaded at a time (residency.max)"


def where(place: str) -> str:
    """Return a place in words."""
    return "in host memory" if place == "host" else f"on {place}"
