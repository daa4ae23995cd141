"""Several residents against simulated engines, a device that counts, and clients: the daemon in small.

`SimulatedFleet` checks each step that the machine takes; who asks for what, and when, is the tests' business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core.fleet.admission import MemoryLook, Use
from orchestrator.core.fleet.demand import Demand
from orchestrator.core.fleet.fleet import step_fleet
from orchestrator.core.fleet.fleet_states import (
    DownRequested,
    Fleet,
    FleetEvent,
    FocusRequested,
    LoadRequested,
    Looked,
    PinRequested,
    Refused,
    ResidencyRules,
    RestartRequested,
    RestoreRequested,
    RulesChanged,
    Told,
    UnloadRequested,
)
from orchestrator.core.fleet.lifecycle_states import (
    Exited,
    Failed,
    Failure,
    NotStarted,
    Prepare,
    Preparing,
    Ready,
    Spawn,
    State,
    Target,
    instance_of,
)
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    SlotWoke,
    Strategy,
    SwitchFinished,
    SwitchRequested,
    UpRequested,
    WakeSlot,
    has_process,
    slot_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_world import Job, SimulatedEngines

PLACE = "gpu0"
OUT_OF_MEMORY = Failure("device_oom", "out of memory", evidence="cudaMalloc failed", action="retry_margin")


@dataclass(slots=True)
class SimulatedFleet:
    """The owner, the demand scheduler, a device and clients in small.

    :param capacity: MiB of the device
    :param needs: MiB by profile, as it is planned
    :param takes: MiB by profile, where it takes something else than planned
    :ivar filled: instances that have taken their memory: they do as they load
    :ivar out_of_memory: profiles of starts that met a device without enough memory
    :ivar lingering: MiB of what has ended that are not back yet
    :ivar waiting: since when somebody waits for a profile
    :ivar in_flight: requests by instance
    :ivar told: events for people, by kind
    """

    capacity: int = 1000
    needs: dict[str, int] = field(default_factory=lambda: {"a": 400, "b": 400, "c": 400, "d": 900})
    takes: dict[str, int] = field(default_factory=dict)
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    recovery: Recovery = field(default_factory=lambda: Recovery(margins=(1664, 2048), max_attempts=3))
    engines: SimulatedEngines = field(init=False)
    fleet: Fleet = field(default_factory=Fleet)
    now: float = 100.0
    timers: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    lingering: int = 0
    filled: set[str] = field(default_factory=set)
    out_of_memory: list[str] = field(default_factory=list)
    in_flight: Counter[str] = field(default_factory=Counter)
    ends: dict[str, float] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    finished: dict[str, SwitchFinished] = field(default_factory=dict)
    requested: set[str] = field(default_factory=set)
    loads: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    targets: dict[str, Target] = field(default_factory=dict)
    _ids: int = 0
    _running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.engines = SimulatedEngines(self.recovery)

    # What people ask for.

    def up(self, profile: str, engine: str = "upstream") -> None:
        self.take(UpRequested(Target(profile, engine), self._fresh()))

    def load(self, profile: str) -> None:
        self.take(LoadRequested(Target(profile, "upstream"), self._fresh()))

    def switch(
        self, profile: str, engine: str = "upstream", *, strategy: Strategy = "replace", keep: bool = False
    ) -> str:
        slot = self._fresh()
        self.requested.add(slot)
        self.take(FocusRequested(SwitchRequested(Target(profile, engine), slot, strategy), keep))
        return slot

    def restart(self, profile: str, engine: str = "upstream") -> str:
        """Ask for a profile to be started anew; the id of the operation."""
        slot = self._fresh()
        self.requested.add(slot)
        self.take(RestartRequested(SwitchRequested(Target(profile, engine), slot, "replace", again=True)))
        return slot

    def restore(self, profile: str, *, focus: bool = True, keeps: Iterable[str] = ()) -> None:
        self.take(RestoreRequested(Target(profile, "upstream"), self._fresh(), focus, frozenset(keeps)))

    def cancel(self, operation: str) -> None:
        self.take(CancelRequested(operation))

    def down(self, *profiles: str) -> None:
        self.take(DownRequested(profiles))

    def unload(self, profile: str) -> None:
        self.take(UnloadRequested(profile))

    def pin(self, profile: str, pinned: bool = True) -> None:
        self.take(PinRequested(profile, pinned))

    def rules(self, rules: ResidencyRules) -> None:
        self.take(RulesChanged(rules))

    # What clients do.

    def ask(self, profile: str) -> None:
        """A client asks for a profile, and waits where it does not serve."""
        self.refused.pop(profile, None)
        self.waiting.setdefault(profile, self.now)
        self._serve()

    def end(self, profile: str) -> None:
        """All requests that a profile answers end."""
        for instance in [each for each in self.in_flight if self.profile_of(each) == profile]:
            self._end(instance)

    def look(self) -> None:
        """The demand scheduler looks: what is asked for and missing is asked for, then the fleet is told."""
        for profile in tuple(self.waiting):
            seat = self.fleet.seat_of(profile)
            resident = self.fleet.residents[seat] if seat is not None else None
            asleep = resident is not None and resident.asleep is not None and not resident.busy
            if resident is None or asleep or isinstance(resident.state, Failed):
                target = resident.asleep if resident is not None and resident.asleep is not None else None
                self.take(LoadRequested(target or Target(profile, "upstream"), self._fresh(), by_client=True))

        demand = tuple(Demand(profile, 1, self.now - since) for profile, since in self.waiting.items())
        self.take(Looked(demand, self.use(), self.memory() if self.fleet.waiting else None))

    def use(self) -> dict[str, Use]:
        ready = [each.state for each in self.fleet.residents.values() if isinstance(each.state, Ready)]
        return {
            each.start_record.target.profile: Use(
                self.in_flight[each.instance],
                self.now - max(each.since, self.ends.get(each.start_record.target.profile, each.since)),
                float(self.served[each.start_record.target.profile]),
            )
            for each in ready
        }

    def memory(self) -> MemoryLook:
        needs = {profile: {PLACE: mib} for profile, mib in self.needs.items()}
        holds = {profile: {PLACE: self._takes(profile)} for profile in self.needs}
        return MemoryLook({PLACE: self.capacity - self.used() - self.lingering}, needs, holds)

    def used(self) -> int:
        """What the processes hold."""
        return sum(self._takes(self.profile_of(each)) for each in self.engines.live if each in self.filled)

    # What goes on by itself.

    def deliver_everything(self) -> None:
        while self.engines.outbox:
            self.take(self.engines.outbox.pop(0))

    def work(self) -> list[Job]:
        """What can be finished: a drain ends with the last request."""
        return [job for job in self.engines.work() if job[0] != "drain" or not self.in_flight[job[1]]]

    def work_on(self, failure: Failure | None = None, *, index: int = 0) -> bool:
        """Finish one piece of work; a load that does not fit fails. False when there is none."""
        work = self.work()
        if not work:
            return False

        kind, instance = job = work[index % len(work)]
        if kind == "load" and failure is None:
            self.filled.add(instance)

        if kind == "load" and failure is None and self.used() > self.capacity:
            self.out_of_memory.append(self.profile_of(instance))
            self.engines.dies(instance, OUT_OF_MEMORY)
        else:
            self.engines.finish(job, failure)

        self.deliver_everything()
        return True

    def become_ready(self, *profiles: str) -> None:
        """Look and work until these serve."""
        for _ in range(200):
            self.deliver_everything()
            if all(self.is_ready(each) for each in profiles):
                return

            self.look()
            if not self.work_on():
                self.now += 0.25

        raise AssertionError(f"{profiles} do not serve: {self.fleet}")

    def settle(self, limit_s: float, *, busy: bool = False) -> None:
        """Let everything go well until nobody waits; at most for so many seconds.

        :param busy: whatever serves does so without a pause; requests end at once otherwise
        """
        until = self.now + limit_s
        self._end_requests(busy=busy)
        while self.waiting or self.fleet.waiting or self.work() or self.engines.outbox:
            assert self.now < until, f"somebody waits for ever: {self.waiting}, {self.fleet}"
            self.deliver_everything()
            self.look()
            if not self.work_on():
                self.now += 0.25
                for slot in [slot for slot, due in self.timers.items() if due <= self.now]:
                    del self.timers[slot]
                    self.take(SlotWoke(slot))

            self._end_requests(busy=busy)

    def _end_requests(self, *, busy: bool) -> None:
        serving = {self._serving(profile) for profile in self.needs} if busy else set()
        for instance in tuple(self.in_flight):
            if instance not in serving:
                self._end(instance)

        self.in_flight.update({each: 1 for each in serving if each is not None and not self.in_flight[each]})

    def is_ready(self, profile: str) -> bool:
        return self._serving(profile) is not None

    def ready(self) -> set[str]:
        """The profiles that serve."""
        return {profile for profile in self.needs if self.is_ready(profile)}

    def take(self, event: FleetEvent) -> None:
        before = self.fleet
        after, effects = step_fleet(before, event, self.now, self.policy)
        assert step_fleet(before, event, self.now, self.policy) == (after, effects), "the same question, another answer"
        self.fleet = after
        if isinstance(event, Exited | NotStarted):
            self._running.discard(event.instance)

        for effect in effects:
            match effect:
                case Told():
                    self.told.append(effect)
                case Refused():
                    self.refused[effect.profile] = effect.text
                    self.waiting.pop(effect.profile, None)
                case WakeSlot():
                    self.timers[effect.slot] = effect.time
                case SwitchFinished():
                    assert effect.operation.id not in self.finished, "a switch ended twice"
                    self.finished[effect.operation.id] = effect
                case _:
                    if isinstance(effect, Prepare):
                        self.targets[effect.instance] = effect.target
                        self.loads[effect.target.profile] += 1
                    elif isinstance(effect, Spawn):
                        self._running.add(effect.instance)

                    self.engines.perform(effect)

        for instance in tuple(self.in_flight):  # a request ends with its engine, at the latest
            if instance not in self.engines.live:
                del self.in_flight[instance]

        self._check(before, event)
        self._serve()

    def profile_of(self, instance: str) -> str:
        return self.targets[instance].profile

    def _serve(self) -> None:
        for profile in tuple(self.waiting):
            instance = self._serving(profile)
            if instance is not None:
                del self.waiting[profile]
                self.in_flight[instance] += 1
                self.served[profile] += 1
            elif (seat := self.fleet.seat_of(profile)) is not None:
                resident = self.fleet.residents[seat]
                state = resident.state
                failed = isinstance(state, Failed) and state.start_record.target.profile == profile
                if isinstance(state, Failed) and failed and resident.switch is None:
                    del self.waiting[profile]
                    self.refused[profile] = state.failure.message

    def _serving(self, profile: str) -> str | None:
        seat = self.fleet.seat_of(profile)
        resident = self.fleet.residents[seat] if seat is not None else None
        if resident is None or resident.asleep is not None or resident.holding:
            return None

        state = resident.state
        ready = isinstance(state, Ready) and state.start_record.target.profile == profile
        return state.instance if ready and isinstance(state, Ready) else None

    def _end(self, instance: str) -> None:
        self.ends[self.profile_of(instance)] = self.now
        del self.in_flight[instance]

    def _takes(self, profile: str) -> int:
        return self.takes.get(profile, self.needs[profile])

    def _check(self, before: Fleet, event: FleetEvent) -> None:
        fleet = self.fleet
        assert fleet.focus is None or fleet.focus in fleet.residents
        about = Counter(profile for each in fleet.residents.values() for profile in each.profiles)
        assert all(count == 1 for count in about.values()), f"a profile has two seats: {about}"
        slots = fleet.slots
        assert len(slots) == sum(len(each.slots) for each in fleet.residents.values()), "a slot is in two seats"
        processes = Counter(
            (seat, self.profile_of(each))
            for each in self.engines.live
            if (seat := fleet.seat_with(slot_of(each))) is not None
        )
        per_profile = Counter(profile for _, profile in processes)
        assert all(count == 1 for count in per_profile.values()), "a profile runs in two seats"
        known = {instance_of(state) for state in slots.values()}
        assert self._running <= known, "a process was lost"
        assert set(fleet.waiting) <= known, "a start that is not wanted any more waits"
        under_way = {each.switch.operation.id for each in fleet.residents.values() if each.switch is not None}
        assert self.requested - set(self.finished) <= under_way, "somebody waits for ever for a switch"
        assert set(fleet.moves) <= under_way, "the focus is to move with a switch that is over"
        for seat, resident in before.residents.items():
            gone = seat not in fleet.residents or (fleet.residents[seat].asleep and not resident.asleep)
            if gone and isinstance(event, Looked) and isinstance(resident.state, Ready):
                assert not before.pinned(resident.state.start_record.target.profile), "who is pinned was unloaded"

        if isinstance(event, Looked):
            self._check_memory(before)

    def _check_memory(self, before: Fleet) -> None:
        """What is planned of all that start or serve is no more than there is, unless it is alone."""

        def holds(state: State) -> bool:
            starts = isinstance(state, Preparing) and state.instance not in self.fleet.waiting
            return has_process(state) or starts

        residents = self.fleet.residents
        holding = [seat for seat, each in residents.items() if any(map(holds, each.slots.values()))]
        let_in = [each for name, each in before.waiting.items() if name not in self.fleet.waiting]
        started = [each for each in let_in if each.seat in holding]
        if started and len(holding) > 1 and not self.takes:
            states = [state for seat in holding for state in residents[seat].slots.values()]
            instances = [name for name in map(instance_of, states) if name in self.targets]
            planned = sum(self.needs[self.profile_of(name)] for name in instances)
            assert planned <= self.capacity, "more was let in than there is"

    def _fresh(self) -> str:
        self._ids += 1
        return f"s{self._ids}"
