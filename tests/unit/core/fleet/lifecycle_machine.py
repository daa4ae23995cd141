"""What the tests of the lifecycle share: a machine to give events to, and the events of a start."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle import step
from orchestrator.core.fleet.lifecycle_states import (
    CanaryPassed,
    CheckFailed,
    Effects,
    Event,
    Exited,
    Failure,
    Loaded,
    Prepared,
    Spawned,
    StartRecord,
    StartRequested,
    State,
    Stopped,
    StopRequested,
    Target,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery

POLICY = RestartPolicy()
A = Target("a", "upstream")
B = Target("b", "ik-fork")
RECOVERY = Recovery(margins=(1664, 1792, 2048), then=("kv:q4_0",), max_attempts=6)
FIRST = Rung(1664)

CRASH = Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT(false)")
OOM = Failure("device_oom", "out of device memory", evidence="cudaMalloc failed", action="retry_margin")
BAD_MODEL = Failure("bad_model", "the file is no GGUF", action="give_up")
HUNG = Failure("engine_bug", "the canary was not answered")
TERMINATED = Failure("killed", "ended by signal 15", evidence="exit status -15")


class Machine:
    """The machine in one test: takes events and keeps the state. Time is `now`."""

    def __init__(self) -> None:
        self.state: State = Stopped()
        self.now = 100.0
        self._effects: Effects = ()

    def take(self, *events: Event) -> State:
        for event in events:
            self.state, self._effects = step(self.state, event, self.now, POLICY)

        return self.state

    def asked(self) -> Effects:
        """What the last event made it ask for."""
        return self._effects

    @property
    def start_record(self) -> StartRecord:
        assert not isinstance(self.state, Stopped)
        return self.state.start_record


def start(instance: str = "s.1") -> Sequence[Event]:
    """What a start that goes well brings, up to ready."""
    return (*spawn(instance), Loaded(instance), CanaryPassed(instance))


def spawn(instance: str = "s.1", rung: Rung = FIRST) -> Sequence[Event]:
    return (Prepared(instance, rung, RECOVERY), Spawned(instance, 42))


_READY = (StartRequested(A, "s.1"), *start())
WAYS: dict[str, Sequence[Event]] = {
    "stopped": (),
    "preparing": _READY[:1],
    "spawning": _READY[:2],
    "starting": _READY[:3],
    "loaded": _READY[:4],
    "ready": _READY,
    "draining": (*_READY, StopRequested()),
    "stopping": (*_READY, StopRequested(force=True)),
    "stopping for a failure": (*_READY, CheckFailed("s.1", HUNG)),
    "backoff": (*_READY, Exited("s.1", CRASH)),
    "failed": (*_READY, Exited("s.1", BAD_MODEL)),
}
"""Each state, with parts of `starting` told apart, and the events that lead there."""

STATES = tuple(WAYS)


def machine_in(name: str) -> Machine:
    machine = Machine()
    machine.take(*WAYS[name])
    return machine


def in_state(name: str, *events: Event) -> State:
    """The state that a machine in the named one is in after these events."""
    machine = machine_in(name)
    machine.take(*events)
    return machine.state
