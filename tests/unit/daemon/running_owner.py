"""An owner that takes events, with effects that are noted and never done: tests post what would come of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from orchestrator.core.fleet.lifecycle_states import (
    CanaryPassed,
    Effect,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Spawned,
)
from orchestrator.core.fleet.resident_states import UpRequested
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.owner import Owner
from tests.support import PATIENCE_S
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, FIRST, RECOVERY, A


class NotedEffects:
    """Notes what was to be done."""

    def __init__(self) -> None:
        self.asked: list[Effect] = []

    def perform(self, effect: Effect) -> None:
        self.asked.append(effect)

    @property
    def instance(self) -> str:
        """The instance that is to be prepared."""
        return next(effect.instance for effect in reversed(self.asked) if isinstance(effect, Prepare))


@asynccontextmanager
async def running_owner(event_log: EventLog | None = None) -> AsyncIterator[tuple[Owner, NotedEffects]]:
    owner, effects = Owner(event_log or EventLog(None)), NotedEffects()
    task = asyncio.create_task(owner.run(effects))
    try:
        yield owner, effects
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def request_start(owner: Owner, effects: NotedEffects) -> str:
    """Ask for a start of target A; return the instance that is to be prepared."""
    await owner.ask(UpRequested(A, "s"))
    return effects.instance


async def become_ready(owner: Owner, instance: str) -> None:
    """Have everything go well for an instance that is to be prepared."""
    for event in (Prepared(instance, FIRST, RECOVERY), Spawned(instance, 42), Loaded(instance), CanaryPassed(instance)):
        await owner.ask(event)


async def make_failed(owner: Owner, effects: NotedEffects) -> None:
    await owner.ask(NotStarted(await request_start(owner, effects), BAD_MODEL))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds that wakes nobody."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)
