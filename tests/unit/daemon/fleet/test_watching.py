"""What the watcher says of an engine whose answers nobody can read, while another one is watched beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from orchestrator.core.health.liveness import LivenessPolicy
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.watching import LivenessWatcher, Watched
from orchestrator.gateway.contract import Traffic
from tests.unit.daemon.running_owner import become_ready, request_start, running_owner

pytestmark = pytest.mark.anyio


async def unreadable(text: str) -> str:
    raise ValueError(text)


async def test_that_answers_cannot_be_read_is_said_once_for_each_engine_and_reason() -> None:
    told: list[str] = []
    watcher = LivenessWatcher(
        cast(Owner, None), EngineRuns(), cast(Traffic, None), LivenessPolicy(),
        lambda instance, unrouted: None, lambda kind, text: told.append(text),
    )  # fmt: skip
    for _ in range(3):
        assert await watcher._ask("a.1", unreadable("no JSON")) is None
        assert await watcher._ask("b.1", unreadable("no JSON")) is None

    assert await watcher._ask("a.1", unreadable("no list")) is None
    assert told == [
        "a.1: its answers cannot be read: no JSON",
        "b.1: its answers cannot be read: no JSON",
        "a.1: its answers cannot be read: no list",
    ]


async def test_the_watch_of_an_engine_that_is_gone_ends_at_once_and_that_of_another_goes_on() -> None:
    async with running_owner() as (owner, effects):
        instance = await request_start(owner, effects)
        await become_ready(owner, instance)
        watcher = LivenessWatcher(
            owner, EngineRuns(), cast(Traffic, None), LivenessPolicy(), lambda instance, unrouted: None,
            lambda kind, text: None,
        )  # fmt: skip
        due = {name: anyio.Event() for name in (instance, "gone.1")}
        watcher._watched = {
            name: cast(Watched, SimpleNamespace(answers=SimpleNamespace(due=event))) for name, event in due.items()
        }
        watcher._let_go()
        assert {name: event.is_set() for name, event in due.items()} == {instance: False, "gone.1": True}
