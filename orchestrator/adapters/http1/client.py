"""The client end of one connection to an engine: a response is relayed without a task switch per chunk.

Responses are parsed as strictly as requests: an engine that breaks the framing costs an error or a visible cut, never a
wrong answer, and its connection is not used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol, cast

import httptools

from orchestrator.adapters.http1.wire import Headers, first
from orchestrator.core.errors import OrchError

Stage = Literal["connect", "before_response", "during_response"]

Sink = Callable[[bytes], None]


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
    """A reused connection was closed before the first byte of a response."""


class ConnectionOwner(Protocol):
    """Who is told what becomes of a connection."""

    def release(self, connection: UpstreamConnection) -> None: ...

    def forget(self, connection: UpstreamConnection) -> None: ...


class UpstreamResponse:
    """A response whose head has arrived; its body is taken whole, or relayed as it comes.

    :ivar complete: the body has arrived to its end
    """

    def __init__(self, connection: UpstreamConnection, status: int, headers: Headers) -> None:
        self._connection = connection
        self._parts: list[bytes] = []
        self._sink: Sink | None = None
        self._end: asyncio.Future[None] | None = None
        self._failure: UpstreamError | None = None
        self.status = status
        self.headers = headers
        self.complete = False

    def header(self, name: bytes) -> bytes | None:
        return first(self.headers, name)

    def take(self) -> bytes:
        """What has arrived of the body and was not taken before."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        return data

    async def relay(self, sink: Sink) -> None:
        """Give each part of the body to `sink` in the moment it arrives; returns at the end of the body.

        :raises UpstreamError: when the body breaks off
        """
        if self._parts:
            sink(self.take())

        if not self.complete and self._failure is None:
            self._sink = sink
            self._end = asyncio.get_running_loop().create_future()
            try:
                await self._end
            except asyncio.CancelledError:
                self.abort()
                raise
            finally:
                self._sink = self._end = None

        if self._failure is not None:
            raise self._failure

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body, of a response that should be small.

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
        if not self.complete:
            self._connection.resume()

    def abort(self, reason: str = "the request was cancelled") -> None:
        """Drop the connection unless all has come, which tells the engine to stop; a running `relay` raises."""
        if not self.complete:
            self._connection.fail(reason)

    # What the connection calls.

    def feed(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None:
        """Hand over what one read has brought, as one part."""
        if self._sink is not None and self._parts:
            self._sink(self.take())

    def ended(self, failure: UpstreamError | None = None) -> None:
        # The first failure is the cause; losing the connection follows from it.
        self._failure = self._failure or failure
        if self._end is not None and not self._end.done():
            self._end.set_result(None)


class UpstreamConnection(asyncio.Protocol):
    """One connection to the engine: one exchange at a time."""

    def __init__(self, keeper: ConnectionOwner, head_bytes: int) -> None:
        self._keeper = keeper
        self._head_limit = head_bytes
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._reused = False
        self._lost = False
        self._paused = False
        self._answered = False
        self._until_eof = False
        self._keep_alive = False
        self._in_step = True
        self._head: asyncio.Future[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._headers: Headers = []
        self._head_bytes = 0
        self.idle_since = 0.0

    async def exchange(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Send one request and wait for the head of its response.

        :raises StaleError: when the connection was used before and is closed without a byte of a response
        :raises UpstreamError: when it breaks in any other way
        """
        if self._lost or self._transport.is_closing():
            raise StaleError

        head_arrived: asyncio.Future[UpstreamResponse] = self._loop.create_future()
        self._head = head_arrived
        self._response = None
        self._headers = []
        self._head_bytes = 0
        self._answered = self._until_eof = False
        self._transport.writelines([head, body] if body else [head])
        try:
            return await head_arrived
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        finally:
            # By now the next exchange may have begun on this connection.
            if self._head is head_arrived:
                self._head = None

    def pause(self) -> None:
        if not self._paused and not self._lost:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._lost:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def fail(self, reason: str, *, malformed: bool = False) -> None:
        """End the exchange with an error, and the connection with it."""
        self._transport.abort()
        response = self._response
        if response is None:
            if self._head is not None and not self._head.done():
                self._head.set_exception(UpstreamError(reason, "before_response", malformed=malformed))
        elif not response.complete:
            response.ended(UpstreamError(reason, "during_response", malformed=malformed))

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._head is None and (self._response is None or self._response.complete):
            # Bytes that nobody asked for: the engine is out of step with us.
            self._transport.abort()
            return

        self._answered = True
        if self._response is None:
            self._head_bytes += len(data)

        problem: str | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._in_step = False
            problem = f"the engine sent malformed HTTP: {error.__context__ or error}"

        response = self._response
        if response is None:
            if problem is None and self._head_bytes > self._head_limit:
                problem = "the engine sent a response head that is too large"
        else:
            response.flush()
            if response.complete:
                self._finish(response)
                return

        if problem is not None:
            self.fail(problem, malformed=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._keeper.forget(self)
        response = self._response
        if self._until_eof and exc is None and response is not None and not response.complete:
            response.complete = True
            response.ended()
        elif response is None and self._reused and not self._answered:
            if self._head is not None and not self._head.done():
                self._head.set_exception(StaleError())
        else:
            self.fail("the engine closed the connection")

    # What the parser calls.

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

        if self._head_bytes > self._head_limit and sum([len(n) + len(v) for n, v in headers]) > self._head_limit:
            raise ValueError("the head of the response is too large")

        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
            raise ValueError("an unknown transfer coding")

        self._until_eof = not codings and first(headers, b"content-length") is None and status not in (204, 304)
        self._response = UpstreamResponse(self, status, headers)
        if self._head is not None and not self._head.done():
            self._head.set_result(self._response)

    def on_body(self, data: bytes) -> None:
        if self._response is not None:
            self._response.feed(data)

    def on_message_complete(self) -> None:
        if self._response is not None:
            self._response.complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _finish(self, response: UpstreamResponse) -> None:
        self._head = None
        response.ended()
        sent = self._transport.get_write_buffer_size() == 0
        if self._in_step and sent and self._keep_alive and not self._transport.is_closing():
            self._reused = True
            self._keeper.release(self)
        else:
            self._transport.close()
