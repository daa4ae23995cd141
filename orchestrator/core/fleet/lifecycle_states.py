"""The data of the lifecycle machine: its states, the events it takes and the effects it asks for.

Each state carries only the data that exists in it. `lifecycle.py` has the transitions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.core.failure.reactions import response_to
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.restart import CrashRecord
from orchestrator.core.profile.profile import Recovery

KEPT_ATTEMPTS = 20
"""Attempts shown to people; older ones are in the events."""


@dataclass(frozen=True, slots=True)
class Target:
    """A profile on an engine: what can be asked to run."""

    profile: str
    engine: str

    def __str__(self) -> str:
        return f"{self.profile}@{self.engine}"


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a start or a run ended. Fields as in `core/failure/diagnosis.py`.

    `unreleased_mib` is the device memory that a dead engine still held when this one began
    (`core/failure/unreleased_memory.py`). `crowded`: others were loaded beside it, and one of them can go.
    """

    failure_class: str
    message: str
    evidence: str | None = None
    action: str = "restart"
    phase: str = "none"
    device: str | None = None
    requested_mib: float | None = None
    hint: str | None = None
    unreleased_mib: int = 0
    crowded: bool = False

    @property
    def permanent(self) -> bool:
        """True where the same start would fail the same way (`core/failure/reactions.py`)."""
        return response_to(self.failure_class, self.action, self.phase) == "give_up"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start; `started` is monotonic. `outcome` is running, ready, stopped or a failure class."""

    number: int
    started: float
    rung: Rung
    outcome: str = "running"
    failure: Failure | None = None
    next: str | None = None


@dataclass(frozen=True, slots=True)
class StartRecord:
    """The recovery of one target, which outlives a single process: its rung on the ladder, and what was tried.

    :ivar silent_loads: starts that were ended since they loaded in silence for too long, since the last that was ready
    """

    target: Target
    rung: Rung | None = None
    recovery: Recovery = field(default_factory=Recovery)
    attempts: tuple[Attempt, ...] = ()
    climbed: int = 0
    crashes: CrashRecord = field(default_factory=CrashRecord)
    cache_in_host: bool = True
    silent_loads: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing runs; `last` is what ran."""

    last: StartRecord | None = None


@dataclass(frozen=True, slots=True)
class Preparing:
    """The engine, the port and the key are being made ready; there is no process."""

    start_record: StartRecord
    instance: str


@dataclass(frozen=True, slots=True)
class Starting:
    """The process loads its model; `pid` is None until it is spawned."""

    start_record: StartRecord
    instance: str
    pid: int | None = None
    loaded: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The instance serves, since the monotonic time `since`."""

    start_record: StartRecord
    instance: str
    pid: int
    since: float


@dataclass(frozen=True, slots=True)
class Draining:
    """No new requests; those in flight may end. `then` is what starts afterwards; `since` when it became ready."""

    start_record: StartRecord
    instance: str
    pid: int
    since: float
    then: Target | None


@dataclass(frozen=True, slots=True)
class Stopping:
    """The process is being ended. With `failure`, it is ended because of that."""

    start_record: StartRecord
    instance: str
    then: Target | None
    failure: Failure | None = None
    ready_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before the next start, until the monotonic time `until`. `instance` is the process that ended."""

    start_record: StartRecord
    instance: str
    failure: Failure
    until: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Given up. `until` is when one more try is due; None when only a person can change something."""

    start_record: StartRecord
    instance: str
    failure: Failure
    until: float | None


State = Stopped | Preparing | Starting | Ready | Draining | Stopping | Backoff | Failed


@dataclass(frozen=True, slots=True)
class StartRequested:
    """A person wants this target: what failed before is forgotten, and no wait is waited out.

    `instance` names the first process where there was none before, `slot.1`; else the name is derived.
    """

    target: Target
    instance: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """`force` skips the draining."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """A draining instance serves again: the switch that wanted it gone was cancelled."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`cache_in_host` says whether some of the KV cache may be in host memory."""

    instance: str
    rung: Rung
    recovery: Recovery
    cache_in_host: bool = True


@dataclass(frozen=True, slots=True)
class Spawned:
    instance: str
    pid: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """/health is good, and the port belongs to our process."""

    instance: str


@dataclass(frozen=True, slots=True)
class CanaryPassed:
    instance: str


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """The process lives, but loading stalled, or the canary was not answered as it should be."""

    instance: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Preparing or spawning failed: there is no process."""

    instance: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Drained:
    instance: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone and reaped. `failure` says why, as far as the log and the exit status tell."""

    instance: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Woke:
    """The time asked for by `WakeAt` has come."""


@dataclass(frozen=True, slots=True)
class FilesChanged:
    """The profile, the model or the program of an instance that failed for good is another one by now."""

    instance: str


InstanceEvent = Prepared | Spawned | Loaded | CanaryPassed | CheckFailed | NotStarted | Drained | Exited | FilesChanged
"""The events that are reported of one process."""

Event = StartRequested | StopRequested | ResumeRequested | Woke | InstanceEvent


@dataclass(frozen=True, slots=True)
class Prepare:
    """Resolve the target and make ready what a process needs. `rung` is None for the first attempt.

    `settle_s` is waited before: devices give memory back a while after a process's end.
    """

    instance: str
    target: Target
    rung: Rung | None
    settle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spawn:
    instance: str


@dataclass(frozen=True, slots=True)
class WatchLoading:
    """:param silent_loads: as in `StartRecord`: each has doubled the time that a load may be silent"""

    instance: str
    silent_loads: int = 0


@dataclass(frozen=True, slots=True)
class SendCanary:
    instance: str


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Wait, bounded, until no request is in flight on the instance. Takes the place of an earlier wait for it."""

    instance: str


@dataclass(frozen=True, slots=True)
class StopProcess:
    """End the process, or the attempt to spawn it. Asking twice is the same as once; one answer, `Exited`, follows."""

    instance: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    time: float


@dataclass(frozen=True, slots=True)
class Survived:
    """The instance proved healthy on this rung: what was learned may be kept. May be said more than once."""

    instance: str
    rung: Rung


Effect = Prepare | Spawn | WatchLoading | SendCanary | AwaitDrain | StopProcess | WakeAt | Survived
Effects = tuple[Effect, ...]


def describe(failure: Failure) -> str:
    """Return a failure in one line: what happened, and the log line that shows it."""
    return f"{failure.message} [{failure.evidence}]" if failure.evidence else failure.message


def instance_of(state: State) -> str | None:
    """Return the instance that the state speaks of, if it has one."""
    match state:
        case Preparing() | Starting() | Ready() | Draining() | Stopping():
            return state.instance
        case Stopped() | Backoff() | Failed():
            return None
        case _:
            assert_never(state)
