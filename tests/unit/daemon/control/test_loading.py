"""Load, unload, pin and stop of one profile among several: what is answered, and what the owner is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from orchestrator.core.errors import NotRunningError, OrchError, UsageError
from orchestrator.core.fleet.fleet_states import FocusRequested
from orchestrator.core.fleet.lifecycle_states import Drained, Exited, NotStarted, Prepare, StopProcess, Target
from orchestrator.core.fleet.model_figures import Model
from orchestrator.core.fleet.resident_states import SwitchRequested
from orchestrator.daemon.control.loading import LoadingActions
from orchestrator.daemon.fleet.model_list import ModelList
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import Switcher
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, TERMINATED, A, B
from tests.unit.daemon.control.fleet_of_two import ROOM, have_two, load_beside
from tests.unit.daemon.running_owner import NotedEffects, become_ready, request_start, running_owner

OWN_ENGINES = {"a": A, "b": B, "beta": B}
"""Names as profiles and aliases have them, and what is started by them."""


class Resolver:
    """Resolves the names of these tests."""

    def __init__(self) -> None:
        self.trusted: list[Target] = []

    def resolve(self, name: str, engine: str | None, *, unverified: bool, force: bool) -> SimpleNamespace:
        if name not in OWN_ENGINES:
            raise UsageError(f"there is no profile `{name}`")

        own = OWN_ENGINES[name]
        return SimpleNamespace(target=Target(own.profile, engine or own.engine), notes=())

    def trust(self, target: Target) -> None:
        self.trusted.append(target)


@dataclass
class Here:
    owner: Owner
    effects: NotedEffects
    actions: LoadingActions
    resolver: Resolver
    interrupted: list[str]

    def asked(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects.asked if isinstance(effect, kind)]


@asynccontextmanager
async def actions() -> AsyncIterator[Here]:
    async with running_owner() as (owner, effects):
        resolver, interrupted = Resolver(), list[str]()
        models = (Model("a", (), "", "", 0), Model("b", ("beta",), "", "", 0), Model("c", (), "", "", 0))
        view = SimpleNamespace(models=models)
        router = SimpleNamespace(view=lambda: view, views=SimpleNamespace(generation=1), refresh=lambda: None)

        async def try_read() -> None:
            pass

        current = SimpleNamespace(target=B)
        switcher = SimpleNamespace(current=current, interrupt=lambda cause: interrupted.append(cause.text))
        made = LoadingActions(
            owner,
            cast(Router, router),
            cast(ModelList, SimpleNamespace(try_read=try_read)),
            cast(Preparer, resolver),
            cast(Switcher, switcher),
        )
        yield Here(owner, effects, made, resolver, interrupted)


def test_a_load_is_taken_at_once_and_what_serves_already_is_said_to() -> None:
    async def work() -> None:
        async with actions() as here:
            await become_ready(here.owner, await request_start(here.owner, here.effects))
            answer = await here.actions.load("beta", None, unverified=True)
            assert (answer["target"], answer["loaded"], answer["taken"]) == ("b@ik-fork", False, True)
            assert here.resolver.trusted == [B]
            await here.owner.ask(ROOM)
            await become_ready(here.owner, here.effects.instance)
            prepared = len(here.asked(Prepare))
            answer = await here.actions.load("b", None)
            assert (answer["loaded"], answer["taken"]) == (True, True)
            await here.owner.ask(ROOM)
            assert len(here.asked(Prepare)) == prepared
            assert here.owner.fleet.focused.desired == A  # the focus has not moved

    anyio.run(work)


def test_a_load_of_what_failed_tries_it_again() -> None:
    async def work() -> None:
        async with actions() as here:
            await here.owner.ask(NotStarted(await load_beside(here.owner, here.effects), BAD_MODEL))
            answer = await here.actions.load("b", None)
            assert (answer["loaded"], answer["taken"]) == (False, True)
            await here.owner.ask(ROOM)
            assert [each.target for each in here.asked(Prepare)] == [A, B, B]

    anyio.run(work)


def test_what_still_ends_is_not_taken_and_comes_on_the_engine_that_it_had() -> None:
    async def work() -> None:
        async with actions() as here:
            await become_ready(here.owner, await request_start(here.owner, here.effects))
            await here.actions.load("b", "upstream")
            await here.owner.ask(ROOM)
            await become_ready(here.owner, here.effects.instance)
            assert await here.actions.unload("b") == {"profile": "b", "unloaded": False}
            assert not (await here.actions.load("b", None))["taken"]
            instance = next(each.instance for each in here.owner.fleet.slots.values() if each.instance[0] != "s")  # type: ignore[union-attr]
            await here.owner.ask(Drained(instance))
            await here.owner.ask(Exited(instance, TERMINATED))
            assert await here.actions.unload("b") == {"profile": "b", "unloaded": True}
            answer = await here.actions.load("b", None)
            assert (answer["target"], answer["taken"]) == ("b@upstream", True)

    anyio.run(work)


def test_mistakes_are_answered_before_anything_moves() -> None:
    async def work() -> None:
        async with actions() as here:
            await have_two(here.owner, here.effects)
            before = here.owner.fleet
            with pytest.raises(UsageError, match="no profile `nosuch`"):
                await here.actions.load("nosuch", None)

            with pytest.raises(UsageError, match=r"b@ik-fork is loaded, on another engine") as caught:
                await here.actions.load("b", "upstream")

            assert caught.value.hint == "`orch switch b@upstream` changes its engine"
            with pytest.raises(NotRunningError, match="`c` is not loaded") as missing:
                await here.actions.unload("c")

            assert missing.value.details == ("loaded: a, b",)
            with pytest.raises(NotRunningError):
                await here.actions.down(["a", "nosuch"], force=False)

            with pytest.raises(UsageError, match="there is no profile `d`"):
                await here.actions.pin("d", pinned=True)

            assert here.owner.fleet == before

    anyio.run(work)


def test_down_by_name_leaves_the_others_and_only_interrupts_a_switch_to_what_it_stops() -> None:
    async def work() -> None:
        async with actions() as here:
            await have_two(here.owner, here.effects)
            assert await here.actions.down(["a"], force=True) == ([A], True)
            assert here.interrupted == []
            assert [each.instance for each in here.asked(StopProcess)] == ["s.1"]
            assert here.owner.fleet.desired == B  # what is left is in focus
            assert await here.actions.down(["beta"], force=True) == ([B], True)  # a still ends
            assert here.interrupted == ["it was stopped"]

    anyio.run(work)


def test_down_without_a_name_stops_everything() -> None:
    async def work() -> None:
        async with actions() as here:
            await have_two(here.owner, here.effects)
            assert await here.actions.down([], force=True) == ([A, B], False)
            assert here.interrupted == ["everything was stopped"]
            assert {each.instance for each in here.asked(StopProcess)} == {"s.1", "t.1"}

    anyio.run(work)


def test_a_pin_holds_for_what_is_loaded_and_for_what_may_be() -> None:
    async def work() -> None:
        async with actions() as here:
            await have_two(here.owner, here.effects)
            assert await here.actions.pin("beta", pinned=True) == {"profile": "b", "pinned": True, "changed": True}
            assert await here.actions.pin("b", pinned=True) == {"profile": "b", "pinned": True, "changed": False}
            assert (await here.actions.pin("c", pinned=True))["changed"]
            assert here.owner.fleet.pinned("b") and here.owner.fleet.pinned("c")
            assert (await here.actions.pin("b", pinned=False))["changed"]
            assert not here.owner.fleet.pinned("b")

    anyio.run(work)


def test_one_side_of_a_switch_cannot_be_unloaded() -> None:
    async def work() -> None:
        async with actions() as here:
            await become_ready(here.owner, await request_start(here.owner, here.effects))
            await here.owner.ask(FocusRequested(SwitchRequested(B, "t", "replace")))
            with pytest.raises(OrchError, match="`a` is in the middle of a switch to b@ik-fork"):
                await here.actions.unload("a")

    anyio.run(work)
