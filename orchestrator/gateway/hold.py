"""Requests that wait for an instance: a bounded queue in the order of arrival, released by each change of the view.

Those who wait for one profile are a line of their own, so that a request for another one costs nothing for them. A
ticket waits for "something was decided", never for a value: whoever is released looks at the view again, and goes on
waiting in the same place when that has changed once more.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Iterable
from heapq import merge
from time import monotonic

from orchestrator.gateway.errors import GatewayError

_RETRY_AFTER_S = 10


class Ticket:
    """One place in the queue, given back at the end of `with ticket:`."""

    __slots__ = ("_give_back", "_released", "arrived", "profile", "since")

    def __init__(self, profile: str | None, since: float, arrived: float, give_back: Callable[[Ticket], None]) -> None:
        self._give_back = give_back
        self._released = asyncio.Event()
        self.profile = profile
        self.since = since
        self.arrived = arrived

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back(self)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is released; return False when the time is up before."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._released.wait()
        except TimeoutError:
            return False

        self._released.clear()
        return True

    def release(self) -> None:
        """Wake whoever waits with it."""
        self._released.set()


class Hold:
    """The queue.

    :ivar entered: the number of requests that have ever waited
    """

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self.entered = 0
        self._count = 0
        self._lines: dict[str | None, list[Ticket]] = {}

    def __len__(self) -> int:
        return self._count

    def enter(self, profile: str | None, since: float, progress: str, *, arrived: float | None = None) -> Ticket:
        """Take a place behind those who arrived earlier, until the end of `with` on the ticket.

        :param profile: the profile that it waits for; None takes any
        :param since: monotonic time
        :param arrived: of a request that was let through before, and comes back: it keeps its place, and there is one
        :raises GatewayError: `queue_full`
        """
        if self._count >= self._max_queued and arrived is None:
            raise GatewayError(
                "queue_full", f"{self._count} requests are waiting already ({progress})", retry_after_s=_RETRY_AFTER_S
            )

        self.entered += 1
        self._count += 1
        ticket = Ticket(profile, since, since if arrived is None else arrived, self._leave)
        bisect.insort(self._lines.setdefault(profile, []), ticket, key=_arrived)
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        line = self._lines[ticket.profile]
        line.remove(ticket)
        self._count -= 1
        if not line:
            del self._lines[ticket.profile]

    def release(self, decided: Callable[[str | None], bool], profiles: Iterable[str | None] | None = None) -> int:
        """Wake those for whose profile something was decided, the oldest first; woken in this order they run in it.

        :param decided: asked for one ticket after the other, in their order
        :param profiles: only those who wait for one of these, which are the same instance's: after the first whose turn
            it is not, nobody's is. All lines by default
        :return: how many
        """
        wanted = self._lines if profiles is None else profiles
        lines = [line for profile in wanted if (line := self._lines.get(profile))]
        waiting = merge(*lines, key=_arrived) if len(lines) > 1 else iter(lines[0] if lines else ())
        woken = 0
        for ticket in waiting:
            if decided(ticket.profile):
                ticket.release()
                woken += 1
            elif profiles is not None:
                break

        return woken

    def waited_s(self, profile: str) -> float:
        """Return for how long the oldest request that wants this profile has waited; 0 when none does."""
        waiting = self.waiting().get(profile)
        return 0.0 if waiting is None else monotonic() - waiting[1]

    def waiting(self, unnamed: str | None = None) -> dict[str, tuple[int, float]]:
        """Return, for each profile, how many wait for it, and since when the oldest does (monotonic).

        :param unnamed: the profile that requests without a name wait for; they are not counted without one
        """
        found: dict[str, tuple[int, float]] = {}
        for profile, line in self._lines.items():
            name = unnamed if profile is None else profile
            if name is not None:
                count, since = found.get(name, (0, float("inf")))
                found[name] = (count + len(line), min(since, *(ticket.since for ticket in line)))

        return found


def _arrived(ticket: Ticket) -> float:
    return ticket.arrived
