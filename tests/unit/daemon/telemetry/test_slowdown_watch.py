"""Whose answers are judged: of engines that share a machine, those that had it to themselves."""

from __future__ import annotations

from typing import cast

import pytest

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.health.slowdown import StepSample
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry import slowdown_watch
from orchestrator.daemon.telemetry.slowdown_watch import SlowdownWatch
from orchestrator.daemon.telemetry.speed_book import SpeedBook
from orchestrator.daemon.telemetry.speed_mark_book import SpeedMarkBook
from orchestrator.gateway.contract import Finished, Traffic
from tests.unit.daemon.telemetry.idle_parts import run_on

pytestmark = pytest.mark.anyio


async def never_learned(run: EngineRun, rung: Rung) -> None:
    raise AssertionError("nothing here is learned from")


class Marks:
    """Counts the answers that it is given."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, run: EngineRun, sample: StepSample) -> None:
        self.count += 1


class Machine:
    """A watch over two engines, with the requests that each has, and the answers that were judged."""

    def __init__(self) -> None:
        self.busy: dict[str, int] = {}
        self.judged: list[tuple[str, float]] = []
        self.now = 0.0
        self.marks = Marks()
        runs = EngineRuns()
        for instance in ("a.1", "b.1"):
            runs.add(run_on(1, instance))

        self.watch = SlowdownWatch(
            cast(Owner, None), runs, cast(Traffic, self), tuple, lambda kind, text: None, lambda: None,
            never_learned, cast(SpeedBook, self), cast(SpeedMarkBook, self.marks),
        )  # fmt: skip

    def in_flight(self, instance: str) -> int:
        return self.busy.get(instance, 0)

    def note(self, run: EngineRun, sample: StepSample) -> None:
        self.judged.append((run.launch.instance, self.now))

    def ends(self, instance: str, at_s: float, decode_s: float = 0.5) -> None:
        """An answer of an engine ends at this time, whose tokens took so long."""
        self.now = at_s
        self.watch.finished(
            Finished(
                route="/completion", outcome="complete", held_s=0.0, first_token_s=None, total_s=decode_s,
                instance=instance, status=200, prompt_tokens=10, prompt_ms=1.0, output_tokens=20,
                output_ms=decode_s * 1000, depth_tokens=30, draft_tokens=0,
            )
        )  # fmt: skip


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(slowdown_watch, "monotonic", lambda: made.now)
    return made


async def test_an_answer_beside_which_another_engine_answered_is_not_judged(machine: Machine) -> None:
    machine.ends("a.1", 100.0)
    machine.ends("b.1", 100.4)  # a's answer ended while this one was made
    machine.ends("a.1", 200.0)
    machine.ends("b.1", 200.6)
    assert machine.judged == [("a.1", 100.0), ("a.1", 200.0), ("b.1", 200.6)]


async def test_an_answer_beside_which_another_engine_is_at_work_is_not_judged(machine: Machine) -> None:
    machine.ends("b.1", 100.0)
    machine.busy["b.1"] = 1
    machine.ends("a.1", 200.0)
    machine.busy["b.1"] = 0
    machine.ends("a.1", 300.0)
    assert machine.judged == [("b.1", 100.0), ("a.1", 300.0)]


async def test_other_answers_of_the_same_engine_keep_none_from_being_judged(machine: Machine) -> None:
    for at_s in (100.0, 100.2, 100.4):
        machine.ends("a.1", at_s)

    assert machine.judged == [("a.1", 100.0), ("a.1", 100.2), ("a.1", 100.4)]


async def test_answers_of_an_engine_that_is_found_slow_are_no_marks_of_its_speed(machine: Machine) -> None:
    for number in range(8):
        machine.ends("a.1", 100.0 + 10 * number)

    assert machine.marks.count == 8
    for number in range(8):
        machine.ends("a.1", 200.0 + 10 * number, decode_s=2.0)

    assert (machine.marks.count, len(machine.judged)) == (11, 16)  # the fourth slow one decides
