"""Where requests go while several profiles are loaded: each resident by itself, the focus for who names none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fleet.admission import WaitingStart
from orchestrator.core.fleet.fleet_states import Fleet, ProfileRules, ResidencyRules
from orchestrator.core.fleet.lifecycle_states import (
    Event,
    Exited,
    Prepare,
    Prepared,
    StartRequested,
    Stopped,
    StopRequested,
    Target,
)
from orchestrator.core.fleet.model_figures import Model, ModelFigures
from orchestrator.core.fleet.resident_states import Resident, SideBySide, SwitchOperation
from orchestrator.core.fleet.routing import (
    InstanceFacts,
    RoutingFacts,
    facts_after,
    instances_told,
    routing_view,
    unloaded_since,
)
from orchestrator.core.fleet.routing_states import Endpoint, Refusal, RoutingView
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, FIRST, RECOVERY, Machine, start

NOW = 100.0
NAMES = ("chat", "embed", "rank", "draw")
MODELS = tuple(Model(name, (), "", "unloaded", 0) for name in NAMES)
FACTS = RoutingFacts(models=MODELS, on_request=True)


def target(name: str) -> Target:
    return Target(name, "upstream")


def resident(name: str, *events: Event) -> Resident:
    machine = Machine()
    machine.take(StartRequested(target(name), f"{name}.1"), *events)
    return Resident({name: machine.state}, name, target(name))


def ready(name: str) -> Resident:
    return resident(name, *start(f"{name}.1"))


def loading(name: str) -> Resident:
    return resident(name, Prepared(f"{name}.1", FIRST, RECOVERY))


def failed(name: str) -> Resident:
    return resident(name, *start(f"{name}.1"), Exited(f"{name}.1", BAD_MODEL))


def ending(name: str) -> Resident:
    return resident(name, *start(f"{name}.1"), StopRequested())


def asleep(name: str) -> Resident:
    return Resident({name: Stopped()}, name, target(name), asleep=target(name))


def fleet_of(*residents: Resident) -> Fleet:
    """The first is the focus; each is in the seat of its slot's name."""
    return Fleet({each.current or "": each for each in residents}, residents[0].current)


def view_of(fleet: Fleet, facts: RoutingFacts = FACTS, figures: ModelFigures | None = None) -> RoutingView:
    told = {
        instance: InstanceFacts(
            Endpoint(instance, instance.partition(".")[0], "upstream", "127.0.0.1", 1, None), "40 % read", figures
        )
        for instance in instances_told(fleet)
    }
    return routing_view(fleet, facts, told, NOW, 7)


def kind_of(view: RoutingView, profile: str | None) -> str:
    """Which of the three holds for a profile; more than one never does."""
    endpoint, refusal = view.endpoint_for(profile), view.refuses(profile)
    assert endpoint is None or refusal is None
    assert view.serves(profile) is (endpoint is not None)
    assert view.decided(profile) or (endpoint is None and refusal is None)
    return "send" if endpoint else "refuse" if refusal else "refuse" if view.decided(profile) else "wait"


def test_each_resident_has_its_own_answer_and_who_names_none_goes_to_the_focus() -> None:
    view = view_of(fleet_of(ready("chat"), loading("embed"), failed("rank"), asleep("draw")))
    kinds = {name: kind_of(view, name) for name in (None, *NAMES)}
    assert kinds == {None: "send", "chat": "send", "embed": "wait", "rank": "refuse", "draw": "wait"}
    refusal = view.refuses("rank")
    assert refusal is not None and refusal.profile == "rank" and BAD_MODEL.message in refusal.message
    assert view.instances == {"chat.1"}
    assert view.progress_for(None) == view.progress_for("chat") == "ready chat@upstream"
    assert view.progress_for("embed") == "loading embed@upstream (40 % read)"
    assert "the next request loads it" in view.progress_for("draw")


def test_a_request_is_sent_to_the_instance_of_the_profile_that_it_names() -> None:
    view = view_of(fleet_of(ready("chat"), ready("embed"), loading("rank")))
    found = {name: view.endpoint_for(name) for name in (None, "chat", "embed", "rank", "draw")}
    assert {name: each.instance if each else None for name, each in found.items()} == {
        None: "chat.1", "chat": "chat.1", "embed": "embed.1", "rank": None, "draw": None,
    }  # fmt: skip
    assert view.instances == {"chat.1", "embed.1"}
    assert view.loaded == ("chat", "embed")


def test_what_fails_or_loads_in_focus_stands_in_nobodys_way_but_its_own() -> None:
    for focus, own in ((failed("chat"), "refuse"), (loading("chat"), "wait")):
        view = view_of(fleet_of(focus, ready("embed")))
        assert (kind_of(view, None), kind_of(view, "chat")) == (own, own)
        assert (kind_of(view, "embed"), kind_of(view, "draw")) == ("send", "wait")


def test_who_asks_for_what_is_not_loaded_is_not_told_why_something_else_failed() -> None:
    view = view_of(fleet_of(failed("chat"), ready("embed")), replace(FACTS, on_request=False))
    own, other = view.refuses("chat"), view.refuses("draw")
    assert own is not None and BAD_MODEL.message in own.message
    assert other is not None and "orch load" in other.message and BAD_MODEL.message not in other.message


def test_what_is_not_resident_goes_as_while_one_model_runs() -> None:
    fleet = fleet_of(ready("chat"), ready("embed"))
    assert kind_of(view_of(fleet), "draw") == "wait"
    fixed = view_of(fleet, replace(FACTS, on_request=False))
    assert kind_of(fixed, "draw") == "refuse"
    assert (kind_of(fixed, "embed"), kind_of(fixed, "chat")) == ("send", "send")


def test_what_is_resident_is_waited_for_also_where_requests_load_nothing_else() -> None:
    fixed = replace(FACTS, on_request=False)
    for focus in (ready("chat"), asleep("chat")):
        view = view_of(fleet_of(focus, loading("embed"), asleep("rank")), fixed)
        assert [kind_of(view, name) for name in ("embed", "rank", "draw")] == ["wait", "wait", "refuse"]


def test_what_ends_beside_the_focus_is_waited_for_where_requests_may_load_it_again() -> None:
    fleet = fleet_of(ready("chat"), ending("embed"))
    assert kind_of(view_of(fleet), "embed") == "wait"
    assert kind_of(view_of(fleet, replace(FACTS, on_request=False)), "embed") == "refuse"


def test_a_failure_that_was_mended_is_waited_for_and_one_that_could_not_be_loaded_is_refused_for_a_while() -> None:
    fleet = fleet_of(ready("chat"), failed("rank"), asleep("draw"), ready("embed"))
    assert kind_of(view_of(fleet, replace(FACTS, repaired=frozenset({"rank"}))), "rank") == "wait"
    assert kind_of(view_of(fleet, replace(FACTS, repaired=frozenset({"rank"}), on_request=False)), "rank") == "refuse"
    why = Refusal("draw needs 4000 MiB", "load_failed", 30, "draw")
    view = view_of(fleet, replace(FACTS, unavailable={"draw": why, "embed": replace(why, profile="embed")}))
    assert view.refuses("draw") == why
    assert kind_of(view, "embed") == "send"  # it serves by now, whatever was said of it


def test_of_a_switch_in_another_seat_the_old_profile_serves_on_and_the_new_one_is_waited_for() -> None:
    operation = SwitchOperation("rank", target("embed"), target("rank"), "beside", 0.0)
    both = ready("embed")
    both = replace(
        both,
        slots={**both.slots, "rank": loading("rank").slots["rank"]},
        switch=SideBySide(operation, "embed", "rank"),
    )
    view = view_of(fleet_of(ready("chat"), both))
    assert [kind_of(view, name) for name in ("chat", "embed", "rank")] == ["send", "send", "wait"]
    assert view.progress_for("rank") == "switching to rank@upstream: loading rank@upstream (40 % read)"


def test_an_instance_that_does_not_answer_is_held_back_alone() -> None:
    fleet = fleet_of(ready("chat"), ready("embed"))
    view = view_of(fleet, replace(FACTS, unrouted=frozenset({"embed.1"})))
    assert (kind_of(view, "embed"), kind_of(view, "chat")) == ("wait", "send")
    assert view.instances == {"chat.1"}
    assert view.progress_for("embed") == "embed@upstream does not answer at the moment"


def test_a_daemon_that_closes_refuses_them_all() -> None:
    view = view_of(fleet_of(ready("chat"), ready("embed"), asleep("draw")), replace(FACTS, closing=True))
    assert [kind_of(view, name) for name in (None, *NAMES)] == ["refuse"] * 5
    assert not view.instances


def test_a_start_that_waits_for_memory_says_what_it_waits_for() -> None:
    fleet = fleet_of(ready("chat"), resident("embed"))
    start = WaitingStart("embed", Prepare("embed.1", target("embed"), None), NOW, why="chat is used")
    assert view_of(fleet).progress_for("embed") == "preparing embed@upstream"
    view = view_of(replace(fleet, waiting={"embed.1": start}))
    assert view.progress_for("embed") == "embed@upstream waits to be loaded: chat is used"


def test_the_list_has_the_status_figures_and_limits_of_each() -> None:
    rules = ResidencyRules(
        idle_unload_s=60.0,
        profiles={"embed": ProfileRules(idle_unload_s=5.0, max_in_flight=2), "chat": ProfileRules(pinned=True)},
    )
    fleet = fleet_of(ready("chat"), ready("embed"), loading("rank"), asleep("draw"))
    facts = replace(FACTS, unloaded={"draw": 40.0})
    view = view_of(replace(fleet, rules=rules), facts, ModelFigures(context_tokens=4096))
    assert {model.name: model.status for model in view.models} == {
        "chat": "loaded", "embed": "loaded", "rank": "loading", "draw": "unloaded",
    }  # fmt: skip
    assert [model.figures.context_tokens for model in view.models] == [4096, 4096, None, None]
    assert [model.idle_limit_s for model in view.models] == [0.0, 5.0, 60.0, 60.0]
    assert [model.unloaded_since for model in view.models] == [None, None, None, 40.0]
    endpoints = [view.endpoint_for(name) for name in ("chat", "embed")]
    assert [each.max_in_flight for each in endpoints if each] == [0, 2]


@pytest.mark.parametrize("make", [ending, failed])
def test_what_ends_or_failed_is_listed_as_unloaded(make: Callable[[str], Resident]) -> None:
    view = view_of(fleet_of(ready("chat"), make("embed")))
    assert {model.name: model.status for model in view.models}["embed"] == "unloaded"


def test_an_instance_that_fell_beside_the_focus_is_remembered() -> None:
    before = fleet_of(ready("chat"), ready("embed"))
    after = fleet_of(ready("chat"), resident("embed", *start("embed.1"), Exited("embed.1", CRASH)))
    facts = facts_after(replace(FACTS, unrouted=frozenset({"embed.1", "chat.1"})), before.slots, after.slots)
    assert facts.fallen == ("embed.1",)
    assert facts.unrouted == {"chat.1"}


def test_since_when_one_is_unloaded_is_kept_until_it_is_loaded_again() -> None:
    first = unloaded_since(fleet_of(ready("chat"), asleep("draw")), {}, 5.0)
    assert first == {"draw": 5.0}
    assert unloaded_since(fleet_of(asleep("chat"), asleep("draw")), first, 9.0) == {"draw": 5.0, "chat": 9.0}
    assert unloaded_since(fleet_of(ready("chat"), loading("draw")), first, 9.0) == {}


MAKERS = (ready, loading, failed, ending, asleep)


@given(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=4), st.booleans(), st.data())
def test_exactly_one_answer_holds_for_each_and_an_endpoint_is_always_of_the_profile_that_was_asked_for(
    makers: list[Callable[[str], Resident]], on_request: bool, data: st.DataObject
) -> None:
    residents = [make(name) for make, name in zip(makers, NAMES, strict=False)]
    unrouted = data.draw(st.sets(st.sampled_from([f"{name}.1" for name in NAMES])))
    facts = replace(FACTS, on_request=on_request, unrouted=frozenset(unrouted))
    view = view_of(fleet_of(*residents), facts)
    for name in NAMES:
        kind = kind_of(view, name)
        endpoint = view.endpoint_for(name)
        assert endpoint is None or endpoint.profile == name
        assert (endpoint is not None) == any(
            each.current == name and make is ready and f"{name}.1" not in unrouted
            for each, make in zip(residents, makers, strict=True)
        )
        assert kind != "send" or endpoint is not None and endpoint.instance in view.instances
