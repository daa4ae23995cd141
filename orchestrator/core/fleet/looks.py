"""What follows from a look at who waits, what is used and what is free: 7. of `fleet.py`."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.fleet.admission import (
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
    Looked,
    Refused,
    Told,
)
from orchestrator.core.fleet.lifecycle_states import (
    Failure,
    NotStarted,
    Preparing,
    Ready,
    Stopped,
    instance_of,
)
from orchestrator.core.fleet.resident_states import (
    SleepRequested,
    has_process,
    slot_of,
)
from orchestrator.core.fleet.seats import Seats


def look(turn: Seats, event: Looked) -> None:
    """Drop what nobody waits for, unload what is idle, decide about the starts that wait."""
    wanted = {each.profile: each.oldest_s for each in event.demand}
    for waiting in tuple(turn.fleet.waiting.values()):  # 7.1
        if waiting.by_client and waiting.profile not in wanted:
            turn.step_seat(waiting.seat, SleepRequested(None))

    for profile, use in event.use.items():  # 7.2
        if profile not in wanted and not event.unassigned:
            _unload_idle(turn, profile, use)

    settling = turn.fleet.settling
    if settling is not None and event.memory is not None and settling.is_over(event.memory.free, turn.now):
        turn.fleet = replace(turn.fleet, settling=None)

    for instance in tuple(turn.fleet.waiting):  # 7.3
        turn.drop_stale()
        if instance in turn.fleet.waiting:
            _decide(turn, instance, wanted, event)


def _unload_idle(turn: Seats, profile: str, use: Use) -> None:
    limit_s = 0.0 if turn.fleet.pinned(profile) else turn.fleet.rules.idle_limit_s(profile)
    seat = turn.fleet.seat_of(profile)
    if seat is None or not limit_s or use.in_flight or use.idle_s < limit_s:
        return

    resident = turn.fleet.residents[seat]
    if resident.switch is None and isinstance(resident.state, Ready):
        target = resident.state.start_record.target
        turn.step_seat(seat, SleepRequested(resident.state.instance))
        text = f"{target} had no request for {use.idle_s:.0f} s; the next one loads it again"
        turn.effects.append(Told("unloaded", text))


def _decide(turn: Seats, instance: str, wanted: dict[str, float], event: Looked) -> None:
    fleet = turn.fleet
    start = fleet.waiting[instance]
    others = _others(turn, start, event)
    waited_s = wanted.get(start.profile, 0.0) if start.by_client else turn.now - start.since
    settling = fleet.settling is not None
    rules = fleet.rules
    decision = decide(start, waited_s, others, event.memory, _moving(turn, instance), settling, rules.stay, rules.max)
    match decision:
        case Start():
            turn.let_in(instance)
        case Wait(why=why):
            turn.fleet = replace(fleet, waiting={**fleet.waiting, instance: replace(start, why=why)})
        case Evict(seats=seats, why=why):
            assert event.memory is not None
            _evict(turn, instance, seats, why, event.memory)
        case Refuse(why=why):
            _refuse(turn, start, instance, why)


def _evict(turn: Seats, instance: str, seats: tuple[str, ...], why: str, memory: MemoryLook) -> None:
    """End these, and remember what memory is expected back."""
    names = [profile for seat in seats if (profile := turn.profile_of(seat)) is not None]
    holds = [memory.holds.get(name, {}) for name in names]
    # Drivers give memory back a while after a process's end; the host's is back with it.
    gives = {place: sum(each.get(place, 0) for each in holds) for place in memory.free if place != "host"}
    expected = {place: memory.free[place] + mib - return_slack_mib(mib) for place, mib in gives.items() if mib}
    states = (state for seat in seats for state in turn.fleet.residents[seat].slots.values())
    instances = frozenset(filter(None, map(instance_of, states)))
    for seat in seats:
        turn.step_seat(seat, SleepRequested(None))

    start = replace(turn.fleet.waiting[instance], crowded=False, why=f"{', '.join(names)} makes room")
    turn.fleet = replace(
        turn.fleet,
        settling=Settling(instances, expected),
        waiting={**turn.fleet.waiting, instance: start},
    )
    turn.effects.append(Told("evicted", f"{', '.join(names)} is unloaded to make room: {why}"))


def _refuse(turn: Seats, start: WaitingStart, instance: str, why: str) -> None:
    if start.by_client and turn.fleet.residents[start.seat].switch is None:
        turn.step_seat(start.seat, SleepRequested(None))
        turn.effects.append(Refused(start.profile, why))
    else:
        hint = f"`orch unload` one of them, or `orch down` it, then `orch load {start.profile}`"
        turn.step_slot(slot_of(instance), NotStarted(instance, Failure("device_oom", why, action="give_up", hint=hint)))


def _others(turn: Seats, start: WaitingStart, event: Looked) -> list[LoadedBeside]:
    """Return the residents that hold memory beside a start."""
    found = []
    for seat, resident in turn.fleet.beside(start.seat):
        profile = turn.profile_of(seat)
        if profile is None or not turn.holds(seat):
            continue

        state, rules = resident.state, turn.fleet.rules
        ready = state if isinstance(state, Ready) else None
        busy = sum(has_process(each) or isinstance(each, Preparing) for each in resident.slots.values())
        began = ready.start_record.attempts[-1].started if ready and ready.start_record.attempts else turn.now
        found.append(
            LoadedBeside(
                seat,
                profile,
                settled=ready is not None and resident.switch is None and busy == 1,
                stays=turn.fleet.pinned(profile),
                excluded=rules.policy == "one" or rules.exclude(profile, start.profile),
                stayed_s=turn.now - ready.since if ready else 0.0,
                load_s=ready.since - began if ready else 0.0,
                priority=rules.of(profile).priority,
                use=event.use.get(profile, Use()),
            )
        )

    return found


def _moving(turn: Seats, instance: str) -> list[str]:
    """Return the profiles of the instances that hold memory, or are about to, and do not serve."""
    return [
        state.start_record.target.profile
        for state in turn.fleet.slots.values()
        if turn.takes(state) and not isinstance(state, Ready | Stopped) and instance_of(state) != instance
    ]
