"""A world for the lifecycle's property tests: performers with work in hand, processes, and answers under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.core.ladder import Rung
from orchestrator.core.profile import Recovery
from orchestrator.core.states import (
    AwaitDrain,
    CanaryPassed,
    CheckFailed,
    Drained,
    Effect,
    Event,
    Exited,
    Failure,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    SendCanary,
    Spawn,
    Spawned,
    StopProcess,
    Survived,
    WakeAt,
    WatchLoading,
)

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
    outbox: list[Event] = field(default_factory=list)
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

    def check_fails(self, instance: str, failure: Failure) -> None:
        self.outbox.append(CheckFailed(instance, failure))

    def dies(self, instance: str, failure: Failure) -> None:
        del self.live[instance]
        self.outbox.append(Exited(instance, failure))

    def _forget(self, kind: str, instance: str) -> None:
        if (kind, instance) in self._jobs:
            self._jobs.remove((kind, instance))
