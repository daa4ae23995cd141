"""Several models: which seat an event is for, who starts beside whom, who makes room, and who never does."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.demand import DemandPolicy
from orchestrator.core.fleet.fleet_states import ProfileRules, ResidencyRules
from orchestrator.core.fleet.lifecycle_states import Failed, Failure, Ready, Target
from tests.unit.core.fleet.fleet_simulation import SimulatedFleet

BROKEN = Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up")


def loaded(*profiles: str, capacity: int = 1000) -> SimulatedFleet:
    """A fleet in which these serve, the first in focus."""
    sim = SimulatedFleet(capacity=capacity)
    for profile in profiles:
        sim.load(profile)
        sim.become_ready(profile)

    return sim


def focus(sim: SimulatedFleet) -> str | None:
    state = sim.fleet.state
    return state.start_record.target.profile if isinstance(state, Ready) else None


def test_a_start_that_is_alone_is_let_in_at_once() -> None:
    sim = SimulatedFleet()
    sim.up("a")
    assert not sim.fleet.waiting
    assert [kind for kind, _ in sim.engines.work()] == ["prepare"]


def test_what_fits_is_started_beside_and_nobody_goes() -> None:
    sim = loaded("a", "b")
    assert sim.ready() == {"a", "b"}
    assert focus(sim) == "a"
    assert sim.loads == {"a": 1, "b": 1}


def test_a_start_beside_others_waits_until_the_memory_was_looked_at() -> None:
    sim = loaded("a")
    sim.load("b")
    assert [each.profile for each in sim.fleet.waiting.values()] == ["b"]
    sim.look()
    assert not sim.fleet.waiting


def test_a_client_has_what_it_names_loaded_beside_the_rest() -> None:
    sim = loaded("a")
    sim.ask("b")
    sim.settle(60.0)
    assert sim.ready() == {"a", "b"}
    assert focus(sim) == "a", "a client moves no focus"


def test_the_cheapest_that_makes_room_goes_and_its_memory_is_waited_for() -> None:
    sim = loaded("a", "b")
    sim.served.update({"a": 50, "b": 1})
    sim.now += 30.0
    sim.ask("c")
    sim.look()
    assert [each.kind for each in sim.told] == ["evicted"]
    assert sim.fleet.residents[sim.fleet.seat_of("b") or ""].asleep == Target("b", "upstream")
    assert "c needs 400 MiB on gpu0, 200 MiB are free" in sim.told[0].text
    sim.settle(60.0)
    assert sim.ready() == {"a", "c"}


def test_memory_that_lingers_is_waited_for_and_evicts_nobody_else() -> None:
    sim = loaded("a", "b")
    sim.load("c")
    sim.look()
    while sim.work_on():
        pass

    sim.lingering = 400
    sim.look()
    assert len(sim.told) == 1
    assert [each.why for each in sim.fleet.waiting.values()] == ["memory of what was ended is on its way back"]
    sim.now += 16.0
    sim.look()
    assert len(sim.told) == 2, "what has not come back belongs to somebody else"


def test_the_memory_of_a_small_model_is_waited_for_as_well_and_nobody_is_refused_meanwhile() -> None:
    sim = SimulatedFleet(capacity=36, needs={"a": 17, "b": 17, "c": 17})
    sim.rules(ResidencyRules(profiles={"a": ProfileRules(pinned=True)}))
    for profile in "ab":
        sim.load(profile)
        sim.become_ready(profile)

    sim.ask("c")
    sim.now += 30.0
    sim.look()
    assert [each.kind for each in sim.told] == ["evicted"]
    while sim.work_on():
        pass

    sim.lingering = 17
    sim.look()
    assert [each.why for each in sim.fleet.waiting.values()] == ["memory of what was ended is on its way back"]
    sim.lingering = 0
    sim.settle(60.0)
    assert sim.ready() == {"a", "c"}


def test_one_who_is_pinned_never_goes_and_the_refusal_has_the_figures() -> None:
    sim = loaded("a", "b")
    sim.pin("a")
    sim.pin("b")
    sim.now += 60.0
    sim.ask("c")
    sim.look()
    assert sim.ready() == {"a", "b"}
    assert "c needs 400 MiB on gpu0, 200 MiB are free, and a, b may not go (pinned)" in sim.refused["c"]
    assert not sim.fleet.waiting


def test_a_person_who_loads_what_cannot_be_beside_the_pinned_is_told_so() -> None:
    sim = loaded("a", "b")
    sim.pin("a")
    sim.pin("b")
    sim.load("c")
    sim.look()
    state = sim.fleet.residents[sim.fleet.seat_of("c") or ""].state
    assert isinstance(state, Failed)
    assert "may not go (pinned)" in state.failure.message
    assert state.failure.hint


def test_what_is_larger_than_the_machine_is_tried_alone() -> None:
    sim = loaded("a", "b")
    sim.needs["d"] = 5000
    sim.takes = {"d": 1000}
    sim.load("d")
    sim.become_ready("d")
    assert sim.ready() == {"d"}


def test_one_who_serves_without_a_pause_stays_until_somebody_has_waited_long_enough() -> None:
    sim = loaded("a", "b")
    sim.rules(ResidencyRules(stay=DemandPolicy(patience_s=30.0)))
    for profile in ("a", "b"):
        sim.ask(profile)

    sim.now += 10.0
    sim.ask("c")
    asked = sim.now
    while sim.now < asked + 29.0:
        sim.look()
        sim.now += 1.0

    assert sim.ready() == {"a", "b"}
    assert "what could go is used" in next(iter(sim.fleet.waiting.values())).why
    sim.now = asked + 30.5
    sim.look()
    assert len(sim.ready()) == 1
    assert sum(sim.in_flight.values()) == 2, "its requests end first"


def test_an_out_of_memory_start_beside_others_evicts_one_more_and_tries_the_same_rung() -> None:
    sim = loaded("a", "b")
    sim.takes = {"c": 700}
    sim.needs["c"] = 100
    sim.load("c")
    sim.become_ready("c")
    seat = sim.fleet.seat_of("c")
    state = sim.fleet.residents[seat or ""].state
    assert isinstance(state, Ready)
    attempts = state.start_record.attempts
    assert [each.outcome for each in attempts[:-1]] == ["device_oom"] * (len(attempts) - 1)
    assert len({each.rung for each in attempts}) == 1, "no margin has climbed"
    assert state.start_record.climbed == 0
    assert len(sim.ready()) == 1


def test_alone_an_out_of_memory_start_climbs_as_ever() -> None:
    sim = SimulatedFleet(takes={"a": 2000})
    sim.load("a")
    sim.work_on()
    for _ in range(6):
        sim.work_on()

    assert sim.fleet.state.start_record.climbed > 0  # type: ignore[union-attr]


def test_exclusive_groups_and_the_most_that_may_be_loaded_hold_whatever_is_free() -> None:
    sim = loaded("a", capacity=9000)
    sim.rules(ResidencyRules(exclusive=(frozenset({"a", "b"}),)))
    sim.load("b")
    sim.become_ready("b")
    assert sim.ready() == {"b"}
    assert "b and a are not loaded at the same time (residency)" in sim.told[-1].text
    sim.rules(ResidencyRules(max=2))
    for profile in ("c", "d"):
        sim.load(profile)
        sim.become_ready(profile)

    assert len(sim.ready()) == 2
    assert "d is one too many: 2 may be loaded at a time (residency.max)" in sim.told[-1].text


def test_with_one_at_a_time_a_load_takes_the_place_of_what_runs() -> None:
    sim = loaded("a", capacity=9000)
    sim.rules(ResidencyRules(policy="one"))
    sim.load("b")
    sim.become_ready("b")
    assert sim.ready() == {"b"}


def test_a_switch_replaces_the_focus_and_leaves_the_others_alone() -> None:
    sim = loaded("a", "b")
    others = dict(sim.fleet.residents)
    operation = sim.switch("a", "ik-fork")
    sim.become_ready("a")
    assert sim.finished[operation].ok
    assert sim.ready() == {"a", "b"}
    seat = sim.fleet.seat_of("b") or ""
    assert sim.fleet.residents[seat] == others[seat]


def test_what_still_ends_its_streams_is_not_loaded_a_second_time_beside_itself() -> None:
    sim = loaded("a", capacity=9000)
    sim.ask("a")
    sim.switch("b", strategy="beside")
    sim.become_ready("b")
    assert sim.in_flight, "a stream goes on"
    sim.ask("a")
    sim.look()
    assert sim.loads["a"] == 1
    sim.settle(60.0)
    assert sim.loads["a"] == 2
    assert sim.ready() == {"a", "b"}


def test_a_switch_to_what_is_loaded_moves_the_focus_and_ends_the_one_before() -> None:
    sim = loaded("a", "b")
    assert sim.finished[sim.switch("b")].ok
    assert focus(sim) == "b"
    sim.settle(60.0)
    assert sim.ready() == {"b"}


def test_a_switch_that_keeps_leaves_the_one_before_loaded() -> None:
    sim = loaded("a", capacity=9000)
    operation = sim.switch("b", keep=True)
    assert focus(sim) == "a", "it serves until the other does"
    sim.become_ready("b")
    assert sim.finished[operation].ok
    assert focus(sim) == "b"
    assert sim.ready() == {"a", "b"}


def test_a_switch_whose_target_fails_beside_the_focus_leaves_everything_as_it_was() -> None:
    sim = loaded("a", capacity=9000)
    operation = sim.switch("b", keep=True)
    sim.look()
    sim.work_on(BROKEN)
    assert not sim.finished[operation].ok
    assert focus(sim) == "a"
    assert sim.fleet.seat_of("b") is None


def test_a_pinned_focus_stays_loaded_beside_what_is_switched_to() -> None:
    sim = loaded("a", capacity=9000)
    sim.pin("a")
    sim.switch("b")
    sim.become_ready("b")
    assert sim.ready() == {"a", "b"}
    assert focus(sim) == "b"


def test_what_is_unloaded_comes_back_for_the_next_request_on_the_engine_it_had() -> None:
    sim = SimulatedFleet()
    sim.up("a", "ik-fork")
    sim.become_ready("a")
    sim.unload("a")
    sim.settle(60.0)
    assert sim.ready() == set()
    sim.ask("a")
    sim.settle(60.0)
    state = sim.fleet.state
    assert isinstance(state, Ready)
    assert state.start_record.target == Target("a", "ik-fork")


def test_down_by_name_forgets_it_and_the_focus_goes_to_one_that_is_left() -> None:
    sim = loaded("a", "b")
    sim.down("a")
    sim.settle(60.0)
    assert sim.fleet.seat_of("a") is None
    assert focus(sim) == "b"
    sim.down()
    sim.settle(60.0)
    assert sim.ready() == set()
    assert sim.fleet.seat_of("b") is None


def test_what_is_idle_for_long_is_unloaded_by_its_own_limit_and_never_what_is_pinned_or_used() -> None:
    sim = loaded("a", "b", "c", capacity=9000)
    own = {"b": ProfileRules(idle_unload_s=0.0), "c": ProfileRules(pinned=True)}
    sim.rules(ResidencyRules(idle_unload_s=60.0, profiles=own))
    sim.now += 59.0
    sim.look()
    assert sim.ready() == {"a", "b", "c"}
    sim.ask("a")
    sim.now += 100.0
    sim.look()
    assert sim.ready() == {"a", "b", "c"}, "a request in flight is use"
    sim.end("a")
    sim.now += 60.0
    sim.look()
    assert sim.ready() == {"b", "c"}
    assert sim.told[-1].text == "a@upstream had no request for 60 s; the next one loads it again"


def test_a_load_that_nobody_waits_for_any_more_is_not_started() -> None:
    sim = loaded("a", "b")
    for profile in ("a", "b"):
        sim.ask(profile)

    sim.ask("c")
    sim.look()
    assert sim.fleet.waiting
    sim.waiting.clear()
    sim.look()
    assert not sim.fleet.waiting
    assert sim.loads["c"] == 0


def test_what_was_loaded_for_a_client_and_fails_is_refused_and_leaves_no_trace() -> None:
    sim = loaded("a")
    sim.ask("b")
    sim.look()
    sim.work_on(BROKEN)
    assert "`b` did not start: the file is no GGUF" in sim.refused["b"]
    assert sim.fleet.seat_of("b") is None
    assert sim.ready() == {"a"}


def test_two_clients_that_alternate_between_what_does_not_fit_together_share_by_batches() -> None:
    sim = loaded("a", capacity=500)
    for number in range(200):  # each asks again as soon as it was answered
        sim.ask("ab"[number % 2])
        sim.look()
        if not sim.work_on():
            sim.now += 0.25
            for profile in "ab":
                sim.end(profile)

    minutes = (sim.now - 100.0) / 60
    assert sim.loads["a"] + sim.loads["b"] <= 2 + minutes * 60 / 5.0 * 2


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_who_came_first_does_not_hold_up_who_fits(order: str) -> None:
    sim = loaded("c", capacity=1000)
    sim.needs = {"a": 900, "b": 300, "c": 400}
    sim.ask("c")  # in use: `a` has to wait for it
    for profile in order:
        sim.load(profile) if profile == "b" else sim.ask(profile)

    sim.become_ready("b")
    assert sim.ready() >= {"b", "c"}


def test_what_was_to_make_room_and_is_started_anew_holds_nobody_up_for_ever() -> None:
    sim = loaded("a", "b")
    sim.ask("c")
    sim.now += 10.0
    sim.look()
    assert [each.kind for each in sim.told] == ["evicted"]
    [gone] = {"a", "b"} - sim.ready()
    sim.up(gone)
    sim.settle(60.0)
    assert sim.served["c"] == 1
