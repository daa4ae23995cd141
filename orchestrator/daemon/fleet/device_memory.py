"""Waits until the device memory of an engine that ended is free again: drivers give it back a while later."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.to_thread

from orchestrator.adapters.hardware.gpu import GpuProvider
from orchestrator.core.failure.unreleased_memory import unreleased_mib_between

POLL_S = 0.1
SLACK_MIB = 64
"""Readings wobble by a few MiB; a context that is still there has hundreds."""


class DeviceMemory:
    """Compares what the devices use with what they used before an engine started. Nothing to do without a device."""

    def __init__(self, gpus: GpuProvider) -> None:
        self._gpus = gpus
        self._before: dict[int, int] = {}
        self._running = 0
        self._free_before_mib: dict[str, int] = {}

    async def before_start(self) -> bool:
        """Read the devices' use, unless another engine's memory would be in it.

        :return: whether no other engine runs
        """
        alone = not self._running
        if alone:
            self._before = await self._used()

        self._running += 1
        return alone

    @property
    def before(self) -> dict[int, int]:
        """Device index to MiB in use before the running engines were started; empty where it is unknown."""
        return dict(self._before)

    async def taken_mib(self) -> list[int]:
        """Return how much more each device has in use than before the running engine was started, MiB.

        Nothing where several run: whose it is would not be known.
        """
        if not self._before or self._running != 1:
            return []

        used = await self._used()
        if self._running != 1:
            return []

        return [used[index] - before for index, before in self._before.items() if index in used]

    def ended(self) -> None:
        self._running -= 1

    async def until_released(self, timeout_s: float) -> int:
        """Wait, while no engine runs, until the devices use no more than before the last one started.

        :return: MiB that are still taken after `timeout_s`, by the dead engine or by somebody new
        """
        if self._running or not self._before:
            return 0

        with anyio.move_on_after(timeout_s):
            while await self._excess() > SLACK_MIB:  # noqa: ASYNC110  (NVML has no event for it)
                await anyio.sleep(POLL_S)

            return 0

        excess_mib = await self._excess()
        self._before = await self._used()  # whatever it is, it is there to stay
        return excess_mib

    def compare_free(self, free_mib: Mapping[str, int]) -> int:
        """Compare what an engine found free on its devices with what the engine before it found.

        :return: MiB of it that were free for the engine before, and are not for this one
        """
        unreleased_mib = unreleased_mib_between(self._free_before_mib, free_mib)
        self._free_before_mib |= free_mib
        return unreleased_mib

    async def _excess(self) -> int:
        used = await self._used()
        return sum(max(used[index] - before, 0) for index, before in self._before.items() if index in used)

    async def _used(self) -> dict[int, int]:
        readings = await anyio.to_thread.run_sync(self._gpus.read_now)
        return {each.index: each.used_mib for each in readings}
