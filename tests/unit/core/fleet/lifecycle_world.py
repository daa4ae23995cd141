"""A world for the lifecycle's property tests: performers with work in hand, processes, and answers under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle import step
from orchestrator.core.fleet.lifecycle_states import (
    KEPT_ATTEMPTS,
    AwaitDrain,
    Backoff,
    CanaryPassed,
    CheckFailed,
    Drained,
    Effect,
    Event,
    Exited,
    Failed,
    Failure,
    InstanceEvent,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Ready,
    SendCanary,
    Spawn,
    Spawned,
    StartRecord,
    StartRequested,
    State,
    Stopped,
    StopProcess,
    Survived,
    Target,
    WakeAt,
    WatchLoading,
    Woke,
    instance_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery

FIRST = Rung(512)
TERMINATED = Failure("killed", "ended by signal 15")

Job = tuple[str, str]
"""What a performer does, and for which instance."""


@dataclass(slots=True)
class SimulatedEngines:
    """Performs effects when told to, not when asked to; nothing here knows the state of the lifecycle.

    :ivar live: instances whose process lives
    :ivar spawning: instances whose process may appear at any moment
    :ivar outbox: answers that were posted and have not arrived
    """

    recovery: Recovery = field(default_factory=Recovery)
    live: dict[str, int] = field(default_factory=dict)
    spawning: set[str] = field(default_factory=set)
    outbox: list[InstanceEvent] = field(default_factory=list)
    _jobs: list[Job] = field(default_factory=list)
    _rungs: dict[str, Rung] = field(default_factory=dict)
    _pids: int = 0

    def perform(self, effect: Effect) -> None:
        match effect:
            case Prepare():
                self._rungs[effect.instance] = effect.rung or FIRST
                self._jobs.append(("prepare", effect.instance))
            case Spawn():
                assert effect.instance not in self.spawning
                self.spawning.add(effect.instance)
                self._jobs.append(("spawn", effect.instance))
            case WatchLoading():
                self._jobs.append(("load", effect.instance))
            case SendCanary():
                self._jobs.append(("canary", effect.instance))
            case AwaitDrain():
                self._forget("drain", effect.instance)
                self._jobs.append(("drain", effect.instance))
            case StopProcess():
                # One that is not there yet is not remembered: the machine has to ask again.
                if effect.instance in self.live:
                    self._forget("stop", effect.instance)
                    self._jobs.append(("stop", effect.instance))
            case WakeAt() | Survived():
                return
            case _:
                assert_never(effect)

    def work(self) -> list[Job]:
        """What is in hand; of a dead process only its stop and its drain go on."""
        return [(kind, of) for kind, of in self._jobs if kind not in ("load", "canary", "stop") or of in self.live]

    def finish(self, job: Job, failure: Failure | None) -> None:
        """A performer is done, well or with a failure, and posts its answer."""
        self._jobs.remove(job)
        kind, instance = job
        match kind:
            case "prepare" if failure is None:
                self.outbox.append(Prepared(instance, self._rungs[instance], self.recovery))
            case "prepare":
                self.outbox.append(NotStarted(instance, failure or TERMINATED))
            case "spawn":
                self.spawning.remove(instance)
                if failure is None:
                    self._pids += 1
                    self.live[instance] = self._pids
                    self.outbox.append(Spawned(instance, self._pids))
                else:
                    self.outbox.append(NotStarted(instance, failure))
            case "load":
                self.outbox.append(Loaded(instance) if failure is None else CheckFailed(instance, failure))
            case "canary":
                self.outbox.append(CanaryPassed(instance) if failure is None else CheckFailed(instance, failure))
            case "drain":
                self.outbox.append(Drained(instance))
            case _:
                self.dies(instance, failure or TERMINATED)

    def break_down(self, failure: Failure, *, dies: bool) -> None:
        """The process that lives dies by itself, or a check on it fails."""
        (instance,) = self.live
        if dies:
            self.dies(instance, failure)
        else:
            self.outbox.append(CheckFailed(instance, failure))

    def dies(self, instance: str, failure: Failure) -> None:
        del self.live[instance]
        self.outbox.append(Exited(instance, failure))

    def _forget(self, kind: str, instance: str) -> None:
        if (kind, instance) in self._jobs:
            self._jobs.remove((kind, instance))


@dataclass(slots=True)
class Simulation:
    """The owner in small: one lifecycle, one timer, and `SimulatedEngines`. Every step is checked."""

    policy: RestartPolicy
    recovery: Recovery
    engines: SimulatedEngines = field(init=False)
    state: State = field(default_factory=Stopped)
    now: float = 0.0
    timer: float | None = None
    delivered: list[InstanceEvent] = field(default_factory=list)
    _slots: int = 0
    _prepared: set[str] = field(default_factory=set)
    _retries: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines = SimulatedEngines(self.recovery)

    def start(self, desired: Target) -> None:
        self._slots += 1
        self.take(StartRequested(desired, f"{self._slots}.1"))

    def fire_timer(self, early_s: float) -> None:
        assert self.timer is not None
        self.now = max(self.now, self.timer - early_s)
        self.timer = None
        self.take(Woke())

    def deliver(self, index: int) -> None:
        event = self.engines.outbox.pop(index)
        self.delivered.append(event)
        self.take(event)

    def deliver_everything(self) -> None:
        while self.engines.outbox:
            self.deliver(0)

    def settle(self) -> None:
        """Let everything go well from here on until nothing is left to happen."""
        for _ in range(200):
            if not self.go_well():
                return

        raise AssertionError(f"it never comes to rest: {self.state}")

    def go_well(self, early_s: float = 0.0) -> bool:
        """The oldest thing under way takes its good course; a timer comes last. False when nothing was under way."""
        if self.engines.outbox:
            self.deliver(0)
        elif jobs := self.engines.work():
            self.engines.finish(jobs[0], None)
        elif self.timer is not None:
            self.fire_timer(early_s)
        else:
            return False

        return True

    def take(self, event: Event) -> None:
        before = self.state
        after, effects = step(before, event, self.now, self.policy)
        assert step(before, event, self.now, self.policy) == (after, effects), "the same question, another answer"
        self.state = after
        for effect in effects:
            self._check_effect(before, event, effect)
            if isinstance(effect, WakeAt):
                self.timer = effect.time

            self.engines.perform(effect)

        if isinstance(after, Ready) and not isinstance(before, Ready):
            self._check_ready(after.instance)

        if isinstance(after, Backoff) and not isinstance(before, Backoff):
            self._check_delay(after)

        if not isinstance(before, Stopped) and not isinstance(after, Stopped):
            _check_course(before.start_record, after.start_record)

    def _check_effect(self, before: State, event: Event, effect: Effect) -> None:
        if isinstance(effect, Prepare):
            assert effect.instance not in self._prepared, "an id was used twice"
            self._prepared.add(effect.instance)
            if not isinstance(event, StartRequested):
                self._check_restart(before)
        elif isinstance(effect, Spawn):
            assert not self.engines.live

        assert isinstance(effect, WakeAt) or effect.instance == instance_of(self.state)

    def _check_restart(self, before: State) -> None:
        assert not isinstance(before, Failed) or (before.until is not None and self.now >= before.until)
        if isinstance(before, Backoff):
            assert self.now >= before.until
            if before.start_record.crashes.count == 1:
                self._retries.clear()

            # The budget is one of crashes: how late a timer fires does not count.
            crashed = before.start_record.crashes.times[-1]
            self._retries = [time for time in self._retries if crashed - time < self.policy.window_s]
            self._retries.append(crashed)
            assert len(self._retries) < self.policy.intensity

    def _check_ready(self, instance: str) -> None:
        order = [type(event) for event in self.delivered if event.instance == instance]
        desired: list[type[InstanceEvent]] = [Prepared, Spawned, Loaded, CanaryPassed]
        places = [order.index(each) for each in desired]
        assert places == sorted(places)

    def _check_delay(self, after: Backoff) -> None:
        assert not after.failure.permanent
        assert after.failure.failure_class != "device_oom"
        delay_s = self.policy.first_delay_s * 2 ** (after.start_record.crashes.count - 1)
        assert abs(after.until - self.now - min(delay_s, self.policy.max_delay_s)) < 1e-6


def _check_course(before: StartRecord, after: StartRecord) -> None:
    numbers = [attempt.number for attempt in after.attempts]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert len(numbers) <= KEPT_ATTEMPTS
    if not after.attempts or not before.attempts or after.attempts[-1].number < before.attempts[-1].number:
        return  # another course

    assert after.attempts[-1].number - before.attempts[-1].number in (0, 1)
    assert after.climbed < max(after.recovery.max_attempts, 1)
    if before.rung is not None and after.rung is not None and after.rung != before.rung:
        _check_climb(before.rung, after.rung)
        assert after.attempts[-1].outcome == "device_oom"
        assert after.climbed in (1, before.climbed + 1)


def _check_climb(below: Rung, above: Rung) -> None:
    """Strictly up, and one thing at a time."""
    if above.steps == below.steps:
        assert (above.margin_mib or 0) > (below.margin_mib or 0)
    else:
        assert above.margin_mib == below.margin_mib
        assert above.steps[:-1] == below.steps
