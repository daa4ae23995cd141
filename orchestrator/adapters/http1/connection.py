"""One client's connection: parse strictly, answer one request at a time, notice at once when the client is gone.

What is read and what becomes of the connection are two machines:

    IDLE --first byte--> HEAD --blank line--> BODY --last byte--> IDLE         (`InputState`)

    OPEN --broken input--> DRAINING --last answer--> CLOSING --> LOST          (`ConnectionState`)
      |                                                 ^          ^
      +--- last answer, half-close, silence, shutdown --+          |
      +--- the transport is gone, from any state ------------------+

A state is left in one method each: `_ignore_input`, `_begin_closing`, `connection_lost`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import cast

import httptools

from orchestrator.adapters.http1.connection_states import ConnectionState, InputState, RequestHead, ServedRequest
from orchestrator.adapters.http1.exchange import Request, Response
from orchestrator.adapters.http1.hub import Hub, no_room
from orchestrator.adapters.http1.vetting import RejectedRequest, refusal_body, vet, without_offer
from orchestrator.adapters.http1.wire import STATUS_LINES, encode_head
from orchestrator.adapters.process.hardening import peer_uid

logger = logging.getLogger(__name__)

_WRITE_HIGH_WATER = 4 << 20
_WRITE_LOW_WATER = _WRITE_HIGH_WATER - 256 * 1024
"""An engine has few threads, and one whose client does not read waits with its answer: most answers fit in here."""


# Plain names: an attribute of an enum costs as much as a call, and there are many for each request.
_OPEN, _DRAINING, _CLOSING, _LOST = ConnectionState
_IDLE, _HEAD, _BODY = InputState


class Connection(asyncio.Protocol):
    """The server's end of one client's connection.

    :ivar has_spoken: a request has come, or what was taken for one
    """

    def __init__(self, hub: Hub[Connection]) -> None:
        self.has_spoken = False
        self._hub = hub
        self._limits = hub.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer = "?"
        self._state = _OPEN
        self._closing_deadline = 0.0
        self._input = _IDLE
        self._head = RequestHead()
        self._arriving: Request | None = None
        self._pipelined: deque[Request] = deque()
        self._served: ServedRequest | None = None
        self._waiting_since = self._loop.time()
        self._backpressure_since: float | None = None
        self._unsent_bytes = 0
        self._authenticated = False

    @property
    def unsent_bytes(self) -> int:
        """What its client has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def claim(self) -> tuple[bool, bool, float]:
        """Its claim to stay: what is at work before what is not, then who has shown a key, then who spoke last."""
        return self.at_work, self._authenticated, self._waiting_since

    @property
    def at_work(self) -> bool:
        """A request is being answered, or its body arrives."""
        return self._served is not None or bool(self._pipelined)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else "a local client"
        self._hub.connections.add(self)
        if self._hub.uids is not None and peer_uid(transport.get_extra_info("socket")) not in self._hub.uids:
            self._hub.log_refusal(self._peer, "it belongs to another user")
            self._transport.abort()
            return

        if not self._hub.has_room_for(self):
            self._transport.abort()
            return

        self._transport.set_write_buffer_limits(_WRITE_HIGH_WATER, _WRITE_LOW_WATER)

    def data_received(self, data: bytes) -> None:
        if self._state is not _OPEN:
            return

        if self._input is _HEAD:
            self._head.received_bytes += len(data)
        elif self._input is _IDLE:
            self._input = _HEAD
            self._head.received_bytes = len(data)
            self._waiting_since = self._loop.time()

        refusal: RejectedRequest | None = None
        arriving = self._arriving
        body_bytes = arriving.received_bytes if arriving is not None else 0
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._parse_without_offer(data, offer.args[0])

            if arriving is not None and arriving is self._arriving:
                refusal = self._check_framing(len(data), arriving.received_bytes > body_bytes)
            elif self._head.received_bytes > self._limits.head_bytes and self._arriving is None:
                refusal = RejectedRequest(431, "the head of the request is too large")
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = cause if isinstance(cause, RejectedRequest) else RejectedRequest(400, f"malformed HTTP: {error}")

        if refusal is not None:
            self._refuse(refusal)
        elif self._served is None and self._pipelined:
            self._serve(self._pipelined.popleft())

    def _parse_without_offer(self, data: bytes, at: int) -> None:
        """Go on where the parser has stopped, behind a head whose client offers another protocol: it takes the rest for
        that. A new one reads the head without the offer, and with it where the body ends.
        """
        while True:
            head, old = self._head, self._parser
            self._head = RequestHead()
            self._head.received_bytes = head.received_bytes
            self._parser = httptools.HttpRequestParser(self)
            plain = without_offer(old.get_method(), head.url, old.get_http_version(), head.headers)
            data = data[at:]
            try:
                self._parser.feed_data(plain)
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:  # of another request behind it
                at = offer.args[0]

    def _check_framing(self, size: int, brought_body: bool) -> RejectedRequest | None:
        """Bound what comes between the bytes of a body: the parser gathers a trailer field until it ends."""
        head = self._head
        head.framing_bytes = 0 if brought_body else head.framing_bytes + size
        if head.framing_bytes <= self._limits.head_bytes:
            return None

        return RejectedRequest(431, "the trailer or a chunk's head is too large")

    def eof_received(self) -> None:
        # A client that has half-closed is taken for gone: only so is a closed connection noticed while the engine has
        # nothing to say yet. The transport closes itself once what was written has left.
        self._begin_closing(within_s=self._limits.linger_s)
        self._lose_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _LOST
        self._forget(self._pipelined)
        self._pipelined.clear()
        if self._served is None:
            self._hub.lost(self)
        else:
            self._lose_client()

    def pause_writing(self) -> None:
        self._backpressure_since = self._loop.time()
        if self._served is not None:
            self._served.response.set_backpressure(True)

    def resume_writing(self) -> None:
        self._backpressure_since = None
        if self._served is not None:
            self._served.response.set_backpressure(False)

    # Called by the parser. An exception here stops it for good.

    def on_url(self, fragment: bytes) -> None:
        head = self._head
        head.url += fragment
        if len(head.url) > self._limits.uri_bytes:
            raise RejectedRequest(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._arriving is not None:
            return  # a trailer: nobody checked it, and the head that the handler has must not change

        headers = self._head.headers
        headers.append((name.lower(), value))
        if len(headers) > self._limits.headers:
            raise RejectedRequest(431, "the request has too many headers")

    def on_headers_complete(self) -> None:
        parser, limits, url, headers = self._parser, self._limits, self._head.url, self._head.headers
        size = sum([len(name) + len(value) + 4 for name, value in headers])
        if size + len(url) > limits.head_bytes:
            raise RejectedRequest(431, "the head of the request is too large")

        method, version = parser.get_method().decode(), parser.get_http_version()
        upgrade = parser.should_upgrade()
        target, length = vet(method, url, version, headers, upgrade=upgrade)
        if length > limits.body_bytes:
            raise RejectedRequest(413, f"the body has {length} bytes, allowed {limits.body_bytes}")

        if length and not self._hub.bodies.fits(length):
            raise no_room(limits)

        if len(self._pipelined) > limits.pipelined:
            raise RejectedRequest(429, "too many pipelined requests")

        if upgrade:
            return  # the parser stops here, and `_parse_without_offer` begins

        # A client that speaks HTTP/1.0 reads to the end of the connection, whatever it may ask for.
        keep_alive = version == "1.1" and parser.should_keep_alive()
        self._arriving = Request(
            method, target, version, headers, keep_alive=keep_alive, peer=self._peer, transport=self._transport,
            bodies=self._hub.bodies, limit_bytes=limits.body_bytes,
        )  # fmt: skip
        self._input = _BODY
        self._waiting_since = self._loop.time()
        self._pipelined.append(self._arriving)

    def on_body(self, data: bytes) -> None:
        arriving = self._arriving
        assert arriving is not None
        before = arriving.received_bytes
        arriving.feed(data)
        fits = self._hub.bodies.grow(before, arriving.received_bytes)
        if arriving.received_bytes > self._limits.body_bytes:
            raise RejectedRequest(413, f"the body is larger than {self._limits.body_bytes} bytes")

        if not fits:
            raise no_room(self._limits)

    def on_message_complete(self) -> None:
        if self._arriving is None:
            return  # of a head with an offer, which is parsed again

        self._arriving.finish()
        self._arriving = None
        self._head = RequestHead()
        self._input = _IDLE

    # Answering.

    def _serve(self, request: Request) -> None:
        self.has_spoken = True
        response = Response(request, self._transport, self._hub.own_headers(request.headers))
        draining = self._state is not _OPEN
        if self._hub.draining or (draining and not self._pipelined):
            response.close_after()

        if self._backpressure_since is not None:
            response.set_backpressure(True)

        task = self._loop.create_task(self._run(request, response))
        self._served = ServedRequest(request, response, task)
        # Not a `finally` in the task: one that is cancelled before its first step never enters its `try`.
        task.add_done_callback(self._answered)

    async def _run(self, request: Request, response: Response) -> None:
        try:
            await self._hub.handler(request, response)
        except asyncio.CancelledError:
            # The client is gone, its body was refused, or the server stops.
            if not response.ended and self._state is not _CLOSING:
                response.abort()
        except Exception:
            logger.exception("a request handler failed")
            if response.started:
                response.abort()
            else:
                response.send(500, *refusal_body(RejectedRequest(500, "internal error")))

    def _answered(self, task: asyncio.Task[None]) -> None:
        served, self._served = self._served, None
        assert served is not None and served.task is task
        self._forget((served.request,))
        self._authenticated = self._authenticated or served.request.authenticated
        self._waiting_since = self._loop.time()
        if self._state is _LOST:
            self._hub.lost(self)
            return

        if self._state is _CLOSING:
            return

        served.response.end()
        if not served.request.complete:
            self._half_close()
        elif not served.response.keep_alive or self._hub.draining:
            self._close()
        elif self._pipelined:
            self._serve(self._pipelined.popleft())
        elif self._state is _DRAINING:
            self._close()

    def _refuse(self, refusal: RejectedRequest) -> None:
        self._hub.log_refusal(self._peer, refusal.reason)
        self.has_spoken = True
        self._ignore_input()
        # Complete requests ahead of the broken bytes keep their answers; the connection ends after the last of them.
        self._forget(request for request in self._pipelined if not request.complete)
        self._pipelined = deque(request for request in self._pipelined if request.complete)
        if self._served is None and self._pipelined:
            self._serve(self._pipelined.popleft())

        served = self._served
        if served is not None:
            if served.request is not self._arriving or served.response.started:
                return

            served.task.cancel()
            served.response.ended = True

        headers, body = refusal_body(refusal)
        own = self._hub.own_headers(self._head.headers) if served is None else served.response.own_headers
        framing = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._transport.write(encode_head(STATUS_LINES[refusal.status], [*headers, *own, *framing]) + body)
        self._half_close()

    def _lose_client(self) -> None:
        if self._served is not None:
            self._served.response.lost()
            self._served.task.cancel()

    def _forget(self, requests: Iterable[Request]) -> None:
        for request in requests:
            # Not left to the collector: the parser and its connection refer to each other.
            request.discard_body()
            self._hub.bodies.release(request.received_bytes)
            if request.decoded_bytes:
                self._hub.bodies.release(request.decoded_bytes)

    # Ending.

    def close_if_idle(self) -> None:
        """Close the connection now, or after the answer that is under way."""
        if self._served is None:
            self._close()
        else:
            self._served.response.close_after()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def expire(self, now: float) -> None:
        """Cut what has taken too long: an end, a reader, a body, a head, or a client with nothing to say."""
        limits, waited_s = self._limits, now - self._waiting_since
        unsent_before, self._unsent_bytes = self._unsent_bytes, self.unsent_bytes
        if self._state is _CLOSING:
            if 0 < self._unsent_bytes < unsent_before:  # it reads what it is owed
                self._closing_deadline = max(self._closing_deadline, now + limits.write_timeout_s)
            elif now > self._closing_deadline:
                self._transport.abort()
        elif self._backpressure_since is not None and now - self._backpressure_since > limits.write_timeout_s:
            self._transport.abort()
        elif self._state is not _OPEN:
            return  # what is owed is still answered
        elif self._arriving is not None:
            if waited_s > limits.body_timeout_s + self._arriving.received_bytes / limits.body_rate:
                self._refuse(RejectedRequest(408, "the body of the request came too slowly"))
        elif self._served is not None:
            return
        elif self._input is _HEAD:
            if waited_s > limits.header_timeout_s:
                self._refuse(RejectedRequest(408, "the head of the request came too slowly"))
        elif waited_s > limits.idle_timeout_s:
            self._close()

    def _ignore_input(self) -> None:
        if self._state is _OPEN:
            self._state = _DRAINING

    def _begin_closing(self, *, within_s: float) -> None:
        if self._state in (_OPEN, _DRAINING):
            self._state = _CLOSING
            self._closing_deadline = self._loop.time() + within_s

    def _close(self) -> None:
        self._begin_closing(within_s=self._limits.write_timeout_s)
        self._transport.close()

    def _half_close(self) -> None:
        """End our side; what the client still sends is read away, or the reset would destroy our answer."""
        self._begin_closing(within_s=self._limits.linger_s)
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
