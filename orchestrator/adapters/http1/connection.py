"""One client's connection: parse strictly, answer one request at a time, notice at once when the client is gone."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Set
from typing import cast

import httptools

from orchestrator.adapters.http1.exchange import Request, Response
from orchestrator.adapters.http1.vetting import RejectedRequest, refusal_body, vet
from orchestrator.adapters.http1.wire import STATUS_LINES, Headers, HttpLimits, encode_head
from orchestrator.adapters.process.hardening import peer_uid

Handler = Callable[[Request, Response], Awaitable[None]]

logger = logging.getLogger(__name__)

_REFUSAL_LOG_INTERVAL_S = 10.0
_WRITE_HIGH_WATER = 64 * 1024
_WRITE_LOW_WATER = 16 * 1024


class Hub:
    """What the connections of one server share.

    :param uids: users whose processes may connect, on a unix socket; None lets everybody
    """

    def __init__(self, handler: Handler, limits: HttpLimits, uids: Set[int] | None = None) -> None:
        self.handler = handler
        self.limits = limits
        self.uids = uids
        self.draining = False
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self._refused = 0
        self._refusal_logged_at = float("-inf")

    def lost(self, connection: Connection) -> None:
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


class Connection(asyncio.Protocol):
    """States: idle, head, body, answering, idle again; `ending` once only closing is left.

    `_ignores_input`: what still arrives is dropped. `_ending_at`: when the connection is cut if it has not ended by
    itself.

    :ivar heard: a request has come, or what was taken for one
    """

    def __init__(self, hub: Hub) -> None:
        self.heard = False
        self._hub = hub
        self._limits = hub.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer = "?"
        self._url = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._reading: Request | None = None
        self._waiting: deque[Request] = deque()
        self._answering: Request | None = None
        self._response: Response | None = None
        self._task: asyncio.Task[None] | None = None
        self._refusal: RejectedRequest | None = None
        self._ignores_input = False
        self._gone = False
        self._ending_at: float | None = None
        self._since = self._loop.time()
        self._paused_since: float | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else "a local client"
        self._hub.connections.add(self)
        if len(self._hub.connections) > self._limits.connections:
            self._transport.abort()
            return

        if self._hub.uids is not None and peer_uid(transport.get_extra_info("socket")) not in self._hub.uids:
            self._hub.log_refusal(self._peer, "it belongs to another user")
            self._transport.abort()
            return

        self._transport.set_write_buffer_limits(_WRITE_HIGH_WATER, _WRITE_LOW_WATER)

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return

        if self._reading is None:
            if not self._head_bytes:
                self._since = self._loop.time()

            self._head_bytes += len(data)

        try:
            self._parser.feed_data(data)
            if self._reading is None and self._head_bytes > self._limits.head_bytes:
                self._refusal = RejectedRequest(431, "the head of the request is too large")
        except httptools.HttpParserError as error:
            self._refusal = self._refusal or RejectedRequest(400, f"malformed HTTP: {error}")

        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._task is None and self._waiting:
            self._answer(self._waiting.popleft())

    def eof_received(self) -> None:
        # A client that has shut its side down is taken for gone: only so is a closed connection noticed while the
        # engine has nothing to say yet. The transport closes itself once what was written has left.
        self._end(within_s=self._limits.linger_s)
        if self._response is not None:
            self._response.lost()

        self.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._ignores_input = True
        self._waiting.clear()
        if self._response is not None:
            self._response.lost()

        if self._task is None:
            self._hub.lost(self)
        else:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._paused_since = self._loop.time()
        if self._response is not None:
            self._response.set_backpressure(True)

    def resume_writing(self) -> None:
        self._paused_since = None
        if self._response is not None:
            self._response.set_backpressure(False)

    # What the parser calls. An exception here stops it for good.

    def on_url(self, fragment: bytes) -> None:
        self._url += fragment
        if len(self._url) > self._limits.uri_bytes:
            raise self._stop(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        if len(self._headers) > self._limits.headers:
            raise self._stop(431, "the request has too many headers")

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        size = sum([len(name) + len(value) + 4 for name, value in headers])
        if size + len(self._url) > self._limits.head_bytes:
            raise self._stop(431, "the head of the request is too large")

        method, version = parser.get_method().decode(), parser.get_http_version()
        try:
            target, length = vet(method, self._url, version, headers, upgrade=parser.should_upgrade())
        except RejectedRequest as refusal:
            self._refusal = refusal
            raise

        if length > self._limits.body_bytes:
            raise self._stop(413, f"the body has {length} bytes, allowed {self._limits.body_bytes}")

        if len(self._waiting) > self._limits.pipelined:
            raise self._stop(429, "too many pipelined requests")

        # A client that speaks HTTP/1.0 reads to the end of the connection, whatever it may ask for.
        keep_alive = version == "1.1" and parser.should_keep_alive()
        self._reading = Request(
            method, target, version, headers, keep_alive=keep_alive, peer=self._peer, transport=self._transport
        )
        self._since = self._loop.time()
        self._waiting.append(self._reading)

    def on_body(self, data: bytes) -> None:
        assert self._reading is not None
        self._reading.feed(data)
        if self._reading.received_bytes > self._limits.body_bytes:
            raise self._stop(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def on_message_complete(self) -> None:
        assert self._reading is not None
        self._reading.finish()
        self._reading = None
        self._url = b""
        self._headers = []
        self._head_bytes = 0

    def _stop(self, status: int, reason: str) -> RejectedRequest:
        self._refusal = RejectedRequest(status, reason)
        return self._refusal

    # Answering.

    def _answer(self, request: Request) -> None:
        self.heard = True
        self._answering = request
        self._response = response = Response(request, self._transport)
        if self._hub.draining or (self._ignores_input and not self._waiting):
            response.close_after()

        if self._paused_since is not None:
            response.set_backpressure(True)

        self._task = self._loop.create_task(self._run(request, response))
        # Not a `finally` in the task: one that is cancelled before its first step never enters its `try`.
        self._task.add_done_callback(lambda _: self._answered(request, response))

    async def _run(self, request: Request, response: Response) -> None:
        try:
            await self._hub.handler(request, response)
        except asyncio.CancelledError:
            # From `cancel()`: the client is gone, its body was refused, or the server stops.
            if not response.ended and self._ending_at is None:
                response.abort()
        except Exception:
            logger.exception("a request handler failed")
            if response.started:
                response.abort()
            else:
                response.send(500, *refusal_body(RejectedRequest(500, "internal error")))

    def _answered(self, request: Request, response: Response) -> None:
        self._task = self._answering = None
        self._since = self._loop.time()
        if self._gone:
            self._hub.lost(self)
            return

        if self._ending_at is not None:
            return

        response.end()
        if not request.complete:
            self._begin_close()
        elif not response.keep_alive or self._hub.draining:
            self._close()
        elif self._waiting:
            self._answer(self._waiting.popleft())
        elif self._ignores_input:
            self._close()

    def _refuse(self, refusal: RejectedRequest) -> None:
        self._hub.log_refusal(self._peer, refusal.reason)
        self.heard = True
        self._ignores_input = True
        self._refusal = None
        # Complete requests ahead of the broken bytes keep their answers; the connection ends after the last of them.
        self._waiting = deque(request for request in self._waiting if request.complete)
        if self._task is None and self._waiting:
            self._answer(self._waiting.popleft())

        if self._task is not None and self._response is not None:
            if self._answering is not self._reading or self._response.started:
                return

            self._task.cancel()
            self._response.ended = True

        headers, body = refusal_body(refusal)
        framing = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._transport.write(encode_head(STATUS_LINES[refusal.status], [*headers, *framing]) + body)
        self._begin_close()

    # Ending.

    def close_if_idle(self) -> None:
        if self._task is None:
            self._close()
        elif self._response is not None:
            self._response.close_after()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def expire(self, now: float) -> None:
        """Cut what has taken too long: a farewell, a reader, a head, a body, or a client with nothing to say."""
        limits, waited_s = self._limits, now - self._since
        if self._ending_at is not None:
            if now > self._ending_at:
                self._transport.abort()
        elif self._paused_since is not None and now - self._paused_since > limits.write_timeout_s:
            self._transport.abort()
        elif self._reading is not None and not self._ignores_input:
            if waited_s > limits.body_timeout_s + self._reading.received_bytes / limits.body_rate:
                self._refuse(RejectedRequest(408, "the body of the request came too slowly"))
        elif self._task is None and self._head_bytes:
            if waited_s > limits.header_timeout_s:
                self._refuse(RejectedRequest(408, "the head of the request came too slowly"))
        elif self._task is None and waited_s > limits.idle_timeout_s:
            self._close()

    def _end(self, *, within_s: float) -> None:
        self._ignores_input = True
        if self._ending_at is None:
            self._ending_at = self._loop.time() + within_s

    def _close(self) -> None:
        self._end(within_s=self._limits.write_timeout_s)
        self._transport.close()

    def _begin_close(self) -> None:
        """End our side; what the client still sends is read away, or the reset would destroy our answer."""
        self._end(within_s=self._limits.linger_s)
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
