"""Requests that wait for an instance: a bounded queue in the order of arrival, released by each change of the view.

A ticket waits for "something was decided", never for a value: whoever is released looks at the view again, and goes on
waiting in the same place when that has changed once more.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable

from orchestrator.gateway.errors import GatewayError

_RETRY_AFTER_S = 10


class Ticket:
    """One place in the queue, kept until the request is let through or gives up."""

    __slots__ = ("_released", "arrived", "profile", "since")

    def __init__(self, profile: str | None, since: float, arrived: float) -> None:
        self.profile = profile
        self.since = since
        self.arrived = arrived
        self._released = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether it was released within this time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._released.wait()
        except TimeoutError:
            return False

        self._released.clear()
        return True

    def release(self) -> None:
        self._released.set()


class Hold:
    """The queue. Whoever enters also leaves.

    :ivar entered: how many have ever waited
    """

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self.entered = 0
        self._tickets: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, profile: str | None, since: float, progress: str, *, arrived: float | None = None) -> Ticket:
        """Take a place behind those who arrived earlier.

        :param profile: the profile that it waits for; None takes any
        :param since: monotonic time
        :param arrived: of a request that was let through before, and comes back: it keeps its place, and there is one
        :raises GatewayError: `queue_full`
        """
        queued = len(self._tickets)
        if queued >= self._max_queued and arrived is None:
            raise GatewayError(
                "queue_full", f"{queued} requests are waiting already ({progress})", retry_after_s=_RETRY_AFTER_S
            )

        self.entered += 1
        ticket = Ticket(profile, since, since if arrived is None else arrived)
        bisect.insort(self._tickets, ticket, key=lambda each: each.arrived)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._tickets.remove(ticket)

    def release(self, decided: Callable[[str | None], bool]) -> int:
        """Wake those for whose profile something was decided, the oldest first; woken in this order they run in it.

        :return: how many
        """
        woken = [ticket for ticket in self._tickets if decided(ticket.profile)]
        for ticket in woken:
            ticket.release()

        return len(woken)

    def waiting(self) -> dict[str, tuple[int, float]]:
        """Profile to how many wait for it, and since when the oldest does (monotonic)."""
        found: dict[str, tuple[int, float]] = {}
        for ticket in self._tickets:
            if ticket.profile is not None:
                count, since = found.get(ticket.profile, (0, ticket.since))
                found[ticket.profile] = (count + 1, min(since, ticket.since))

        return found
