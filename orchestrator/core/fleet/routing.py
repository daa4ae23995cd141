"""Where requests go: the routing view, derived from the fleet's state and from what else is known at that moment.

The gateway goes by the view alone (`gateway/contract.py`). Exactly one of three holds: a request can be sent
(`serving`), it is refused (`refusal`), or it waits (neither).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
from orchestrator.core.fleet.model_figures import UNKNOWN, ModelFigures, loaded_figures
from orchestrator.core.fleet.resident_states import Resident, SideBySide, StartingNew
from orchestrator.core.fleet.state_summary import failure_of, progress_of, start_record_of
from orchestrator.core.profile.variants import Variant

MAX_RETRY_AFTER_S = 120
"""Clients such as the OpenAI SDK do not retry at all when told to wait longer."""

CLOSING_RETRY_S = 5
KEPT_FALLEN = 16
READING_AHEAD = "reading the model ahead"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ready instance answers.

    :param instance: id of the instance; requests are counted under it until they end
    :param api_key: the key that the engine wants; clients never see it
    :param build: which build of the engine it is
    :param runs: differs once something else runs there: another text of the profile, rung, model file or program
    """

    instance: str
    profile: str
    engine: str
    host: str
    port: int
    api_key: str | None
    build: str | None = None
    runs: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """One profile as `/v1/models` shows it.

    :param created: seconds since 1970, as OpenAI's field of this name
    :param version: differs once a start would meet something else: another text, model file or program
    :param variants: more names, with what they change of a request
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    status: str
    created: int
    figures: ModelFigures = UNKNOWN
    version: str = ""
    variants: tuple[Variant, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may send for it."""
        return (self.name, *self.aliases, *(variant.name for variant in self.variants))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is ready and nothing is expected: what a client is told.

    :param profile: the profile that it is about; clients that name another one may still be helped
    :param permanent: the same start would fail the same way: asking again is in vain until a person changes something
    """

    message: str
    code: str
    retry_after_s: int | None
    profile: str | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class RoutingView:
    """What the gateway goes by, replaced whole at each change.

    :param generation: grows by one with each change
    :param progress: what a held client is told, `loading demo`
    :param on_request: clients that name a profile which does not serve wait until it does
    :param unavailable: profiles that did not start a moment ago, and why
    :param fallen: the newest instances that ended by a failure of their own, not because somebody wanted them gone
    :param repaired: a profile that failed and has changed since: it may be started for who asks for it
    :param asleep: the profile that was unloaded because nobody used it: who asks for it, or names none, waits for it
    """

    generation: int
    serving: Endpoint | None
    refusal: Refusal | None
    progress: str
    models: tuple[Model, ...]
    on_request: bool = False
    unavailable: Mapping[str, Refusal] = field(default_factory=dict)
    fallen: tuple[str, ...] = ()
    repaired: str | None = None
    asleep: str | None = None

    def serves(self, profile: str | None) -> bool:
        """Return whether a request for this profile can be sent now; None takes what serves."""
        return self.serving is not None and profile in (None, self.serving.profile)

    def refuses(self, profile: str | None) -> Refusal | None:
        """Return why a request for this profile need not wait; None when it may."""
        if not self.on_request and self.asleep is not None and profile not in (None, self.asleep):
            return Refusal(f"`{profile}` is not loaded; `orch switch` loads it", "not_running", None)

        if profile is None or not self.on_request:
            return self.refusal

        if profile in self.unavailable:
            return self.unavailable[profile]

        # Nothing runs, or something else failed: what the client asks for can be started for it.
        helped = (
            self.refusal is None
            or self.refusal.code == "not_running"
            or self.refusal.profile not in (None, profile)
            or self.refusal.profile == self.repaired
        )
        return None if helped else self.refusal

    def decided(self, profile: str | None) -> bool:
        """Return whether a request for this profile has nothing to wait for: it can be sent, or it is refused."""
        if self.serves(profile) or self.refuses(profile) is not None:
            return True

        return self.serving is not None and not self.on_request


@dataclass(frozen=True, slots=True)
class RoutingFacts:
    """What decides about routes beside the fleet's state.

    :param models: the profiles that could be started
    :param on_request: whether clients may have another profile started by naming it
    :param unavailable: profiles that did not start a moment ago, and why
    :param unrouted: instances that do not answer at the moment: new requests wait
    :param fallen: the newest instances that ended by a failure of their own, newest last
    :param closing: whether the daemon stops
    :param repaired: a profile that failed and has changed since
    :param reading: what a switch is about to start: its model is read ahead while the old instance serves on
    """

    models: tuple[Model, ...] = ()
    on_request: bool = False
    unavailable: Mapping[str, Refusal] = field(default_factory=dict)
    unrouted: frozenset[str] = frozenset()
    fallen: tuple[str, ...] = ()
    closing: bool = False
    repaired: str | None = None
    reading: Target | None = None


def routing_view(
    fleet: Resident,
    facts: RoutingFacts,
    endpoint: Endpoint | None,
    loading: str,
    now: float,
    generation: int,
    loaded: ModelFigures | None = None,
) -> RoutingView:
    """Return the view of this moment.

    1. The daemon stops: refuse. 2. A switch holds requests, what serves does not answer, or it was unloaded because
    nobody used it: wait. 3. Ready: send.
    4. Nothing is ready: refuse if nothing is on its way, else wait.

    :param endpoint: of the current instance; needed only while that is ready
    :param loading: how far the instance of `instance_in_progress` has loaded; empty when unknown
    :param now: monotonic, as the times in the fleet's state
    :param loaded: what the current instance says of its model; None where it has not been asked
    """
    state = fleet.state
    view = RoutingView(
        generation=generation,
        serving=None,
        refusal=None,
        progress=fleet_progress(fleet, facts, loading),
        models=listed_models(facts, fleet, loaded),
        on_request=facts.on_request,
        unavailable=facts.unavailable,
        fallen=facts.fallen,
        repaired=facts.repaired,
        asleep=fleet.asleep.profile if fleet.asleep is not None else None,
    )
    if facts.closing:
        return replace(view, refusal=Refusal("orch is stopping", "stopping", CLOSING_RETRY_S))

    if fleet.asleep is not None or fleet.holding or (isinstance(state, Ready) and state.instance in facts.unrouted):
        return view

    if isinstance(state, Ready):
        return replace(view, serving=endpoint)

    return replace(view, refusal=refusal_of(state, now))


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


def instance_in_progress(fleet: Resident) -> str | None:
    """Return the instance whose loading is worth telling: the new one of a switch side by side, else the current."""
    beside = _starting_beside(fleet)
    return instance_of(beside if beside is not None else fleet.state)


def fleet_progress(fleet: Resident, facts: RoutingFacts, loading: str) -> str:
    """Return one line for those who wait, and for `orch status`.

    :param loading: how far the instance of `instance_in_progress` has loaded; empty when unknown
    """
    state = fleet.state
    if fleet.asleep is not None:
        text = f"{fleet.asleep} is unloaded; the next request loads it"
    elif isinstance(state, Ready) and state.instance in facts.unrouted:
        text = f"{state.start_record.target} does not answer at the moment"
    else:
        text = progress_of(state, loading)

    switch = fleet.switch
    if switch is None:
        return text if facts.reading is None else f"switching to {facts.reading}: {READING_AHEAD}"

    beside = _starting_beside(fleet)
    if beside is not None:  # what serves meanwhile is no news
        text = progress_of(beside, loading)

    if isinstance(switch, StartingNew) and switch.operation.origin is None:  # a start that somebody waits for
        return text

    return f"switching to {switch.operation.target}: {text}"


def _starting_beside(fleet: Resident) -> State | None:
    switch = fleet.switch
    return fleet.slots.get(switch.new) if isinstance(switch, SideBySide) else None


def listed_models(facts: RoutingFacts, fleet: Resident, figures: ModelFigures | None = None) -> tuple[Model, ...]:
    """Return the models with the status of the slots, and of what a switch is about to start or starts.

    :param figures: of the model that is loaded, from its engine
    """
    state = fleet.state
    statuses: dict[str, str] = {}
    start_record = start_record_of(state)
    if start_record is not None and not isinstance(state, Stopped):
        loaded = "loaded" if isinstance(state, Ready) else "unloaded" if failure_of(state) else "loading"
        statuses[start_record.target.profile] = loaded

    for target in (facts.reading, fleet.switch.operation.target if fleet.switch is not None else None):
        if target is not None and statuses.get(target.profile) != "loaded":
            statuses[target.profile] = "loading"

    listed = tuple(replace(model, status=statuses.get(model.name, model.status)) for model in facts.models)
    if figures is None:
        return listed

    return tuple(
        replace(model, figures=loaded_figures(model.figures, figures)) if model.status == "loaded" else model
        for model in listed
    )


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
