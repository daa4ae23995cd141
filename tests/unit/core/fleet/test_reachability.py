"""Every state of the lifecycle and of the world can be reached from every other, by events that performers can produce.

An explicit search: from each state that was found, breadth first through the real step functions against simulated
engines, which answer only what was asked of them. What is told apart is the kind of a state; two states of one kind are
both searched where they differ in what the next crash does. Each step found is one that was taken, so a path is a path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Set
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from typing import Generic, TypeVar

from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Failure,
    Preparing,
    Ready,
    ResumeRequested,
    Starting,
    State,
    Stopped,
    Stopping,
    StopRequested,
    Target,
)
from orchestrator.core.fleet.resident_states import RollingBack, SideBySide, StartingNew, StoppingOld, Switch
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_world import Job, Simulation
from tests.unit.core.fleet.resident_simulation import WorldSimulation

Owner = TypeVar("Owner", Simulation, WorldSimulation)

TARGETS = (Target("a", "upstream"), Target("b", "ik-fork"))
FAILURES = (
    Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT"),
    Failure("device_oom", "out of memory", evidence="cudaMalloc failed", action="retry_margin"),
    Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up"),
)
POLICY = RestartPolicy(intensity=2)
"""The first crash is answered with a wait, the second with a rest."""

RECOVERY = Recovery(margins=(1664, 2048), max_attempts=3)

LIFECYCLE_KINDS = frozenset({
    "stopped", "preparing", "spawning", "loading", "proving", "ready",
    "draining", "draining for another", "stopping", "stopping for another", "stopping for a failure",
    "backoff", "failed for good", "resting",
})  # fmt: skip
PHASES = frozenset({"none", "beside", "clearing", "clearing, cancelled", "taking", "taking, dropped", "returning"})


def kind_of(state: State) -> str:
    match state:
        case Stopped():
            return "stopped"
        case Preparing():
            return "preparing"
        case Starting(pid=None):
            return "spawning"
        case Starting(loaded=False):
            return "loading"
        case Starting():
            return "proving"
        case Ready():
            return "ready"
        case Draining(then=None):
            return "draining"
        case Draining():
            return "draining for another"
        case Stopping(then=Target()):
            return "stopping for another"
        case Stopping(failure=None):
            return "stopping"
        case Stopping():
            return "stopping for a failure"
        case Backoff():
            return "backoff"
        case Failed(until=None):
            return "failed for good"
        case Failed():
            return "resting"


def phase_of(switch: Switch | None) -> str:
    match switch:
        case None:
            return "none"
        case SideBySide():
            return "beside"
        case StoppingOld(cancelled=cancelled):
            return "clearing, cancelled" if cancelled else "clearing"
        case StartingNew(cause=cause):
            return "taking" if cause is None else "taking, dropped"
        case RollingBack():
            return "returning"


def crashes_of(state: State) -> int:
    return 0 if isinstance(state, Stopped) else min(state.start_record.crashes.count, POLICY.intensity)


def duplicate(fleet: Owner) -> Owner:
    """A copy that shares what never changes; `deepcopy` takes fifty times as long."""
    new = copy(fleet)
    new.engines = copy(fleet.engines)
    for holder in (new, new.engines):
        for field in fields(holder):
            value = getattr(holder, field.name)
            if isinstance(value, list | dict | set):
                setattr(holder, field.name, copy(value))

    return new


@dataclass(frozen=True)
class Look(Generic[Owner]):
    """How a search looks at a world.

    :ivar moves: what may happen next
    :ivar kind: what is told apart in the result
    :ivar key: what is told apart while searching: the kind and more
    """

    moves: Callable[[Owner], Iterator[Callable[[Owner], object]]]
    kind: Callable[[Owner], Hashable]
    key: Callable[[Owner], Hashable]


def finish(fleet: Owner, job: Job, failure: Failure | None) -> None:
    fleet.engines.finish(job, failure)


def dies(fleet: Owner, instance: str, failure: Failure) -> None:
    fleet.engines.dies(instance, failure)


def answers(fleet: Owner) -> Iterator[Callable[[Owner], object]]:
    """What performers may do next: finish a piece of work well or badly, or lose a process."""
    for job in fleet.engines.work():
        for failure in (None, *FAILURES):
            yield partial(finish, job=job, failure=failure)

    for instance in fleet.engines.live:
        for failure in FAILURES:
            yield partial(dies, instance=instance, failure=failure)


def lifecycle_moves(fleet: Simulation) -> Iterator[Callable[[Simulation], object]]:
    yield from answers(fleet)
    for target in TARGETS:
        yield partial(Simulation.start, desired=target)

    for event in (ResumeRequested(), StopRequested(), StopRequested(force=True)):
        yield partial(Simulation.take, event=event)

    if fleet.timer is not None:
        yield partial(Simulation.fire_timer, early_s=0.0)


def world_moves(fleet: WorldSimulation) -> Iterator[Callable[[WorldSimulation], object]]:
    yield from answers(fleet)
    for target in TARGETS:
        yield partial(WorldSimulation.up, target=target)
        yield partial(WorldSimulation.switch, target=target, strategy="beside")
        yield partial(WorldSimulation.switch, target=target, strategy="replace")
        yield partial(WorldSimulation.switch, target=target, strategy="replace", again=True)

    yield WorldSimulation.down
    yield partial(WorldSimulation.down, force=True)
    if fleet.fleet.switch is not None:
        yield WorldSimulation.cancel

    for slot in fleet.timers:
        yield partial(WorldSimulation.fire_timer, slot=slot)


def explore(start: Owner, look: Look[Owner], desired: Set[Hashable] = frozenset()) -> dict[Hashable, Owner]:
    """What can be reached from here, breadth first: each kind, with the first world that was found of it.

    :param desired: stop when all of these were found; empty for everything there is
    """
    found = {look.kind(start): start}
    seen = {look.key(start)}
    queue = deque([start])
    while queue and not (desired and desired <= found.keys()):
        fleet = queue.popleft()
        for move in look.moves(fleet):
            after = duplicate(fleet)
            move(after)
            after.deliver_everything()
            if (key := look.key(after)) not in seen:
                seen.add(key)
                found.setdefault(look.kind(after), after)
                queue.append(after)

    return found


def unreachable(start: Owner, look: Look[Owner]) -> tuple[dict[Hashable, Owner], list[str]]:
    """Every kind that can be reached, and each pair `this -> that` without a way."""
    found = explore(start, look)
    kinds = frozenset(found)
    pairs = [(here, there) for here, fleet in found.items() for there in kinds - explore(fleet, look, kinds).keys()]
    return found, sorted(f"{here} -> {there}" for here, there in pairs)


def test_every_state_of_an_instance_can_be_reached_from_every_other() -> None:
    look = Look(
        moves=lifecycle_moves,
        kind=lambda fleet: kind_of(fleet.state),
        key=lambda fleet: (kind_of(fleet.state), crashes_of(fleet.state)),
    )
    found, missing = unreachable(Simulation(POLICY, RECOVERY), look)
    assert found.keys() == LIFECYCLE_KINDS
    assert not missing, "no way: " + ", ".join(missing)


def test_every_phase_of_a_switch_with_each_state_it_knows_can_be_reached_from_every_other() -> None:
    def kind(fleet: WorldSimulation) -> tuple[str, str]:
        return phase_of(fleet.fleet.switch), kind_of(fleet.fleet.state)

    def key(fleet: WorldSimulation) -> Hashable:
        slots = fleet.fleet.slots
        # A set: each switch side by side may leave one more that still drains, so that their number has no end.
        others = frozenset(kind_of(state) for slot, state in slots.items() if slot != fleet.fleet.current)
        return kind(fleet), crashes_of(fleet.fleet.state), others

    found, missing = unreachable(WorldSimulation(POLICY, RECOVERY), Look(world_moves, kind, key))
    assert {phase for phase, _ in map(kind, found.values())} == PHASES
    assert {state for phase, state in map(kind, found.values()) if phase == "none"} == LIFECYCLE_KINDS
    assert not missing, "no way: " + ", ".join(missing)
