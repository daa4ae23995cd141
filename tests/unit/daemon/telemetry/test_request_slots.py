"""How many slots work for nobody, and what is known of the engine's work for each request."""

from __future__ import annotations

import pytest

from orchestrator.core.measure.slots import Slot
from orchestrator.daemon.telemetry.engine_samples import Work, busy_since
from orchestrator.daemon.telemetry.request_slots import abandoned_slots, progress_of
from orchestrator.gateway.contract import EngineProgress, Finished, Underway

NOW_S = 100.0


def work(*busy_for_s: float) -> Work:
    slots = tuple(Slot(number, True, 4096, number) for number in range(len(busy_for_s)))
    since = {(slot.id, slot.task): NOW_S - age_s for slot, age_s in zip(slots, busy_for_s, strict=True)}
    return Work("i", slots, asked_s=NOW_S, answered_s=NOW_S, busy_since=since)


def running(number: int, instance: str | None = "i", outcome: str = "running") -> Underway:
    return Underway(
        id=number, route="/completion", outcome=outcome, started=1.0, held_s=0.0, first_token_s=None, total_s=9.0,
        instance=instance,
    )  # fmt: skip


def ended(at_s: float, instance: str = "i") -> Finished:
    return Finished(
        route="/completion", outcome="client_gone", started=1.0, held_s=0.0, first_token_s=None, total_s=at_s - 1.0,
        instance=instance, status=499,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("underway", "gone", "busy_for_s", "expected"),
    [
        ([], [], [], 0),
        ([running(1)], [], [9.0], 0),
        ([], [], [9.0], 1),
        ([running(1)], [], [9.0, 9.0], 1),
        ([running(1), running(2)], [], [9.0], 0),
        ([], [ended(NOW_S - 1)], [9.0], 0),  # the engine has a moment to notice
        ([], [ended(NOW_S - 3)], [9.0], 1),
        ([], [ended(NOW_S - 1, "other")], [9.0], 1),
        ([], [], [0.5], 0),  # orch's own question, say
        ([running(1, "other")], [], [9.0], 1),
        ([running(1, None, "held")], [], [9.0], 1),
    ],
)
def test_slots_that_work_on_without_a_request_are_counted(
    underway: list[Underway], gone: list[Finished], busy_for_s: list[float], expected: int
) -> None:
    assert abandoned_slots(underway, gone, work(*busy_for_s)) == expected


def test_a_slot_is_new_with_each_task() -> None:
    first = busy_since((Slot(0, True, 1, 7), Slot(1, False, 1, 6)), 10.0, {})
    assert first == {(0, 7): 10.0}
    assert busy_since((Slot(0, True, 1, 7),), 12.0, first) == {(0, 7): 10.0}
    assert busy_since((Slot(0, True, 1, 8),), 12.0, first) == {(0, 8): 12.0}
    assert busy_since((Slot(0, False, 1, 7),), 12.0, first) == {}


def test_what_the_log_tells_of_a_prompt_is_the_requests_progress() -> None:
    reading = Work("i", (Slot(0, True, 4096, 1, told=0.25),), asked_s=NOW_S)
    assert progress_of([running(3)], reading) == {3: EngineProgress(0.25, None)}
    answering = Work("i", (Slot(0, True, 4096, 1, decoded=5),), asked_s=NOW_S)
    assert progress_of([running(3)], answering) == {3: EngineProgress(1.0, 5)}
    assert progress_of([running(3), running(4)], answering) == {}


def test_each_engine_tells_of_its_own_requests_whoever_else_has_some() -> None:
    first = Work("i", (Slot(0, True, 4096, 1, told=0.25),), asked_s=NOW_S)
    second = Work("j", (Slot(0, True, 4096, 9, decoded=5),), asked_s=NOW_S)
    underway = [running(3), running(4, "j"), running(5, None, "held")]
    assert progress_of(underway, first) == {3: EngineProgress(0.25, None)}
    assert progress_of(underway, first, second) == {3: EngineProgress(0.25, None), 4: EngineProgress(1.0, 5)}
