"""An HTTP/1.1 server on llhttp and asyncio protocols: strict, bounded, one task per request.

Refuses whatever two parsers could read in two ways. Never logs a body, a header or a target.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Set

from orchestrator.adapters.http1.connection import Connection
from orchestrator.adapters.http1.hub import Handler, Hub, MakeRoom, no_headers
from orchestrator.adapters.http1.wire import Headers, HttpLimits

_CLEANUP_S = 5.0
"""The time that cancelled handlers have to clean up when the server stops."""

_POLL_S = 0.01


class HttpServer:
    """Serves one handler on sockets that the caller bound.

    A handler's task is cancelled as soon as its client is gone.

    :param uids: users whose processes may connect, on a unix socket; None lets everybody
    :param own_headers: from the fields of a request to fields that each answer to it has, a refusal included
    :param make_room: at the limit, the connection that has had nothing to say for longest goes, not the new one
    """

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits | None = None,
        uids: Set[int] | None = None,
        own_headers: Callable[[Headers], Headers] = no_headers,
        *,
        make_room: MakeRoom | None = None,
    ) -> None:
        self._hub: Hub[Connection] = Hub(handler, limits or HttpLimits(), uids, own_headers, make_room=make_room)
        self._listeners: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        return len(self._hub.connections)

    async def serve(self, sock: socket.socket) -> None:
        """Accept connections on a bound TCP or unix socket; returns once it listens."""
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            listener = await loop.create_unix_server(self._accept, sock=sock)
        else:
            listener = await loop.create_server(self._accept, sock=sock, backlog=1024)

        self._listeners.append(listener)

    def close_listeners(self) -> None:
        """Accept no more connections; every response from now on ends its connection."""
        self._hub.draining = True
        for listener in self._listeners:
            listener.close()

        self._listeners.clear()

    async def wait_spoken(self, within_s: float) -> None:
        """Wait until each connection that was accepted has said what it wants, at most so long: a client that was let
        in just before the listeners were closed has no other place to go.
        """
        deadline = asyncio.get_running_loop().time() + within_s
        while any(not connection.has_spoken for connection in self._hub.connections):
            if asyncio.get_running_loop().time() >= deadline:
                return

            await asyncio.sleep(_POLL_S)

    async def shutdown(self, drain_s: float) -> None:
        """Let running requests end, at most `drain_s` seconds, then cancel the rest and wait for their cleanup."""
        self.close_listeners()
        for connection in tuple(self._hub.connections):
            connection.close_if_idle()

        if not await self._wait_empty(drain_s):
            for connection in tuple(self._hub.connections):
                connection.abort()

            await self._wait_empty(_CLEANUP_S)

        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def _wait_empty(self, timeout_s: float) -> bool:
        self._hub.empty.clear()
        if not self._hub.connections:
            return True

        try:
            async with asyncio.timeout(timeout_s):
                await self._hub.empty.wait()
        except TimeoutError:
            return False

        return True

    def _accept(self) -> Connection:
        if self._sweep is None:
            self._sweep_later()

        return Connection(self._hub)

    def _sweep_later(self) -> None:
        limits = self._hub.limits
        shortest = min(
            limits.header_timeout_s,
            limits.body_timeout_s,
            limits.idle_timeout_s,
            limits.linger_s,
            limits.write_timeout_s,
        )
        self._sweep = asyncio.get_running_loop().call_later(min(1.0, shortest / 4), self._expire)

    def _expire(self) -> None:
        # One timer for all connections: arming one for each request would cost more than parsing it.
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._hub.connections):
            connection.expire(now)

        self._bound_unsent()
        self._sweep = None
        if self._hub.connections:  # without any, nothing wakes for them
            self._sweep_later()

    def _bound_unsent(self) -> None:
        unsent = {connection: connection.unsent_bytes for connection in self._hub.connections}
        total = sum(unsent.values())
        while total > self._hub.limits.unsent_bytes:
            largest = max(unsent, key=lambda connection: unsent[connection])
            total -= unsent.pop(largest)
            largest.abort()
