"""What is remembered of an engine's speed by day, and when it is told that it was faster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.adapters.file_stamps import Stamp, stamp
from orchestrator.adapters.store import speed_marks
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.adapters.store.state_file import load_state
from orchestrator.core.course.course import SpeedSeries
from orchestrator.core.health.slowdown import StepSample
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.telemetry import speed_mark_book
from orchestrator.daemon.telemetry.pace import IDLE_S
from orchestrator.daemon.telemetry.speed_mark_book import SpeedMarkBook
from tests.unit.core.course.histories import DAY_S
from tests.unit.daemon.telemetry.idle_parts import run_on

pytestmark = pytest.mark.anyio

STEP = StepSample(0.0, 100, 20.0, 300.0)


class Days:
    """A book, and answers to clients on one day after the other."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "speed_marks.json")
        self.store = SpeedMarkStore(self.path)
        self.events: list[tuple[str, str]] = []
        self.notices = 0
        self.lent = False
        self.now_s = 0.0
        self.book = self.opened()

    def opened(self) -> SpeedMarkBook:
        return SpeedMarkBook(
            self.path, lambda kind, text: self.events.append((kind, text)), self.noticed, lambda: self.lent,
            lambda: self.now_s,
        )  # fmt: skip

    def noticed(self) -> None:
        self.notices += 1

    async def pass_by(self, count: int, run: EngineRun, step_ms: float = 20.0, answers: int = 16) -> None:
        for _ in range(count):
            self.now_s += DAY_S
            for _ in range(answers):
                self.book.note(run, dataclasses.replace(STEP, step_ms=step_ms))
                await self.book.save_due([run.launch.instance])


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(tmp_path)


def on_build(build: str, instance: str = "a.1") -> EngineRun:
    run = run_on(1, instance)
    key = dataclasses.replace(run.launch.margin_key, build=build)
    return EngineRun(dataclasses.replace(run.launch, margin_key=key))


async def test_a_day_of_answers_is_one_mark_with_what_it_was_measured_on(days: Days) -> None:
    await days.pass_by(2, on_build("b1 0123", "a.1"))
    found = days.store.read().marks
    assert [(each.answers, each.decode_tok_s, each.when_s) for each in found] == [
        (16, 50.0, DAY_S),
        (16, 50.0, 2 * DAY_S),
    ]
    assert (found[0].circumstances.build, found[0].circumstances.model) == ("b1 0123", "a.gguf, 1 bytes")
    assert found[0].circumstances.kernel.startswith("Linux ")


async def test_few_or_disturbed_answers_and_trials_are_none(days: Days) -> None:
    await days.pass_by(1, run_on(1, "a.1"), answers=7)
    days.book.note(run_on(1, "a.1"), dataclasses.replace(STEP, streams=2.0))
    days.lent = True
    await days.pass_by(1, run_on(1, "a.1"))
    assert days.store.read().marks == []


async def test_a_healthy_run_over_builds_tells_nothing(days: Days) -> None:
    await days.pass_by(6, on_build("b1"))
    run = on_build("b2")
    await days.pass_by(6, run, 20.4)
    assert (days.events, days.book.notice(run), days.notices) == ([], None, 0)


async def test_a_slower_build_is_told_once_until_it_is_accepted(days: Days) -> None:
    await days.pass_by(6, on_build("b1"))
    run = on_build("b2")
    await days.pass_by(3, run, 24.0)
    [(kind, text)] = days.events
    assert kind == "declined"
    assert "decodes 17 % slower" in text and "changed since: build b1 -> b2" in text
    assert days.book.notice(run) == text
    assert days.book.notice(on_build("b1")) is None  # what was found holds for the other build
    assert days.book.notice(None) is None
    [mark] = [each for each in days.store.read().marks if each.when_s == 7 * DAY_S]
    days.store.accept({SpeedSeries(mark.profile, mark.engine, mark.kind): mark.when_s})
    await days.book.save_due([])
    assert days.book.notice(run) == text  # it has only just looked
    days.now_s += IDLE_S
    await days.book.save_due([])
    assert (days.book.notice(run), len(days.events), days.notices) == (None, 1, 2)


async def test_after_a_restart_it_is_told_of_what_runs_and_not_of_a_build_that_was_gone_back_from(days: Days) -> None:
    await days.pass_by(6, on_build("b1"))
    await days.pass_by(3, on_build("b2"), 24.0)
    days.events.clear()
    days.book = days.opened()
    await days.pass_by(1, on_build("b1", "a.2"), answers=7)
    assert (days.events, days.notices) == ([], 2), "what status says is looked up anew"
    await days.pass_by(1, on_build("b2", "a.3"), 24.0)
    assert [kind for kind, _ in days.events] == ["declined"]


async def test_a_mark_reads_the_file_once_and_a_decline_looks_at_it_now_and_then(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    await days.pass_by(6, on_build("b1"))
    run = on_build("b2")
    await days.pass_by(3, run, 24.0)
    reads: list[str] = []
    stamps: list[str] = []

    def read(path: str) -> tuple[dict[str, object], str | None]:
        reads.append(path)
        return load_state(path)

    def look(path: str) -> Stamp:
        stamps.append(path)
        return stamp(path)

    monkeypatch.setattr(speed_marks, "load_state", read)
    await days.pass_by(1, run, 24.0, answers=8)
    assert len(reads) == 1
    monkeypatch.setattr(speed_mark_book, "stamp", look)
    for _ in range(25):
        days.now_s += 1.0
        await days.book.save_due([])

    assert (len(reads), len(stamps)) == (1, 2)


async def test_the_next_daemon_knows_it_before_anybody_asks(days: Days) -> None:
    await days.pass_by(6, on_build("b1"))
    run = on_build("b2")
    await days.pass_by(3, run, 24.0)
    days.book = days.opened()
    assert days.book.notice(run) is None
    await days.book.save_due([])
    assert "slower" in (days.book.notice(run) or "")


async def test_a_file_that_cannot_be_written_is_no_ones_end(days: Days, tmp_path: Path) -> None:
    (tmp_path / "speed_marks.json").mkdir()
    await days.pass_by(1, run_on(1, "a.1"))
    assert days.events == []
