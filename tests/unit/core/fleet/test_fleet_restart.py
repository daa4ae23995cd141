"""What a person asks for: a restart in its own seat, and a start that clients had asked for before."""

from __future__ import annotations

from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.fleet import step_fleet
from orchestrator.core.fleet.fleet_states import (
    Fleet,
    FleetEffect,
    FleetEvent,
    FocusRequested,
    LoadRequested,
    Looked,
    RestartRequested,
)
from orchestrator.core.fleet.lifecycle_states import CanaryPassed, Drained, Loaded, Prepared, Spawned
from orchestrator.core.fleet.resident_states import StartingNew, SwitchFinished, SwitchRequested, UpRequested
from tests.unit.core.fleet.lifecycle_machine import FIRST, POLICY, RECOVERY, A, B


def take(fleet: Fleet, *events: FleetEvent) -> tuple[Fleet, list[FleetEffect]]:
    asked: list[FleetEffect] = []
    for event in events:
        fleet, effects = step_fleet(fleet, event, 100.0, POLICY)
        asked += effects

    return fleet, asked


def becoming_ready(instance: str) -> tuple[FleetEvent, ...]:
    return Prepared(instance, FIRST, RECOVERY), Spawned(instance, 42), Loaded(instance), CanaryPassed(instance)


def two() -> Fleet:
    look = Looked(memory=MemoryLook())
    fleet, _ = take(Fleet(), UpRequested(A, "s"), *becoming_ready("s.1"), LoadRequested(B, "t"), look)
    return take(fleet, *becoming_ready("t.1"))[0]


def test_the_resident_beside_is_started_anew_in_its_seat_and_the_focus_serves_on() -> None:
    fleet, _ = take(two(), RestartRequested(SwitchRequested(B, "r", "replace", again=True)), Drained("t.1"))
    assert fleet.focus == "s"
    assert fleet.residents["s"] == two().residents["s"]
    assert fleet.residents["t"].switch is not None
    assert fleet.seat_of("b") == "t"
    assert not fleet.moves and not isinstance(fleet.switch, StartingNew)


def test_what_is_not_loaded_is_not_started() -> None:
    alone, _ = take(Fleet(), UpRequested(A, "s"), *becoming_ready("s.1"))
    after, [told] = take(alone, RestartRequested(SwitchRequested(B, "r", "replace", again=True)))
    assert after == alone
    assert isinstance(told, SwitchFinished)
    assert not told.ok and told.cause_text == "b is not loaded any more"


def test_a_start_that_clients_waited_for_stays_once_a_person_asks_for_it() -> None:
    alone, _ = take(Fleet(), UpRequested(A, "s"), *becoming_ready("s.1"))
    asked = take(alone, LoadRequested(B, "t", by_client=True))[0]
    left = take(asked, Looked())[0]
    assert left.residents["t"].asleep == B, "nobody waits any more"
    kept = take(asked, LoadRequested(B, "u"), Looked())[0]
    assert kept.residents["t"].asleep is None and kept.waiting["t.1"].why
    moved = take(asked, FocusRequested(SwitchRequested(B, "u", "replace")), Looked())[0]
    assert moved.residents["t"].asleep is None and not moved.waiting["t.1"].by_client
