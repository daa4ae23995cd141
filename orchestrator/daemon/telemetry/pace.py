"""The pace of sampling: each second while somebody looks or an engine has something to do, else every ten.

While there is nothing to see, one cheap question a second is all that wakes the daemon for its telemetry; and whatever
else looks at something regularly does so at the same moment (`sleep_until_tick`).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import anyio

from orchestrator.gateway.contract import Traffic

SECOND_S = 1.0
IDLE_S = 10.0
LOOKED_S = 5.0
"""Somebody looks who has asked for a frame within this time."""


async def sleep_until_tick(every_s: float) -> None:
    """Sleep until the clock shows a multiple of this: loops that wake together cost one wake-up.

    Never less than half of it, so that a timer that is early by a hair does not end two sleeps.
    """
    rest_s = every_s - monotonic() % every_s
    await anyio.sleep(rest_s if rest_s >= every_s / 2 else rest_s + every_s)


class Pace:
    """Tells sampling loops how long to rest, and wakes them when there is something to see.

    :param owed: whether somebody waits for the next sample, though no request is under way
    """

    def __init__(self, traffic: Traffic, owed: Callable[[], bool] = lambda: False) -> None:
        self._traffic = traffic
        self._owed = owed
        self._looked_at = float("-inf")
        self._woken = anyio.Event()
        self._awake = False

    @property
    def watched(self) -> bool:
        return monotonic() - self._looked_at <= LOOKED_S

    def look(self) -> bool:
        """Note that somebody looks at the figures now.

        :return: whether nobody did before
        """
        began = not self.watched
        self._looked_at = monotonic()
        if began:
            self._wake()

        return began

    async def run(self) -> None:
        """Wake resting loops when requests come, for ever."""
        while True:
            await sleep_until_tick(SECOND_S)
            before, self._awake = self._awake, self._traffic.active > 0 or self._owed()
            if self._awake and not before:
                self._wake()

    @property
    def pause_s(self) -> float:
        """Seconds from one sample to the next."""
        return SECOND_S if self.watched or self._traffic.active or self._owed() else IDLE_S

    async def rest(self, until: float) -> None:
        """Rest until then (monotonic), or until there is something new to see."""
        with anyio.move_on_after(max(until - monotonic(), 0.0)):
            await self._woken.wait()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = anyio.Event()
