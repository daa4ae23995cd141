"""What served before others were tried serves again, wherever the trial was broken off, and nothing else is touched."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.fleet_states import DownRequested
from orchestrator.core.fleet.lifecycle_states import Failed, Failure, Ready, Target
from orchestrator.core.fleet.resident_states import Strategy
from orchestrator.core.residency.lease import (
    RestoreResult,
    ServedTargets,
    left_over,
    next_restore,
    restore_result,
    served_by,
    with_loaded,
    without_profiles,
)
from tests.unit.core.fleet.fleet_simulation import SimulatedFleet

A, B, C = (Target(name, "upstream") for name in "abc")
BROKEN = Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up")


def loaded(*profiles: str, capacity: int = 1000) -> SimulatedFleet:
    """A fleet in which these serve, the first in focus."""
    sim = SimulatedFleet(capacity=capacity)
    for profile in profiles:
        sim.load(profile)
        sim.become_ready(profile)

    return sim


def focus(sim: SimulatedFleet) -> Target | None:
    state = sim.fleet.state
    return state.start_record.target if isinstance(state, Ready) else None


def restore(sim: SimulatedFleet, served: ServedTargets, *started: str) -> dict[Target, RestoreResult]:
    """Do what the daemon does, one after the other, each until it is decided."""
    tried: dict[Target, RestoreResult] = {}
    while True:
        event = next_restore(served, tried, sim.fleet, f"restore{len(tried)}")
        if event is not None:
            sim.take(event)

        if left := left_over(served, started, sim.fleet):
            sim.take(DownRequested(left))

        if event is None:
            sim.settle(400.0)
            return tried

        while (result := restore_result(event.target, sim.fleet)) is None:
            sim.look()
            if not sim.work_on():
                sim.now += 0.25
                assert sim.now < 1000.0, sim.fleet

        tried[event.target] = result


@pytest.mark.parametrize("pieces", range(9))
@pytest.mark.parametrize("strategy", ["replace", "beside"])
def test_a_switch_that_is_broken_off_anywhere_returns_to_what_served(pieces: int, strategy: Strategy) -> None:
    sim = loaded("a")
    served = served_by(sim.fleet)
    assert served == ServedTargets(A)
    sim.switch("b", strategy=strategy)
    for _ in range(pieces):
        sim.work_on()

    results = restore(sim, served, "b")
    assert (focus(sim), sim.ready()) == (A, {"a"})
    assert not [each for each in results.values() if each.problem]
    assert not sim.fleet.moves


@pytest.mark.parametrize("pieces", range(9))
def test_the_same_profile_on_another_engine_goes_back_to_its_own(pieces: int) -> None:
    sim = loaded("a")
    served = served_by(sim.fleet)
    sim.switch("a", "ik-fork")
    for _ in range(pieces):
        sim.work_on()

    restore(sim, served, "a")
    assert focus(sim) == A


def test_what_has_not_ended_yet_serves_on_without_a_new_start() -> None:
    sim = loaded("a")
    sim.in_flight[sim.fleet.state.instance] += 1  # type: ignore[union-attr]
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.work_on()
    restore(sim, served, "b")
    assert focus(sim) == A
    assert sim.loads == {"a": 1}


def test_nothing_happens_where_it_serves_already() -> None:
    sim = loaded("a", "b")
    assert next_restore(served_by(sim.fleet), (), sim.fleet, "s") is None
    assert left_over(served_by(sim.fleet), "ab", sim.fleet) == ()


def test_what_was_pinned_stayed_and_is_the_focus_again_and_the_other_one_goes() -> None:
    sim = loaded("a")
    sim.pin("a")
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.become_ready("b")
    assert (focus(sim), sim.ready()) == (B, {"a", "b"})
    restore(sim, served, "b")
    assert (focus(sim), sim.ready()) == (A, {"a"})
    assert sim.loads["a"] == 1


def test_one_of_several_that_was_tried_stays_beside_what_is_in_focus_again() -> None:
    sim = loaded("a", "b")
    served = served_by(sim.fleet)
    sim.switch("b", "ik-fork")
    sim.become_ready("b")
    assert sim.ready() == {"b"}
    restore(sim, served, "b")
    assert (focus(sim), sim.ready()) == (A, {"a", "b"})
    assert served_by(sim.fleet) == served


def test_what_was_unloaded_to_make_room_is_loaded_again() -> None:
    sim = loaded("a", "b")
    served = served_by(sim.fleet)
    sim.now += 60.0
    sim.switch("d")
    sim.become_ready("d")
    assert sim.ready() == {"d"}
    restore(sim, served, "d")
    assert (focus(sim), sim.ready()) == (A, {"a", "b"})


def test_what_a_client_had_loaded_meanwhile_is_left_alone() -> None:
    sim = loaded("a")
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.become_ready("b")
    sim.ask("c")
    sim.settle(60.0)
    restore(sim, served, "b")
    assert (focus(sim), sim.ready()) == (A, {"a", "c"})


def test_where_nothing_ran_nothing_runs_after_it() -> None:
    sim = SimulatedFleet()
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.become_ready("b")
    restore(sim, served, "b")
    assert served == ServedTargets()
    assert sim.ready() == set()


def test_what_does_not_start_again_is_said_and_what_was_tried_does_not_come_back() -> None:
    sim = loaded("a")
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.become_ready("b")
    event = next_restore(served, (), sim.fleet, "restore")
    assert event is not None
    sim.take(event)
    while restore_result(A, sim.fleet) is None:
        kinds = [kind for kind, _ in sim.work()]
        sim.work_on(BROKEN if kinds == ["load"] else None)

    result = restore_result(A, sim.fleet)
    assert result is not None and "no GGUF" in (result.problem or "")
    assert isinstance(sim.fleet.state, Failed)
    assert sim.ready() == set()


def test_what_somebody_stops_on_its_way_back_is_not_waited_for() -> None:
    sim = loaded("a")
    served = served_by(sim.fleet)
    sim.switch("b")
    sim.become_ready("b")
    event = next_restore(served, (), sim.fleet, "restore")
    assert event is not None
    sim.take(event)
    assert restore_result(A, sim.fleet) is None
    sim.down()
    assert restore_result(A, sim.fleet) == RestoreResult("it was stopped")


def test_what_a_person_loads_and_ends_meanwhile_counts() -> None:
    served = ServedTargets(A, (B,))
    assert with_loaded(served, C) == ServedTargets(A, (B, C))
    assert with_loaded(served, Target("b", "ik-fork")) == ServedTargets(A, (Target("b", "ik-fork"),))
    assert with_loaded(served, A) == served
    assert without_profiles(served, {"b"}) == ServedTargets(A)
    assert without_profiles(served, {"a"}) == ServedTargets(None, (B,))
