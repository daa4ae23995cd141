"""What a whole status adds is asked for at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from orchestrator.api.types import PageCacheStatus
from orchestrator.daemon.control.status import StatusBuilder
from tests.unit.core.fleet.lifecycle_machine import machine_in
from tests.unit.daemon.telemetry.idle_parts import Devices

pytestmark = pytest.mark.anyio

FIGURE = PageCacheStatus(part_mib=9, resident_mib=9, experts_mib=0, experts_resident_mib=0, where="")


class Builder(StatusBuilder):
    """One with a page cache and a profile that each answer once the other was asked."""

    def __init__(self) -> None:
        parts: dict[str, Any] = dict.fromkeys(("runs", "router", "traffic", "ledger", "preparer", "clock"))
        parts["owner"] = SimpleNamespace(
            fleet=SimpleNamespace(state=machine_in("ready").state, slots={}), observe=lambda look: None
        )
        super().__init__(
            **parts, gpus=Devices(), notice_of=lambda instance: None, gateway_url="", page_cache=self.page_cache_of
        )
        self.asked = {"page cache": anyio.Event(), "profile": anyio.Event()}

    def status(self) -> Any:
        return {"instances": []}

    async def page_cache_of(self, instance: str | None) -> PageCacheStatus:
        self.asked["page cache"].set()
        await self.asked["profile"].wait()
        return FIGURE

    async def stale(self, instance: str | None = None) -> tuple[str, ...]:
        self.asked["profile"].set()
        await self.asked["page cache"].wait()
        return ("context.size",)


async def test_a_disk_that_does_not_answer_is_not_waited_for_twice() -> None:
    with anyio.fail_after(20):
        found = await Builder().full_status()

    assert (found["page_cache"], found["stale"], found["gpus"]) == (FIGURE, ["context.size"], [])
