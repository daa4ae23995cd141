"""Two residents in a real owner, whose effects nobody performs: a is in focus and serves, b beside it."""

from __future__ import annotations

from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.fleet_states import LoadRequested, Looked
from orchestrator.core.fleet.lifecycle_states import Prepare
from orchestrator.daemon.fleet.owner import Owner
from tests.unit.core.fleet.lifecycle_machine import B
from tests.unit.daemon.running_owner import NotedEffects, become_ready, request_start

ROOM = Looked(memory=MemoryLook())
"""A look that finds room for whatever waits."""


async def load_beside(owner: Owner, effects: NotedEffects) -> str:
    """Have a serve, and b let in beside it; return the instance of b that is to be prepared."""
    await become_ready(owner, await request_start(owner, effects))
    await owner.ask(LoadRequested(B, "t"))
    await owner.ask(ROOM)
    return next(each.instance for each in reversed(effects.asked) if isinstance(each, Prepare) and each.target == B)


async def have_two(owner: Owner, effects: NotedEffects) -> None:
    """Have a and b serve."""
    await become_ready(owner, await load_beside(owner, effects))
