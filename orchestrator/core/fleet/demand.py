"""The decision to switch because clients ask for a profile that is not loaded. Pure.

Two things would be wrong: to switch at each request of clients that alternate between models, and to let those of one
model wait for ever because those of the other never stop. So:

1. The profile whose oldest request has waited longest is next.
2. What serves goes at once when nobody uses it: the request came after the end of its last one and nothing came since,
   as from one client that embeds with one model and answers with another; or it has been idle for `idle_s`.
3. Else it stays for `min_stay_s`, so that a switch is paid back by at least some answers. Then it goes as soon as it
   has nothing to do; requests for the next profile pile up meanwhile and are answered in one batch.
4. A request that has waited for `patience_s` ends the stay of a profile that is never idle.

Requests for what starts already, or comes back by itself after a crash, are no reason to switch (`on_its_way`).

Hence each request waits at most `patience_s` for its turn, plus the time to drain and to load, for each profile ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failure,
    Preparing,
    Starting,
    State,
    Stopping,
    Target,
)
from orchestrator.core.fleet.resident_states import Resident, SideBySide, StoppingOld


@dataclass(frozen=True, slots=True)
class DemandPolicy:
    """When a profile that serves makes room for another one.

    :param min_stay_s: the least stay of one that is used
    :param patience_s: the longest wait for one that is busy
    :param idle_s: without a request for so long, nobody uses it
    :param settle_s: a request is so old before it counts as the only one: others may come with it
    """

    min_stay_s: float = 5.0
    patience_s: float = 30.0
    idle_s: float = 1.0
    settle_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests that wait for one profile."""

    profile: str
    count: int
    oldest_s: float


def next_profile(
    waiting: Sequence[Demand],
    serving: str | None,
    in_flight: int,
    stayed_s: float,
    quiet_s: float,
    policy: DemandPolicy,
) -> str | None:
    """Return the profile to switch to now, or None while what serves goes on.

    :param waiting: the profiles that clients wait for
    :param serving: the profile that serves; None when nothing does
    :param in_flight: requests that it is answering
    :param stayed_s: time since it became ready
    :param quiet_s: time since the end of its last request; since it became ready when it had none
    """
    others = [demand for demand in waiting if demand.profile != serving]
    if not others:
        return None

    first = max(others, key=lambda demand: (demand.oldest_s, demand.count, demand.profile))
    if serving is None or may_leave(in_flight, stayed_s, quiet_s, first.oldest_s, policy):
        return first.profile

    return None


def may_leave(in_flight: int, stayed_s: float, quiet_s: float, waited_s: float, policy: DemandPolicy) -> bool:
    """Return whether what serves makes room for a request that has waited for so long: 2. to 4. above."""
    came_after = policy.settle_s <= waited_s <= quiet_s
    if in_flight == 0 and (came_after or quiet_s >= policy.idle_s):
        return True

    return stayed_s >= policy.min_stay_s and (in_flight == 0 or waited_s >= policy.patience_s)


def on_its_way(state: State) -> str | None:
    """Return the profile that will serve next without a switch, if it starts: who asks for it waits for that.

    A switch to it would start it anew: after a crash without the wait, and with a fresh budget of restarts.
    """
    match state:
        case Preparing(start_record=start_record) | Starting(start_record=start_record):
            return start_record.target.profile
        case Backoff(start_record=start_record) | Stopping(start_record=start_record, then=None, failure=Failure()):
            return start_record.target.profile
        case Draining(then=Target() as then) | Stopping(then=Target() as then):
            return then.profile
        case _:
            return None


def may_give_up(fleet: Resident) -> bool:
    """Return whether a switch that nobody waits for any more can be dropped without another load.

    True while it reads ahead, while the new engine starts beside the one that serves, and while that one drains: then
    it serves on. Once the old engine is gone, going back would cost as much as going on.
    """
    switch = fleet.switch
    match switch:
        case None | SideBySide():
            return True
        case StoppingOld(old=old):
            return isinstance(fleet.slots.get(old), Draining)
        case _:
            return False
