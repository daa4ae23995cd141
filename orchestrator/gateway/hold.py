"""Requests that wait for an instance: a bounded first-in-first-out queue, released by each change of the view.

A ticket waits for "something was decided", never for a value: whoever is released looks at the view again, and goes on
waiting in the same place when that has changed once more.
"""

from __future__ import annotations

import asyncio

from orchestrator.gateway.errors import GatewayError

_RETRY_AFTER_S = 10


class Ticket:
    """One place in the queue, kept until the request is let through or gives up."""

    __slots__ = ("_released",)

    def __init__(self) -> None:
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
        ticket = Ticket()
        self._tickets.append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._tickets.remove(ticket)

    def release(self) -> None:
        """Wake all, the oldest first; woken in this order they run in this order."""
        for ticket in self._tickets:
            ticket.release()
