"""Where requests go: the routing view, derived from the fleet's state and from what else is known at that moment.

`routing_states.py` has the view itself, by which the gateway goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import (
    Draining,
    Failed,
    Ready,
    StartRecord,
    State,
    Stopped,
    Stopping,
    Target,
    describe,
    instance_of,
)
from orchestrator.core.fleet.model_figures import Model, ModelFigures, listed_model
from orchestrator.core.fleet.resident_states import Resident, SideBySide, StartingNew
from orchestrator.core.fleet.routing_states import Endpoint, Refusal, ResidentRoute, RoutingView
from orchestrator.core.fleet.state_summary import failure_of, progress_of, start_record_of

MAX_RETRY_AFTER_S = 120
"""Clients such as the OpenAI SDK do not retry at all when told to wait longer."""

CLOSING_RETRY_S = 5
KEPT_FALLEN = 16
READING_AHEAD = "reading the model ahead"


@dataclass(frozen=True, slots=True)
class RoutingFacts:
    """What decides about routes beside the fleet's state.

    :param models: the profiles that could be started
    :param on_request: whether clients may have another profile started by naming it
    :param unavailable: profiles that did not start a moment ago, and why
    :param unrouted: instances that do not answer at the moment: new requests wait
    :param fallen: the newest instances that ended by a failure of their own, newest last
    :param closing: whether the daemon stops
    :param repaired: profiles that failed and have changed since
    :param reading: what a switch is about to start: its model is read ahead while the old instance serves on
    :param read_percent: of what is read ahead, how much has been read
    :param unloaded: profiles that the next request loads again, with the time since when that is so (monotonic)
    """

    models: tuple[Model, ...] = ()
    on_request: bool = False
    unavailable: Mapping[str, Refusal] = field(default_factory=dict)
    unrouted: frozenset[str] = frozenset()
    fallen: tuple[str, ...] = ()
    closing: bool = False
    repaired: frozenset[str] = frozenset()
    reading: Target | None = None
    read_percent: int = 0
    unloaded: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What the process of an instance tells.

    :param endpoint: None until it is ready
    :param loading: how far it has loaded; empty when unknown
    :param figures: what it says of its model; None where it has not been asked
    """

    endpoint: Endpoint | None = None
    loading: str = ""
    figures: ModelFigures | None = None


def routing_view(
    fleet: Fleet, facts: RoutingFacts, instances: Mapping[str, InstanceFacts], now: float, generation: int
) -> RoutingView:
    """Return the view of this moment. For each resident:

    1. The daemon stops: refuse. 2. A switch holds requests, what serves does not answer, or it was unloaded because
    nobody used it: wait. 3. Ready: send.
    4. Nothing is ready: refuse if nothing is on its way, else wait.

    :param instances: at least those of `instances_told`
    :param now: monotonic, as the times in the fleet's state
    """
    focus = _route(fleet, fleet.focused, facts, instances, now)
    view = RoutingView(
        generation=generation,
        serving=focus.serving,
        refusal=focus.refusal,
        progress=fleet_progress(fleet, facts, instances),
        models=listed_models(fleet, facts, instances),
        on_request=facts.on_request,
        unavailable=facts.unavailable,
        fallen=facts.fallen,
        repaired=facts.repaired,
        asleep=focus.asleep,
    )
    if facts.closing:
        return replace(view, serving=None, refusal=Refusal("orch is stopping", "stopping", CLOSING_RETRY_S))

    return replace(view, others=_routes_beside_focus(fleet, facts, instances, now))


def _routes_beside_focus(
    fleet: Fleet, facts: RoutingFacts, instances: Mapping[str, InstanceFacts], now: float
) -> dict[str, ResidentRoute]:
    found: dict[str, ResidentRoute] = {}
    for seat, resident in fleet.residents.items():
        if seat == fleet.focus:
            continue

        route = _route(fleet, resident, facts, instances, now)
        for profile in _profiles_of(resident):
            serving, refusal = route.serving, route.refusal
            if refusal is not None and facts.on_request and (profile in facts.repaired or refusal.code == "stopping"):
                refusal = None  # it is another start by now, or it can be loaded again once it has gone

            found[profile] = replace(
                route,
                serving=serving if serving is not None and serving.profile == profile else None,
                refusal=refusal if refusal is not None and refusal.profile in (None, profile) else None,
            )

    return found


def _profiles_of(resident: Resident) -> set[str]:
    """Return the profiles that have a route by this resident: none where nothing is in its seat."""
    state, switch = resident.state, resident.switch
    targets = [resident.asleep, None if isinstance(state, Stopped) else state.start_record.target]
    if switch is not None:
        targets.append(switch.operation.target)

    return {target.profile for target in targets if target is not None}


def _route(
    fleet: Fleet, resident: Resident, facts: RoutingFacts, instances: Mapping[str, InstanceFacts], now: float
) -> ResidentRoute:
    state, asleep = resident.state, resident.asleep
    progress = _resident_progress(fleet, resident, facts, instances)
    route = ResidentRoute(None, None, progress, asleep.profile if asleep is not None else None)
    if asleep is not None or resident.holding or (isinstance(state, Ready) and state.instance in facts.unrouted):
        return route

    if not isinstance(state, Ready):
        return replace(route, refusal=refusal_of(state, now))

    endpoint = _facts_of(state, instances).endpoint
    most = fleet.rules.of(state.start_record.target.profile).max_in_flight
    return replace(route, serving=replace(endpoint, max_in_flight=most) if endpoint is not None and most else endpoint)


def refusal_of(state: State, now: float) -> Refusal | None:
    """Return what a client is told when nothing is ready and nothing is on its way; None while something is.

    :param now: monotonic
    """
    match state:
        case Stopped():
            return Refusal("no model is running; start one with `orch up PROFILE`", "not_running", None)
        case Draining(then=None) | Stopping(then=None, failure=None):
            return Refusal("the model is being stopped", "stopping", None)
        case Failed(failure=failure, until=until):
            retry_s = None if until is None else min(max(math.ceil(until - now), 1), MAX_RETRY_AFTER_S)
            message = f"{state.start_record.target} failed: {describe(failure)}{_attempts_tried(state.start_record)}"
            profile = state.start_record.target.profile
            return Refusal(message, failure.failure_class, retry_s, profile, permanent=until is None)
        case _:
            return None


def _attempts_tried(start_record: StartRecord) -> str:
    """Return the attempts as a client is told of them; empty when there was only one."""
    if len(start_record.attempts) < 2:
        return ""

    return "; tried: " + ", ".join(f"{each.number}. {each.rung}: {each.outcome}" for each in start_record.attempts)


def instance_in_progress(resident: Resident) -> str | None:
    """Return the instance whose loading is worth telling: the new one of a switch side by side, else the current."""
    beside = _starting_beside(resident)
    return instance_of(beside if beside is not None else resident.state)


def instances_told(fleet: Fleet) -> set[str]:
    """Return the instances that the view tells of."""
    residents = fleet.residents.values()
    found = {instance_in_progress(each) for each in residents} | {instance_of(each.state) for each in residents}
    return {instance for instance in found if instance is not None}


def fleet_progress(fleet: Fleet, facts: RoutingFacts, instances: Mapping[str, InstanceFacts]) -> str:
    """Return one line for those who wait for the focus, and for `orch status`."""
    if fleet.switch is None and facts.reading is not None:
        share = f", {facts.read_percent} %" if facts.read_percent else ""
        return f"switching to {facts.reading}: {READING_AHEAD}{share}"

    return _resident_progress(fleet, fleet.focused, facts, instances)


def _resident_progress(
    fleet: Fleet, resident: Resident, facts: RoutingFacts, instances: Mapping[str, InstanceFacts]
) -> str:
    state, switch = resident.state, resident.switch
    if resident.asleep is not None:
        text = f"{resident.asleep} is unloaded; the next request loads it"
    elif isinstance(state, Ready) and state.instance in facts.unrouted:
        text = f"{state.start_record.target} does not answer at the moment"
    else:
        text = _state_progress(fleet, state, instances)

    if switch is None:
        return text

    beside = _starting_beside(resident)
    if beside is not None:  # what serves meanwhile is no news
        text = _state_progress(fleet, beside, instances)

    if isinstance(switch, StartingNew) and switch.operation.origin is None:  # a start that somebody waits for
        return text

    return f"switching to {switch.operation.target}: {text}"


def _state_progress(fleet: Fleet, state: State, instances: Mapping[str, InstanceFacts]) -> str:
    waiting = fleet.waiting.get(instance_of(state) or "")
    if waiting is not None and waiting.why:
        return f"{waiting.prepare.target} waits to be loaded: {waiting.why}"

    return progress_of(state, _facts_of(state, instances).loading)


_NOTHING_KNOWN = InstanceFacts()


def _facts_of(state: State, instances: Mapping[str, InstanceFacts]) -> InstanceFacts:
    return instances.get(instance_of(state) or "", _NOTHING_KNOWN)


def _starting_beside(resident: Resident) -> State | None:
    switch = resident.switch
    return resident.slots.get(switch.new) if isinstance(switch, SideBySide) else None


def listed_models(fleet: Fleet, facts: RoutingFacts, instances: Mapping[str, InstanceFacts]) -> tuple[Model, ...]:
    """Return the models with the status of the residents, and of what a switch is about to start or starts."""
    statuses: dict[str, str] = {}
    figures: dict[str, ModelFigures] = {}
    for resident in fleet.residents.values():
        found = _status_of(resident)
        if found is None:
            continue

        profile, status = found
        statuses[profile] = status
        said = _facts_of(resident.state, instances).figures
        if status == "loaded" and said is not None:
            figures[profile] = said

    for target in (facts.reading, *_switched_to(fleet.residents.values())):
        if target is not None and statuses.get(target.profile) != "loaded":
            statuses[target.profile] = "loading"

    return tuple(
        listed_model(
            model,
            statuses.get(model.name, model.status),
            figures.get(model.name),
            0.0 if fleet.pinned(model.name) else fleet.rules.idle_limit_s(model.name),
            facts.unloaded.get(model.name),
        )
        for model in facts.models
    )


def _status_of(resident: Resident) -> tuple[str, str] | None:
    """Return the profile of a resident and its status; None where nothing is in its seat."""
    state = resident.state
    start_record = start_record_of(state)
    if start_record is None or isinstance(state, Stopped):
        return None

    profile = start_record.target.profile
    if isinstance(state, Ready):
        return profile, "loaded"

    ends = isinstance(state, Draining | Stopping) and state.then is None
    gone = ends or failure_of(state) is not None or resident.asleep is not None
    return profile, "unloaded" if gone else "loading"


def _switched_to(residents: Iterable[Resident]) -> list[Target]:
    return [each.switch.operation.target for each in residents if each.switch is not None]


def unloaded_since(fleet: Fleet, before: Mapping[str, float], now: float) -> Mapping[str, float]:
    """Return the profiles that the next request loads again, with the time since when that is so.

    :param before: the same at the last change of the fleet
    """
    asleep = (each.asleep.profile for each in fleet.residents.values() if each.asleep is not None)
    return {profile: before.get(profile, now) for profile in asleep}


def facts_after(facts: RoutingFacts, before: Mapping[str, State], after: Mapping[str, State]) -> RoutingFacts:
    """Return the facts once slots have changed: fallen instances are remembered, ended ones forgotten."""
    fallen = (fallen_between(each, after.get(slot)) for slot, each in before.items())
    there = frozenset(filter(None, map(instance_of, after.values())))
    return replace(
        facts,
        fallen=(*facts.fallen, *filter(None, fallen))[-KEPT_FALLEN:],
        unrouted=facts.unrouted & there,
    )


def fallen_between(before: State, state: State | None) -> str | None:
    """Return the instance that served and fell by a failure of its own; None when somebody wanted its end."""
    if not isinstance(before, Ready) or isinstance(state, Ready | Draining | None):
        return None

    asked = isinstance(state, Stopping) and state.failure is None
    return None if asked else before.instance
