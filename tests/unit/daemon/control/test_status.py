from __future__ import annotations

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import Exited, Ready, State
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.status import attempts_of
from tests.unit.core.fleet.lifecycle_machine import OOM, machine_in, start

CLOCK = Clock(1_800_000_000.0)


def started_again() -> State:
    machine = machine_in("starting")
    machine.take(Exited("s.1", OOM), *start("s.2"))
    return machine.state


def test_attempts_are_told_with_wall_clock_times_and_what_came_of_them() -> None:
    ready = started_again()
    assert isinstance(ready, Ready)
    first, _ = attempts_of(ready.start_record, CLOCK)
    assert first == {
        "number": 1,
        "started": "2027-01-15T08:01:40.000+00:00",
        "margin_mib": 1664,
        "steps": [],
        "outcome": "device_oom",
        "cause": "out of device memory",
        "evidence": "cudaMalloc failed",
        "next": f"try {Rung(1792)}",
    }


def test_without_a_start_there_are_no_attempts() -> None:
    assert attempts_of(None, CLOCK) == []
