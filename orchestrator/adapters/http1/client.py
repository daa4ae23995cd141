"""The client end of one connection to an engine: a response is relayed without a task switch per chunk.

Responses are parsed as strictly as requests: an engine that breaks the framing costs an error or a visible cut, never a
wrong answer, and its connection is not used again.

    IDLE --exchange()--> AWAITING_HEAD --final head--> BODY --end of the body--> IDLE (kept alive) or CLOSED
                              |                          |
                              +--- broken, cancelled, lost ---> CLOSED

Bytes that arrive in IDLE belong to no request: the connection is dropped. Interim responses (1xx) change nothing.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from enum import Enum
from typing import Literal, Protocol, cast

import httptools

from orchestrator.adapters.http1.wire import Headers, first
from orchestrator.core.errors import OrchError

Stage = Literal["connect", "before_response", "during_response"]

Sink = Callable[[bytes], None]


class UpstreamState(Enum):
    """The state of one connection to the engine."""

    IDLE = "no exchange"
    AWAITING_HEAD = "a request was sent; the head of its response has not come"
    BODY = "the body of a response arrives"
    CLOSED = "not to be used again"


_IDLE, _AWAITING_HEAD, _BODY, _CLOSED = UpstreamState  # globals: cheaper than attributes, once for each read


class UpstreamError(OrchError):
    """Raised when the engine cannot be reached, breaks off, or breaks the framing.

    :ivar stage: `connect`: nothing was sent; `before_response`: sent, nothing came; `during_response`: cut
    :ivar malformed: it spoke, and not HTTP
    """

    def __init__(self, message: str, stage: Stage, *, malformed: bool = False) -> None:
        super().__init__(message)
        self.stage = stage
        self.malformed = malformed


class StaleError(Exception):
    """A connection was closed before a byte of the request was written: the engine has not seen it."""


class ConnectionOwner(Protocol):
    """The pool that a connection goes back to."""

    def release(self, connection: UpstreamConnection) -> None: ...

    def forget(self, connection: UpstreamConnection) -> None: ...


class UpstreamResponse:
    """A response whose head has arrived; its body is taken whole, or relayed as it comes.

    :ivar complete: the body has arrived to its end
    :ivar until_eof: the body ends with the connection
    :ivar keep_alive: the connection may be used again after the body; never after a streamed one or an error
    :ivar sink: takes each part of the body in the moment it arrives; keeps it until somebody relays
    """

    __slots__ = (
        "_connection", "_end", "_failure", "_pending", "complete", "headers", "keep_alive", "sink", "status",
        "until_eof",
    )  # fmt: skip

    def __init__(
        self, connection: UpstreamConnection, status: int, headers: Headers, *, until_eof: bool = False
    ) -> None:
        self._connection = connection
        self._pending: list[bytes] = []
        self._end: asyncio.Future[None] | None = None
        self._failure: UpstreamError | None = None
        self.sink: Sink = self._pending.append
        self.status = status
        self.headers = headers
        self.complete = False
        self.until_eof = until_eof
        self.keep_alive = False

    def header(self, name: bytes) -> bytes | None:
        return first(self.headers, name)

    def take(self) -> bytes:
        """Return the part of the body that has arrived and was not taken before."""
        return _drain(self._pending)

    async def relay(self, sink: Sink) -> None:
        """Give each part of the body to `sink` in the moment it arrives; return at the end of the body.

        :raises UpstreamError: when the body breaks off
        """
        if self._pending:
            sink(self.take())

        if not self.complete and self._failure is None:
            self.sink = sink
            self._end = asyncio.get_running_loop().create_future()
            try:
                await self._end
            except asyncio.CancelledError:
                self.abort()
                raise
            finally:
                self.sink = self._pending.append
                self._end = None

        if self._failure is not None:
            raise self._failure

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body of a response that should be small.

        :raises UpstreamError: when it breaks off, or is larger
        """
        parts: list[bytes] = []
        size = 0

        def collect(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size <= limit_bytes:
                parts.append(data)
            else:
                self.abort("the response is too large")

        await self.relay(collect)
        return b"".join(parts)

    def pause(self) -> None:
        """Stop reading: the reader of this response cannot keep up."""
        if not self.complete:
            self._connection.pause()

    def resume(self) -> None:
        """Read on after `pause`."""
        if not self.complete:
            self._connection.resume()

    def abort(self, reason: str = "the request was cancelled") -> None:
        """Drop the connection unless all has come, which tells the engine to stop; a running `relay` raises."""
        if not self.complete:
            self._connection.fail(reason)

    def ended(self, failure: UpstreamError | None = None) -> None:
        """Called by the connection at the end of the body, whole or not."""
        # The first failure is the cause; losing the connection follows from it.
        self._failure = self._failure or failure
        if self._end is not None and not self._end.done():
            self._end.set_result(None)


class UpstreamConnection(asyncio.Protocol):
    """One connection to the engine: one exchange at a time."""

    def __init__(self, owner: ConnectionOwner, head_limit_bytes: int) -> None:
        self.idle_since = 0.0
        self._owner = owner
        self._head_limit_bytes = head_limit_bytes
        self._loop = asyncio.get_running_loop()
        # What one read brings of a body. The parser appends to this very list, without a call into Python.
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._poller = select.poll()
        self._state = _IDLE
        self._in_step = True
        self._reused = False
        self._reading_paused = False
        self._head_arrived: asyncio.Future[UpstreamResponse] | None = None
        self._head_bytes = 0
        self._headers: Headers = []
        self._response: UpstreamResponse | None = None

    async def exchange(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Send one request and wait for the head of its response.

        :raises StaleError: when the connection is found closed, or out of step, before anything is sent
        :raises UpstreamError: when it breaks in any other way
        """
        if self._state is _CLOSED or self._transport.is_closing():
            raise StaleError

        if self._reused and self._signalled():
            self._drop()
            raise StaleError

        self._state = _AWAITING_HEAD
        arrived: asyncio.Future[UpstreamResponse] = self._loop.create_future()
        self._head_arrived = arrived
        self._headers = []
        self._head_bytes = 0
        self._transport.writelines([head, body] if body else [head])
        try:
            return await arrived
        except asyncio.CancelledError:
            if arrived.done() and not arrived.cancelled() and arrived.exception() is None:
                arrived.result().abort()  # does nothing when all has come: the next exchange may have begun here
            else:
                self._drop()

            raise

    def pause(self) -> None:
        """Stop reading from the engine."""
        if not self._reading_paused and self._state is not _CLOSED:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._reading_paused and self._state is not _CLOSED:
            self._reading_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.close()

    def fail(self, reason: str, *, malformed: bool = False) -> None:
        """End the exchange with an error, and the connection with it."""
        self._drop()
        response = self._response
        if response is not None:
            if not response.complete:
                response.ended(UpstreamError(reason, "during_response", malformed=malformed))
        else:
            self._refuse_head(UpstreamError(reason, "before_response", malformed=malformed))

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._poller.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is not _BODY:
            if state is not _AWAITING_HEAD:
                # Bytes that nobody asked for: the engine is out of step with us.
                self._drop()
                return

            self._head_bytes += len(data)

        problem: str | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._in_step = False
            problem = f"the engine sent malformed HTTP: {error.__context__ or error}"

        response = self._response
        if response is None:
            if problem is None and self._head_bytes > self._head_limit_bytes:
                problem = "the engine sent a response head that is too large"
        else:
            if self._parts:
                response.sink(_drain(self._parts))

            if response.complete:
                self._finish(response)
                return

        if problem is not None:
            self.fail(problem, malformed=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.forget(self)
        response = self._response
        if response is not None and response.until_eof and exc is None and self._state is _BODY:
            self._state = _CLOSED
            response.complete = True
            response.ended()
        else:
            self.fail("the engine closed the connection")

    # Called by the parser; `on_body` is made in the constructor.

    def on_message_begin(self) -> None:
        if self._response is not None:
            # A second answer to one request; nothing that comes on this connection can be trusted any more.
            self._in_step = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if status == 101:
            raise ValueError("an upgrade that nobody asked for")

        if self._response is not None:
            raise ValueError("a second response")

        if status < 200:
            self._headers = []
            return

        limit = self._head_limit_bytes
        if self._head_bytes > limit and sum([len(n) + len(v) for n, v in headers]) > limit:
            raise ValueError("the head of the response is too large")

        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
            raise ValueError("an unknown transfer coding")

        until_eof = not codings and first(headers, b"content-length") is None and status not in (204, 304)
        self._response = UpstreamResponse(self, status, headers, until_eof=until_eof)
        self._state = _BODY
        if self._head_arrived is not None and not self._head_arrived.done():
            self._head_arrived.set_result(self._response)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None:
            return

        # Whatever its head says. llama-server ends a stream in a way that cpp-httplib takes for a cancellation: the
        # whole answer is written, and the connection closes a moment later. A request that is written before its end
        # arrives would fail, as it is not sent twice. After an error the engine may have left the body unread, and
        # would take it for the next request.
        kept = response.status < 400 and response.header(b"transfer-encoding") is None
        response.complete = True
        response.keep_alive = kept and self._parser.should_keep_alive()

    def _signalled(self) -> bool:
        """Return whether something has come on an idle connection, its end included, that the loop has not seen yet.

        Asked of the kernel in the moment of reuse. Once a request is written it is too late to know: an engine that
        closes then may have done what it was asked to.
        """
        return bool(self._poller.poll(0))

    # Transitions out of an exchange.

    def _finish(self, response: UpstreamResponse) -> None:
        self._state = _IDLE
        self._head_arrived = self._response = None
        response.ended()
        sent = self._transport.get_write_buffer_size() == 0
        if self._in_step and sent and response.keep_alive and not self._transport.is_closing():
            self._reused = True
            self._owner.release(self)
        else:
            self._state = _CLOSED
            self._transport.close()

    def _drop(self) -> None:
        self._state = _CLOSED
        self._transport.abort()

    def _refuse_head(self, error: Exception) -> None:
        if self._head_arrived is not None and not self._head_arrived.done():
            self._head_arrived.set_exception(error)


def _drain(parts: list[bytes]) -> bytes:
    """Return the parts as one, and empty the list."""
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    parts.clear()
    return data
