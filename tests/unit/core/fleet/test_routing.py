from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    CheckFailed,
    Exited,
    Ready,
    StartRequested,
    State,
    Stopped,
    Stopping,
    StopRequested,
    Target,
    Woke,
)
from orchestrator.core.fleet.model_figures import Model
from orchestrator.core.fleet.resident_states import Resident
from orchestrator.core.fleet.routing import (
    KEPT_FALLEN,
    MAX_RETRY_AFTER_S,
    InstanceFacts,
    RoutingFacts,
    facts_after,
    instance_in_progress,
    instances_told,
    refusal_of,
    routing_view,
)
from orchestrator.core.fleet.routing_states import Endpoint, Refusal, RoutingView
from tests.unit.core.fleet import switch_phases as phases
from tests.unit.core.fleet.lifecycle_machine import (
    BAD_MODEL,
    CRASH,
    HUNG,
    POLICY,
    TERMINATED,
    A,
    B,
    Machine,
    in_state,
    start,
)

NOW = 100.0


def resting() -> State:
    """Failed because the restart budget is spent; one more try is due after the cooldown."""
    machine = Machine()
    machine.take(StartRequested(A, "s.1"))
    for number in range(1, POLICY.intensity + 1):
        machine.take(*start(f"s.{number}"), Exited(f"s.{number}", CRASH))
        if number < POLICY.intensity:
            machine.now += POLICY.max_delay_s
            machine.take(Woke())

    return machine.state


@pytest.mark.parametrize("name", ["preparing", "spawning", "starting", "loaded", "ready", "backoff"])
def test_while_something_is_on_its_way_nobody_is_refused(name: str) -> None:
    assert refusal_of(in_state(name), NOW) is None


def test_an_instance_that_is_ended_because_of_a_failure_comes_back_so_clients_wait() -> None:
    assert refusal_of(in_state("ready", CheckFailed("s.1", HUNG)), NOW) is None


@pytest.mark.parametrize("name", ["draining", "stopping"])
def test_while_it_is_being_stopped_clients_are_told_so(name: str) -> None:
    refusal = refusal_of(in_state(name), NOW)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("stopping", None)


@pytest.mark.parametrize("state", [Stopped(), in_state("ready", StopRequested(force=True), Exited("s.1", TERMINATED))])
def test_with_nothing_running_clients_are_told_how_to_start_something(state: State) -> None:
    refusal = refusal_of(state, NOW)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("not_running", None)
    assert "orch up" in refusal.message


def test_after_a_failure_for_good_clients_are_told_the_cause_and_not_to_retry() -> None:
    refusal = refusal_of(in_state("ready", Exited("s.1", BAD_MODEL)), NOW)
    assert refusal is not None
    assert refusal.message == f"{A} failed: {BAD_MODEL.message}"
    assert (refusal.code, refusal.retry_after_s) == ("bad_model", None)


@pytest.mark.parametrize(
    ("left_s", "told_s"), [(60.0, 60), (0.2, 1), (-5.0, 1), (12.3, 13), (10_000.0, MAX_RETRY_AFTER_S)]
)
def test_while_a_failed_one_rests_clients_are_told_when_to_try_again(left_s: float, told_s: int) -> None:
    state = resting()
    until = getattr(state, "until", None)
    assert isinstance(until, float)
    refusal = refusal_of(state, until - left_s)
    assert refusal is not None
    assert refusal.retry_after_s == told_s
    assert CRASH.evidence is not None
    assert CRASH.evidence in refusal.message


# The view of the whole fleet.

ENDPOINT = Endpoint("s1.1", "a", "upstream", "127.0.0.1", 1, None)
SHOWN = Model(A.profile, (), "", "unloaded", 0)
OTHER = Model("other", (), "", "unloaded", 0)
FACTS = RoutingFacts(models=(SHOWN, OTHER))


def view_of(resident: Resident, facts: RoutingFacts = FACTS, loading: str = "") -> RoutingView:
    fleet = Fleet({"seat": resident}, "seat")
    told = {instance: InstanceFacts(ENDPOINT, loading) for instance in instances_told(fleet)}
    return routing_view(fleet, facts, told, NOW, 7)


def kind_of(view: RoutingView) -> str:
    """Which of the three holds; more than one never does."""
    assert view.serving is None or view.refusal is None
    return "send" if view.serving else "refuse" if view.refusal else "wait"


def test_with_nothing_running_requests_are_refused_and_nothing_is_listed_as_loaded() -> None:
    view = view_of(Resident())
    assert view.refusal is not None
    assert (view.refusal.code, view.progress, view.generation) == ("not_running", "stopped", 7)
    assert {model.status for model in view.models} == {"unloaded"}


def test_requests_are_sent_to_what_is_ready() -> None:
    view = view_of(phases.serving().fleet)
    assert view.serving == ENDPOINT
    assert view.progress == f"ready {A}"
    assert [model.status for model in view.models] == ["loaded", "unloaded"]


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (phases.beside, "send"),
        (phases.draining, "wait"),
        (phases.stopping, "wait"),
        (phases.taking, "wait"),
        (phases.taking_with_a_process, "wait"),
    ],
)
def test_in_each_phase_of_a_switch_requests_are_sent_or_wait_and_are_never_refused(
    phase: phases.Way, kind: str
) -> None:
    view = view_of(phase().fleet)
    assert kind_of(view) == kind
    assert view.progress.startswith(f"switching to {B}: ")


def test_side_by_side_the_progress_is_that_of_the_new_instance() -> None:
    fleet = phases.beside().fleet
    assert instance_in_progress(fleet) == "s2.1"
    assert view_of(fleet, loading="3 % read").progress == f"switching to {B}: preparing {B}"


def test_what_a_switch_reads_ahead_is_shown_as_loading_and_what_serves_still_serves() -> None:
    view = view_of(phases.serving().fleet, replace(FACTS, reading=Target("other", "upstream")))
    assert view.serving == ENDPOINT
    assert view.progress == "switching to other@upstream: reading the model ahead"
    assert {model.name: model.status for model in view.models} == {SHOWN.name: "loaded", "other": "loading"}


def test_how_much_has_been_read_ahead_is_shown() -> None:
    facts = replace(FACTS, reading=Target("other", "upstream"), read_percent=42)
    view = view_of(phases.serving().fleet, facts)
    assert view.progress == "switching to other@upstream: reading the model ahead, 42 %"


def test_what_is_read_ahead_while_nothing_runs_is_shown_as_loading() -> None:
    view = view_of(Resident(), replace(FACTS, reading=Target("other", "upstream")))
    assert {model.name: model.status for model in view.models} == {SHOWN.name: "unloaded", "other": "loading"}


def test_what_serves_is_not_shown_as_loading_while_it_is_started_anew() -> None:
    view = view_of(phases.serving().fleet, replace(FACTS, reading=A))
    assert {model.name: model.status for model in view.models} == {SHOWN.name: "loaded", "other": "unloaded"}


def test_a_daemon_that_closes_refuses_even_what_could_be_sent() -> None:
    view = view_of(phases.serving().fleet, replace(FACTS, closing=True))
    assert view.refusal == Refusal("orch is stopping", "stopping", 5)
    assert view.serving is None


def test_requests_wait_for_an_instance_that_does_not_answer() -> None:
    fleet = phases.serving().fleet
    view = view_of(fleet, replace(FACTS, unrouted=frozenset({"s1.1"})))
    assert kind_of(view) == "wait"
    assert view.progress == f"{A} does not answer at the moment"
    assert kind_of(view_of(fleet, replace(FACTS, unrouted=frozenset({"s9.1"})))) == "send"


def test_what_is_known_of_profiles_reaches_the_view() -> None:
    refusal = Refusal("it did not start", "load_failed", 30, "other")
    view = view_of(phases.serving().fleet, replace(FACTS, on_request=True, unavailable={"other": refusal}))
    assert view.refuses("other") == refusal
    assert view.refuses("third") is None


def test_an_instance_that_fell_is_remembered_and_one_that_was_stopped_is_not() -> None:
    ready = phases.serving().fleet
    state = ready.state
    assert isinstance(state, Ready)
    crashed = replace(ready, slots={"s1": Backoff(state.start_record, "s1.1", CRASH, 0.0)})
    stopped = replace(ready, slots={"s1": Stopping(state.start_record, "s1.1", None)})
    assert facts_after(FACTS, ready.slots, crashed.slots).fallen == ("s1.1",)
    assert facts_after(FACTS, ready.slots, stopped.slots).fallen == ()
    assert facts_after(FACTS, ready.slots, {}).fallen == ()


def test_only_the_newest_of_the_fallen_are_remembered() -> None:
    ready = phases.serving().fleet
    state = ready.state
    assert isinstance(state, Ready)
    crashed = replace(ready, slots={"s1": Backoff(state.start_record, "s1.1", CRASH, 0.0)})
    full = replace(FACTS, fallen=tuple(f"old.{number}" for number in range(KEPT_FALLEN)))
    after = facts_after(full, ready.slots, crashed.slots).fallen
    assert len(after) == KEPT_FALLEN
    assert (after[0], after[-1]) == ("old.1", "s1.1")


def test_an_instance_that_is_gone_is_not_unrouted_any_more() -> None:
    ready = phases.serving().fleet
    facts = replace(FACTS, unrouted=frozenset({"s1.1", "gone.1"}))
    assert facts_after(facts, ready.slots, ready.slots).unrouted == {"s1.1"}


def asleep(**facts: object) -> RoutingView:
    """A was unloaded because nobody used it."""
    models = (Model("a", (), "", "unloaded", 0), Model("b", (), "", "unloaded", 0))
    resident = replace(Resident({"s1": Stopped()}, "s1", A), asleep=A)
    return view_of(resident, RoutingFacts(models=models, **facts))  # type: ignore[arg-type]


def test_who_asks_for_what_is_unloaded_or_names_nothing_waits_for_it() -> None:
    for on_request in (True, False):
        view = asleep(on_request=on_request)
        for profile in (None, A.profile):
            assert view.refuses(profile) is None
            assert not view.decided(profile)

        assert view.asleep == A.profile
        assert "the next request loads it" in view.progress


def test_another_profile_is_loaded_in_its_place_only_where_clients_may_have_that() -> None:
    assert not asleep(on_request=True).decided("other")
    refusal = asleep(on_request=False).refuses("other")
    assert refusal is not None
    assert "orch switch" in refusal.message
