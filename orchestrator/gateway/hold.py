"""Requests that wait for an instance: a bounded first-in-first-out queue, released by each change of the view.

A ticket waits for "something was decided", never for a value: whoever is released looks at the view again, and goes
back to its old place when that has changed once more.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools

from orchestrator.gateway.errors import GatewayError

_RETRY_AFTER_S = 10


class Ticket:
    """One place in the queue, kept until the request is served or gives up."""

    __slots__ = ("number", "released")

    def __init__(self, number: int) -> None:
        self.number = number
        self.released = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether it was released within this time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.released.wait()
        except TimeoutError:
            return False

        return True


class Hold:
    """The queue. Whoever enters also leaves."""

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._tickets: list[Ticket] = []
        self._numbers = itertools.count()
        self.entered = 0
        """Requests that have ever taken a place."""

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, progress: str) -> Ticket:
        """Take a place at the end.

        :raises GatewayError: `queue_full`
        """
        queued = len(self._tickets)
        if queued >= self._max_queued:
            raise GatewayError(
                "queue_full", f"{queued} requests are waiting already ({progress})", retry_after_s=_RETRY_AFTER_S
            )

        self.entered += 1
        ticket = Ticket(next(self._numbers))
        self._tickets.append(ticket)
        return ticket

    def enter_again(self, ticket: Ticket) -> None:
        """Take the old place back, ahead of whoever came later; a full queue does not refuse its own."""
        ticket.released.clear()
        bisect.insort(self._tickets, ticket, key=lambda one: one.number)

    def leave(self, ticket: Ticket) -> None:
        if ticket in self._tickets:
            self._tickets.remove(ticket)

    def release(self) -> None:
        """Wake all, the oldest first; woken in this order they run in this order."""
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            ticket.released.set()
