"""Several slots against simulated engines: the owner in small, which checks each step that the world takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.core.fleet.lifecycle_states import (
    Draining,
    Exited,
    Failed,
    Failure,
    InstanceEvent,
    NotStarted,
    Prepare,
    Ready,
    Spawn,
    Stopped,
    Stopping,
    Target,
    instance_of,
)
from orchestrator.core.fleet.resident import step_resident
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    Resident,
    ResidentEvent,
    SideBySide,
    SlotWoke,
    StartingNew,
    StopAllRequested,
    Strategy,
    SwitchFinished,
    SwitchRequested,
    UpRequested,
    WakeSlot,
    slot_of,
    state_is_active,
    target_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_world import Job, SimulatedEngines


@dataclass(slots=True)
class WorldSimulation:
    """The owner in small: one world, a timer per slot, and `SimulatedEngines`.

    :ivar running: instances that were spawned and whose end was not delivered yet
    :ivar requested: ids of the switches that somebody waits for
    :ivar finished: results by id of the operation
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    recovery: Recovery = field(default_factory=Recovery)
    engines: SimulatedEngines = field(init=False)
    fleet: Resident = field(default_factory=Resident)
    now: float = 100.0
    timers: dict[str, float] = field(default_factory=dict)
    delivered: list[InstanceEvent] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    requested: set[str] = field(default_factory=set)
    finished: dict[str, SwitchFinished] = field(default_factory=dict)
    _ids: int = 0
    _prepared: set[str] = field(default_factory=set)
    _beside: set[frozenset[str]] = field(default_factory=set)
    _held_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engines = SimulatedEngines(self.recovery)

    def up(self, target: Target) -> str:
        slot = self._fresh()
        self.take(UpRequested(target, slot))
        return slot

    def down(self, *, force: bool = False) -> None:
        self.take(StopAllRequested(force))

    def switch(self, target: Target, strategy: Strategy, *, again: bool = False) -> str:
        """Ask for a switch; the id of the operation."""
        slot = self._fresh()
        self.requested.add(slot)
        self.take(SwitchRequested(target, slot, strategy, again))
        return slot

    def cancel(self) -> None:
        assert self.fleet.switch is not None
        self.take(CancelRequested(self.fleet.switch.operation.id))

    def deliver(self, index: int) -> None:
        event = self.engines.outbox.pop(index)
        self.delivered.append(event)
        self.take(event)

    def deliver_everything(self) -> None:
        while self.engines.outbox:
            self.deliver(0)

    def perform(self, kind: str, slot: str, failure: Failure | None = None) -> None:
        """Finish the one piece of work of a kind that is in hand for a slot, and deliver the answer."""
        (job,) = self.jobs(kind, slot)
        self.engines.finish(job, failure)
        self.deliver_everything()

    def jobs(self, kind: str, slot: str) -> list[Job]:
        return [job for job in self.engines.work() if job[0] == kind and slot_of(job[1]) == slot]

    def become_ready(self, slot: str) -> None:
        for kind in ("prepare", "spawn", "load", "canary"):
            self.perform(kind, slot)

    def crash(self, slot: str, failure: Failure) -> None:
        """The process of a slot ends by itself, and its end is delivered."""
        (instance,) = [each for each in self.engines.live if slot_of(each) == slot]
        self.engines.dies(instance, failure)
        self.deliver_everything()

    def fire_timer(self, slot: str, early_s: float = 0.0) -> None:
        self.now = max(self.now, self.timers.pop(slot) - early_s)
        self.take(SlotWoke(slot))

    def settle(self) -> None:
        """Let everything go well from here on until nothing is left to happen."""
        for _ in range(300):
            self.deliver_everything()
            if jobs := self.engines.work():
                self.engines.finish(jobs[0], None)
            elif self.timers:
                self.fire_timer(min(self.timers, key=self.timers.__getitem__))
            else:
                self._check_rest()
                return

        raise AssertionError(f"it never comes to rest: {self.fleet}")

    def take(self, event: ResidentEvent) -> None:
        before = self.fleet
        after, effects = step_resident(before, event, self.now, self.policy)
        assert step_resident(before, event, self.now, self.policy) == (after, effects), (
            "the same question, another answer"
        )
        self.fleet = after
        if isinstance(event, Exited | NotStarted):
            self.running.discard(event.instance)

        self._note_switch()
        for effect in effects:
            match effect:
                case WakeSlot():
                    self.timers[effect.slot] = effect.time
                case SwitchFinished():
                    self._check_finished(effect)
                case _:
                    if isinstance(effect, Prepare):
                        assert effect.instance not in self._prepared, "an instance id was used twice"
                        self._prepared.add(effect.instance)
                    elif isinstance(effect, Spawn):
                        self._check_spawn(effect.instance)
                        self.running.add(effect.instance)

                    self.engines.perform(effect)

        self._check_world(before)

    def _note_switch(self) -> None:
        switch = self.fleet.switch
        if isinstance(switch, SideBySide):
            self._beside.add(frozenset((switch.old, switch.new)))

        if switch is not None and self.fleet.holding:
            self._held_since.setdefault(switch.operation.id, self.now)

    def _check_spawn(self, instance: str) -> None:
        """Beside another process only where both belong to one switch side by side, and not while requests wait.

        A replaced one that still ends its streams does not count where nobody is held: its memory was not free then.
        """
        slot = slot_of(instance)
        others = {slot_of(each) for each in self.running}
        assert slot not in others, "two processes of one slot"
        beside = (each for each in others if not isinstance(self.fleet.slots[each], Draining | Stopping))
        assert all(frozenset((slot, each)) in self._beside for each in beside), "a process was started beside another"
        switch = self.fleet.switch
        # A start that is asked for again is only waited for: it may have begun beside another one.
        watched = isinstance(switch, StartingNew) and switch.new != switch.operation.id
        assert watched or not (others and self.fleet.holding), "a process was started before the other was gone"

    def _check_finished(self, finished: SwitchFinished) -> None:
        operation = finished.operation
        assert operation.id not in self.finished, "a switch ended twice"
        self.finished[operation.id] = finished
        held_since = self._held_since.get(operation.id, self.now)
        assert finished.gap_s == self.now - held_since
        assert finished.total_s == self.now - operation.started
        assert not (finished.ok and finished.rolled_back)
        if finished.ok:
            assert finished.cause is None
            assert state_is_active(self.fleet.state)
            assert target_of(self.fleet.state) == operation.target
        else:
            assert finished.cause

        if finished.rolled_back:
            assert target_of(self.fleet.state) == operation.origin
            assert not isinstance(self.fleet.state, Stopped | Failed)

    def _check_world(self, before: Resident) -> None:
        fleet = self.fleet
        assert fleet.current is None or fleet.current in fleet.slots
        assert not fleet.holding or fleet.switch is not None
        under_way = {fleet.switch.operation.id} if fleet.switch is not None else set()
        assert self.requested - set(self.finished) <= under_way, "somebody waits for ever"
        assert not under_way & set(self.finished), "a switch goes on after its end"
        processes = set(self.engines.live) | self.engines.spawning
        assert processes <= self.running
        known = {instance_of(state) for state in fleet.slots.values()}
        assert self.running <= known, "a process was lost"
        replaced = {instance_of(state) for state in fleet.slots.values() if isinstance(state, Draining | Stopping)}
        assert len(self.running - replaced) <= 2
        dropped = set(before.slots) - set(fleet.slots)
        assert not dropped & {slot_of(each) for each in self.running}
        if fleet.switch is None and isinstance(fleet.state, Ready):
            assert fleet.desired == target_of(fleet.state)

        if fleet.asleep is not None:
            assert fleet.switch is None and fleet.desired == fleet.asleep
            assert isinstance(fleet.state, Draining | Stopping | Stopped), "what is unloaded neither starts nor serves"

    def _check_rest(self) -> None:
        """Nothing is left to happen: everybody was answered, and what is wanted serves, or has failed for good."""
        fleet = self.fleet
        assert fleet.switch is None
        assert self.requested <= set(self.finished)
        assert set(fleet.slots) == ({fleet.current} if fleet.current else set())
        state = fleet.state
        assert isinstance(state, Ready | Stopped | Failed), state
        assert fleet.desired == (fleet.asleep if isinstance(state, Stopped) else target_of(state))
        instance = instance_of(state)
        assert self.running == set(self.engines.live) == ({instance} if isinstance(state, Ready) else set())

    def _fresh(self) -> str:
        self._ids += 1
        return f"s{self._ids}"
