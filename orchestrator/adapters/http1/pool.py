"""Keep-alive connections to one engine, used so that an engine with few HTTP threads is never starved of them."""

from __future__ import annotations

import asyncio
from collections import deque

from orchestrator.adapters.http1.client import StaleError, UpstreamConnection, UpstreamError, UpstreamResponse
from orchestrator.adapters.http1.wire import Headers, encode_head

_IDLE_S = 2.0
"""cpp-httplib closes a connection after five idle seconds. One that is reused must be safely younger, also where a busy
machine lets either side see the end of an answer late: what was written to one that closes is not sent again."""

_STARVED_S = 0.05
"""After this, a new connection without an answer may be waiting for a thread that an idle connection holds."""


class UpstreamPool:
    """Connections to one engine; the newest idle one is used first, so that the others can age away."""

    def __init__(self, host: str, port: int, *, connect_timeout_s: float = 5.0, head_bytes: int = 32768) -> None:
        self._host = host
        self._port = port
        self._authority = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self._connect_timeout_s = connect_timeout_s
        self._head_bytes = head_bytes
        self._idle: deque[UpstreamConnection] = deque()
        self._unanswered: dict[UpstreamConnection, float] = {}
        self._loop = asyncio.get_running_loop()
        self._relief: asyncio.TimerHandle | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def request(self, method: str, target: str, headers: Headers, body: bytes = b"") -> UpstreamResponse:
        """Send a request, once, and return when the head of its response has arrived.

        Idle connections that the engine has closed are passed over. One that closes after the request was written is an
        error: the engine may have done what it was asked to, and nobody here can know.

        :param headers: end-to-end fields; Host and framing are added here
        :raises UpstreamError: when no response head arrives
        """
        fields = [(b"host", self._authority), *headers]
        if body or method == "POST":
            fields.append((b"content-length", b"%d" % len(body)))

        head = encode_head(f"{method} {target} HTTP/1.1".encode(), fields)
        while (idle := self._reusable()) is not None:
            try:
                return await idle.exchange(head, body)
            except StaleError:
                pass  # nothing was sent

        connection = await self._connect()
        self._unanswered[connection] = self._loop.time()
        try:
            return await connection.exchange(head, body)
        except StaleError as error:  # closed before a byte was written: the engine has not seen the request
            where = f"{self._host}:{self._port}"
            raise UpstreamError(f"the engine at {where} closed the connection at once", "connect") from error
        finally:
            self._unanswered.pop(connection, None)

    def close(self) -> None:
        """Close idle connections now, and the busy ones as they end."""
        self._closed = True
        self._close_idle()

    def release(self, connection: UpstreamConnection) -> None:
        """Called by a connection whose response has ended well."""
        if self._closed:
            connection.close()
            return

        now = self._loop.time()
        connection.idle_since = now
        self._idle.append(connection)
        while self._idle and now - self._idle[0].idle_since > _IDLE_S:
            self._idle.popleft().close()

        if self._unanswered and self._relief is None:
            self._relief = self._loop.call_later(_STARVED_S, self._relieve)

    def forget(self, connection: UpstreamConnection) -> None:
        """Called by a connection that was lost."""
        if connection in self._idle:
            self._idle.remove(connection)

    def _relieve(self) -> None:
        # cpp-httplib gives each connection a thread until it closes. Where there are few threads, a fresh connection
        # waits for one that our own idle connections hold, for seconds.
        self._relief = None
        if not self._unanswered:
            return

        oldest = next(iter(self._unanswered.values()))
        if self._loop.time() - oldest >= _STARVED_S:
            self._close_idle()
        elif self._idle:
            self._relief = self._loop.call_later(_STARVED_S, self._relieve)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _reusable(self) -> UpstreamConnection | None:
        if not self._idle:
            return None

        connection = self._idle.pop()
        if self._loop.time() - connection.idle_since <= _IDLE_S:
            return connection

        # The newest is too old, so all are.
        connection.close()
        self._close_idle()
        return None

    async def _connect(self) -> UpstreamConnection:
        where = f"{self._host}:{self._port}"
        try:
            # One after the other: requests that were queued in an order reach the engine in this order.
            async with asyncio.timeout(self._connect_timeout_s), self._connecting:
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self, self._head_bytes), self._host, self._port
                )
        except TimeoutError as error:
            raise UpstreamError(f"the engine at {where} does not accept connections", "connect") from error
        except OSError as error:
            raise UpstreamError(f"the engine at {where} cannot be reached: {_reason(error)}", "connect") from error

        return connection


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
