"""What the connections of one server share: limits, the sum of their bodies, and who goes when there are too many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Set
from typing import Generic, Literal, Protocol, TypeVar

from orchestrator.adapters.http1.body_budget import BodyBudget
from orchestrator.adapters.http1.exchange import Request, Response
from orchestrator.adapters.http1.vetting import RejectedRequest
from orchestrator.adapters.http1.wire import Headers, HttpLimits

MakeRoom = Literal["idle", "any"]
Handler = Callable[[Request, Response], Awaitable[None]]

logger = logging.getLogger(__name__)

_REFUSAL_LOG_INTERVAL_S = 10.0
_RETRY_AFTER_S = 5


class HubMember(Protocol):
    """A connection, as far as the hub asks it."""

    @property
    def claim(self) -> tuple[bool, bool, float]:
        """Its claim to stay; the least goes first."""
        ...

    @property
    def at_work(self) -> bool: ...

    def abort(self) -> None: ...


Member = TypeVar("Member", bound=HubMember)


def no_headers(headers: Headers) -> Headers:
    """Return no fields, whatever a request has."""
    return []


class Hub(Generic[Member]):
    """The state that the connections of one server share.

    :param uids: users whose processes may connect, on a unix socket; None lets everybody
    :param own_headers: from the fields of a request, as far as they were read, to fields that its answer has
    :param make_room: at the limit, the connection that has had nothing to say for longest goes, not the new one;
        `any`: though it be at work, `idle`: never one that is at work
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        uids: Set[int] | None = None,
        own_headers: Callable[[Headers], Headers] = no_headers,
        *,
        make_room: MakeRoom | None = None,
    ) -> None:
        self.make_room = make_room
        self.handler = handler
        self.own_headers = own_headers
        self.limits = limits
        self.uids = uids
        self.draining = False
        self.connections: set[Member] = set()
        self.bodies = BodyBudget(max(limits.bodies_bytes, limits.body_bytes))
        self.empty = asyncio.Event()
        self._refused = 0
        self._refusal_logged_at = float("-inf")

    def has_room_for(self, connection: Member) -> bool:
        """Return whether a new connection may stay; where room is made, another one is cut for it."""
        if len(self.connections) <= self.limits.connections:
            return True

        others = (each for each in self.connections if each is not connection)
        oldest = min(others, key=lambda each: each.claim, default=None) if self.make_room else None
        if oldest is None or (self.make_room == "idle" and oldest.at_work):
            return False

        self.log_refusal("a local client", "there were too many connections, and it was idle for longest")
        self.connections.discard(oldest)  # at once: several may come before its end is noticed
        oldest.abort()
        return True

    def lost(self, connection: Member) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def log_refusal(self, peer: str, reason: str) -> None:
        """One line at most each ten seconds: a client that sends garbage must not fill the disk."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._refusal_logged_at >= _REFUSAL_LOG_INTERVAL_S:
            logger.warning("refused %d bad request(s), the last from %s: %s", self._refused, peer, reason)
            self._refused = 0
            self._refusal_logged_at = now


def no_room(limits: HttpLimits) -> RejectedRequest:
    """Return the refusal of a body for which there is no room beside the others."""
    limit_mib = max(limits.bodies_bytes, limits.body_bytes) >> 20
    reason = f"the bodies of all requests together would take more than {limit_mib} MiB; try again later"
    return RejectedRequest(503, reason, retry_after_s=_RETRY_AFTER_S)
