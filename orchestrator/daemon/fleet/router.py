"""Publishes where requests go. The one owner of the facts that decide about it beside the fleet's state."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from orchestrator.core.fleet.lifecycle_states import Failed, Ready, Target
from orchestrator.core.fleet.model_figures import Model
from orchestrator.core.fleet.routing import (
    InstanceFacts,
    RoutingFacts,
    facts_after,
    fleet_progress,
    instances_told,
    routing_view,
    unloaded_since,
)
from orchestrator.core.fleet.routing_states import Refusal, RoutingView
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.publisher import Publisher


class Router:
    """Derives the routing view anew at each change (`core/fleet/routing.py`); the gateway goes by it.

    :param on_request: whether clients may have another profile started by naming it
    """

    def __init__(self, owner: Owner, runs: EngineRuns, *, on_request: bool) -> None:
        self._owner = owner
        self._runs = runs
        self._facts = RoutingFacts(on_request=on_request)
        self._fleet = owner.fleet
        self._read_percent: Callable[[], int] = lambda: 0
        self._failed: dict[str, tuple[Failed, str, str | None]] = {}
        starting = RoutingView(1, None, Refusal("starting", "starting", 1), "starting", ())
        self.views: Publisher[RoutingView] = Publisher(starting)
        owner.observe(self.refresh)

    def view(self) -> RoutingView:
        return self.views.value

    async def changed(self, generation: int) -> RoutingView:
        """Wait for the first view that is newer than this generation."""
        return await self.views.changed(generation)

    def refresh(self) -> None:
        """Publish the view anew: the fleet, the facts or the progress of a load changed."""
        fleet = self._owner.fleet
        if fleet is not self._fleet:
            self._facts = facts_after(self._facts, self._fleet.slots, fleet.slots)
            self._facts = replace(self._facts, unloaded=unloaded_since(fleet, self._facts.unloaded, monotonic()))
            self._fleet = fleet

        self._follow_failures()
        generation = self.views.generation + 1
        self.views.publish(routing_view(fleet, self._facts, self._instances(), monotonic(), generation))

    def progress(self) -> str:
        """Return one line on what is under way at the focus, as of now."""
        facts = replace(self._facts, read_percent=self._read_percent())
        return fleet_progress(self._owner.fleet, facts, self._instances())

    def list_models(self, models: tuple[Model, ...]) -> None:
        """Show these models to clients from now on. One that has changed may be started again, whatever it met."""
        before = self._versions()
        self._facts = replace(self._facts, models=models)
        after = self._versions()
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        left = {name: each for name, each in self._facts.unavailable.items() if name not in changed}
        self._facts = replace(self._facts, unavailable=left)
        self.refresh()

    def mark_unavailable(self, profile: str, cause: str, for_s: float, *, permanent: bool = False) -> None:
        """Refuse requests for a profile that did not start, for a while; nobody waits for it in vain.

        :param permanent: the same start would fail the same way, so clients need not ask again by themselves
        """
        retry_s = None if permanent else math.ceil(for_s)
        refusal = Refusal(cause, "load_failed", retry_s, profile, permanent=permanent)
        self._facts = replace(self._facts, unavailable={**self._facts.unavailable, profile: refusal})
        self.refresh()

        def available_again() -> None:
            if self._facts.unavailable.get(profile) is refusal:
                self._make_available(profile)
                self.refresh()

        asyncio.get_running_loop().call_later(for_s, available_again)

    def _make_available(self, profile: str) -> None:
        if profile in self._facts.unavailable:
            left = {name: each for name, each in self._facts.unavailable.items() if name != profile}
            self._facts = replace(self._facts, unavailable=left)

    def _versions(self) -> dict[str, str]:
        return {model.name: model.version for model in self._facts.models}

    def _follow_failures(self) -> None:
        """Tell profiles that have failed from those that have failed and were changed since."""
        before, self._failed = self._failed, {}
        versions = self._versions()
        for seat, resident in self._fleet.residents.items():
            state = resident.state
            if isinstance(state, Ready):  # it starts after all
                self._make_available(state.start_record.target.profile)
            elif isinstance(state, Failed):
                known = before.get(seat)
                profile = state.start_record.target.profile
                same = known is not None and known[0] is state
                self._failed[seat] = known if known is not None and same else (state, profile, versions.get(profile))

        repaired = {
            profile for _, profile, version in self._failed.values() if versions.get(profile) not in (version, None)
        }
        self._facts = replace(self._facts, repaired=frozenset(repaired))

    def reads_ahead(self, target: Target | None, read_percent: Callable[[], int]) -> None:
        """Show what a switch is about to start; None once it has begun, or does not happen.

        :param read_percent: how much of its model has been read
        """
        self._read_percent = read_percent
        self._facts = replace(self._facts, reading=target)
        self.refresh()

    @property
    def switching(self) -> bool:
        """Whether a switch is under way in any seat, from the moment it was accepted."""
        residents = self._owner.fleet.residents.values()
        return self._facts.reading is not None or any(each.switch is not None for each in residents)

    def unroute(self, instance: str, unrouted: bool) -> None:
        """Hold new requests for an instance that does not answer, or let them go there again."""
        before = self._facts.unrouted
        self._facts = replace(self._facts, unrouted=before | {instance} if unrouted else before - {instance})
        self.refresh()

    def close(self) -> None:
        """Refuse all requests from now on: the daemon stops, and nothing is on its way any more."""
        self._facts = replace(self._facts, closing=True)
        self.refresh()

    def _instances(self) -> dict[str, InstanceFacts]:
        """Return what the processes tell that the view is about."""
        fleet, runs = self._owner.fleet, self._runs
        ready = {each.state.instance for each in fleet.residents.values() if isinstance(each.state, Ready)}
        return {
            instance: InstanceFacts(runs.endpoint(instance), "", runs.figures(instance))
            if instance in ready
            else InstanceFacts(loading=runs.loading(instance))
            for instance in instances_told(fleet)
        }
