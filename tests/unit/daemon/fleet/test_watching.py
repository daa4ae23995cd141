"""What the watcher says of an engine whose answers nobody can read, while another one is watched beside it."""

from __future__ import annotations

from typing import cast

import pytest

from orchestrator.core.health.liveness import LivenessPolicy
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.watching import LivenessWatcher
from orchestrator.gateway.contract import Traffic

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
