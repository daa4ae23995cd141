"""One request and its response on a server connection, as a handler sees them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from orchestrator.adapters.http1.body_budget import BodyBudget
from orchestrator.adapters.http1.content_codings import content_coding, decode
from orchestrator.adapters.http1.wire import STATUS_LINES, DateHeader, Headers, encode_head, first

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_DATE = DateHeader()
_SMALL_BYTES = 4096
_JOINED_BYTES = 64 * 1024
"""Parts of a body under the one are joined to parts of the other."""


class Flow(Protocol):
    """Whatever produces a response body and can be told to wait while the client reads."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Request:
    """A parsed request: its head is complete, its body may still be arriving.

    :ivar target: the request target as it came, without scheme and authority
    :ivar path: the target up to the question mark, percent-encoding untouched
    :ivar query: what follows the question mark, untouched
    :ivar headers: names in lower case, in order
    :ivar authenticated: it has shown a key, says the handler
    :ivar decoded_bytes: of its body without a content coding, as far as that was undone
    :ivar peer: where the client is, for the log
    """

    __slots__ = (
        "_bodies", "_chunks", "_continue", "_limit_bytes", "_small", "_transport", "_waiter", "authenticated",
        "complete", "decoded_bytes", "headers", "keep_alive", "method", "path", "peer", "query", "received_bytes",
        "target", "version",
    )  # fmt: skip

    def __init__(
        self, method: str, target: str, version: str, headers: Headers, *, keep_alive: bool, peer: str,
        transport: asyncio.Transport, bodies: BodyBudget | None = None, limit_bytes: int = 64 << 20,
    ) -> None:  # fmt: skip
        self._bodies = bodies
        self._limit_bytes = limit_bytes
        self.decoded_bytes = 0
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.version = version
        self.headers = headers
        self.keep_alive = keep_alive
        self.peer = peer
        self.authenticated = False
        self.complete = False
        self.received_bytes = 0
        self._chunks: list[bytes] = []
        self._small = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._transport = transport
        self._continue = version == "1.1" and (first(headers, b"expect") or b"").lower() == b"100-continue"

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header; `name` in lower case."""
        return first(self.headers, name)

    async def body(self) -> bytes:
        """Return the whole body. One over the server's cap, or too slow, never gets here: the server answers that."""
        if not self.complete:
            if self._continue and not self.received_bytes:
                self._transport.write(_CONTINUE)

            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

        if self._small:
            self._chunks.append(bytes(self._small))
            self._small = bytearray()

        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]

        return self._chunks[0] if self._chunks else b""

    async def content(self) -> bytes:
        """Return the whole body, without its content coding. To be asked once: what was compressed is given up.

        :raises ContentError: when the coding is not known, the data broken, or what comes out of it too much
        """
        body = await self.body()
        coding = content_coding(self.headers)
        if coding is None:
            return body

        self.discard_body()
        return await decode(body, coding, self._limit_bytes, self._grow_decoded)

    def _grow_decoded(self, size: int) -> bool:
        before, self.decoded_bytes = self.decoded_bytes, self.decoded_bytes + size
        return self._bodies is None or self._bodies.grow(before, self.decoded_bytes)

    def feed(self, data: bytes) -> None:
        """Take a part of the body. Small ones are joined as they come: an object of its own costs 33 bytes and more."""
        self.received_bytes += len(data)
        small = self._small
        if not small and (len(data) >= _SMALL_BYTES or not self._chunks):
            self._chunks.append(data)
            return

        small += data
        if len(small) >= _JOINED_BYTES:
            self._chunks.append(bytes(small))
            small.clear()

    def discard_body(self) -> None:
        """Free what has arrived of the body: nobody reads it any more."""
        self._chunks.clear()
        self._small = bytearray()

    def finish(self) -> None:
        self.complete = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Response:
    """Writes one response. Nothing here blocks; writes after the client is gone are dropped.

    :ivar client_gone: the client left before the end of its answer; the handler's task has been cancelled
    :ivar backpressure: the client's buffer is full
    :ivar flow: told to pause and resume as the client's buffer fills and drains
    :ivar own_headers: fields of every head, whatever is answered
    """

    __slots__ = (
        "_chunked", "_drained", "_head_only", "_keep_alive", "_length", "_request", "_transport", "backpressure",
        "client_gone", "ended", "flow", "own_headers", "started", "status",
    )  # fmt: skip

    def __init__(self, request: Request, transport: asyncio.Transport, own_headers: Headers) -> None:
        self.own_headers = own_headers
        self._request = request
        self._transport = transport
        self._chunked = False
        self._head_only = request.method == "HEAD"
        self._length: int | None = None
        self._keep_alive = request.keep_alive
        self._drained: asyncio.Future[None] | None = None
        self.backpressure = False
        self.started = False
        self.ended = False
        self.client_gone = False
        self.status = 0
        self.flow: Flow | None = None

    @property
    def keep_alive(self) -> bool:
        """True when another request may follow on this connection."""
        return self._keep_alive

    def close_after(self) -> None:
        """End the connection with this response; said to the client if the head is still to be written."""
        self._keep_alive = False

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Write the head. Without a length the body is chunked, and to an HTTP/1.0 client it ends with the connection.

        :param headers: without framing fields; those are added here
        :raises ValueError: when a header holds CR, LF or NUL
        """
        self._write(self._head(status, headers, length))

    def write(self, data: bytes) -> None:
        """Write a part of the body. A producer that can wait should set `flow` or await `drain()`."""
        if self._head_only or not data:
            return

        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._length is not None:
            self._length -= len(data)

        if not self._transport.is_closing():  # `_write`, without a call for each chunk
            self._transport.write(data)

    def end(self) -> None:
        """End the body. A body shorter than announced is cut, so that the client sees it."""
        if self.ended:
            return

        if self._length and not self._head_only:
            self.abort()
            return

        self.ended = True
        if self._chunked and not self._head_only:
            self._write(_LAST_CHUNK)

    def send(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Write a whole response at once."""
        head = self._head(status, headers, len(body))
        self.ended = True
        self._write(head if self._head_only else head + body)

    def abort(self) -> None:
        """Drop the connection without ending the body: the only honest end of a response that broke."""
        self.ended = True
        self._keep_alive = False
        self._transport.abort()

    async def drain(self) -> None:
        """Wait until the client has read most of what was written."""
        if self.backpressure and not self.client_gone:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def set_backpressure(self, full: bool) -> None:
        """Called by the connection when the client's buffer is full, and when it has drained."""
        self.backpressure = full
        if self.flow is not None:
            if full:
                self.flow.pause()
            else:
                self.flow.resume()

        if not full and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def lost(self) -> None:
        """Called by the connection when the client is gone; one that has its whole answer may go."""
        if not self.ended:
            self.client_gone = self.ended = True

        self.set_backpressure(False)

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        if self.started:
            raise RuntimeError("the response has been started before")

        lines = [*headers, *self.own_headers, (b"date", _DATE.value())]
        if status == 204 or status == 304:
            self._head_only = True
        elif length is not None:
            self._length = length
            lines.append((b"content-length", b"%d" % length))
        elif self._request.version == "1.1":
            self._chunked = True
            lines.append((b"transfer-encoding", b"chunked"))
        else:
            self._keep_alive = False

        if not self._request.complete:
            # What is left of the request body would be read as the next request.
            self._keep_alive = False

        if not self._keep_alive:
            lines.append((b"connection", b"close"))

        head = encode_head(STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status, lines)
        self.started = True
        self.status = status
        return head

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
