"""The answer to one client: an engine's, passed on as it comes; comments while it waits; or an error.

`ClientAnswer.written` says what the client has had, which decides what may follow a failure (`failure_policy.py`). The
path of a streamed chunk goes through `_pass_on`: once for each read from the engine, inside the event loop's callback,
so nothing here waits, and nothing is parsed but what comes before the first token.
"""

from __future__ import annotations

from time import monotonic

from orchestrator.adapters.http1 import Headers, Response, UpstreamError, UpstreamResponse
from orchestrator.gateway import forward
from orchestrator.gateway.errors import Family, GatewayError, render, sse_event
from orchestrator.gateway.failure_policy import Step, Written
from orchestrator.gateway.first_token import FirstToken, only_comments
from orchestrator.gateway.instances import InstanceTraffic
from orchestrator.gateway.requests.model_name import MAX_WHOLE_BYTES, StreamRenamer, rename_whole
from orchestrator.gateway.requests.stream_errors import error_status
from orchestrator.gateway.timings import BodyTail

_ERROR_BYTES = 256 * 1024
"""The most that is read of an engine's error body when it has to become an event."""

_COLON = ord(":")

_NOTHING, _COMMENTS, _EVENTS, _BODY = Written  # plain names: an attribute of an enum costs as much as a call

_SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ClientAnswer:
    """Writes one client's answer, over all attempts to get one from an engine.

    :param began: when the request arrived (monotonic)
    :ivar written: the part of an answer that the client has had
    :ivar first_token_s: from the request's arrival to the first token of a stream
    :ivar tail: the last bytes of the engine's answer
    :ivar error_status: of an error that the engine told after the client had been given a 200
    """

    __slots__ = (
        "_awaited_token", "_began", "_event_stream", "_family", "_part", "_progress_at", "_renamer", "_response",
        "_traffic", "error_status", "first_token_s", "tail", "written",
    )  # fmt: skip

    def __init__(self, response: Response, family: Family, began: float) -> None:
        self._response = response
        self._family = family
        self._began = began
        self._event_stream = False
        self._part = _BODY
        self._awaited_token: FirstToken | None = None
        self._progress_at = began
        self._traffic: InstanceTraffic | None = None
        self._renamer: StreamRenamer | None = None
        self.written = _NOTHING
        self.first_token_s: float | None = None
        self.error_status: int | None = None
        self.tail = BodyTail()

    def silent_s(self, now: float) -> float | None:
        """Return for how long a stream that has had a token has had nothing more; None where that is not so.

        A client that does not read makes no silent stream.
        """
        return None if self.first_token_s is None or self._response.backpressure else now - self._progress_at

    def comment(self, text: str) -> None:
        """Keep a waiting stream alive, and say what it waits for."""
        if self.written is _NOTHING:
            self._response.start(200, _SSE_HEADERS)
            self.written = _COMMENTS

        printable = "".join(char if char.isprintable() else " " for char in text)
        self._response.write(f": orch: {printable}\n\n".encode())

    def comment_between(self, text: str) -> None:
        """As `comment`, but only where the stream stands between two lines that the engine sent."""
        tail = self.tail.value()
        if not self._response.backpressure and (not tail or tail.endswith(b"\n")):
            self.comment(text)

    async def relay(
        self, upstream: UpstreamResponse, traffic: InstanceTraffic | None, model: str | None = None
    ) -> None:
        """Pass an engine's answer on, to its end.

        :param traffic: counts the bytes of the answer; None where they are no sign of life
        :param model: the name that the client asked for; None leaves the engine's
        :raises UpstreamError: when it breaks off
        :raises GatewayError: `engine_refused`, when the client was given a stream and the engine answers otherwise
        """
        response = self._response
        streams = forward.is_event_stream(upstream.headers)
        self._traffic = traffic if upstream.status == 200 or not upstream.complete else None
        self._awaited_token = FirstToken() if streams else None
        self._renamer = StreamRenamer(model) if streams and model else None
        whole = model if upstream.status == 200 and not streams and forward.is_json(upstream.headers) else None
        if self.written is _NOTHING:
            headers = forward.response_headers(upstream.headers)
            if whole is not None and not upstream.complete and 0 < _length(upstream) <= MAX_WHOLE_BYTES:
                await self._relay_renamed(upstream, headers, whole)
                return

            if upstream.complete:
                body = upstream.take()
                self._note(body)
                self._judge(upstream, streams)
                if whole is not None:
                    body = rename_whole(body, whole)

                response.send(upstream.status, headers, body)
                self.written = _BODY
                return

            length = upstream.header(b"content-length")
            response.start(upstream.status, headers, length=None if length is None else int(length))
            self.written = _COMMENTS if streams else _BODY
        elif upstream.status != 200 or not streams:
            # The client was given a 200 while it waited; what the engine says instead has to be an event.
            self.error_status = upstream.status if upstream.status >= 400 else None
            message = forward.error_message(await upstream.read(_ERROR_BYTES), upstream.status)
            raise GatewayError("engine_refused", message)

        self._event_stream = streams
        self._part = _EVENTS if streams else _BODY
        response.flow = upstream
        try:
            if response.backpressure:
                upstream.pause()

            await upstream.relay(self._pass_on)
        finally:
            response.flow = None
            if self._renamer is not None and (rest := self._renamer.rest()):
                response.write(rest)

        self._judge(upstream, streams)
        response.end()

    async def _relay_renamed(self, upstream: UpstreamResponse, headers: Headers, model: str) -> None:
        """Pass a whole answer on once all of it is there; one that breaks off is passed on as far as it came."""
        parts: list[bytes] = []
        try:
            await upstream.relay(parts.append)
        except UpstreamError:
            self._response.start(upstream.status, headers, length=_length(upstream))
            self.written = _BODY
            if parts:
                self._pass_on(b"".join(parts))

            raise

        body = b"".join(parts)
        self._note(body)
        self._response.send(upstream.status, headers, rename_whole(body, model))
        self.written = _BODY

    def end_cut_event(self) -> None:
        """End the event or the comment that the engine was cut in, so that the next one is not taken for its rest."""
        tail = self.tail.value()
        if tail and not tail.endswith((b"\n\n", b"\r\n\r\n")):
            self._response.write(b"\n\n")
            self.tail.add(b"\n\n")

    def fail(self, step: Step, error: GatewayError) -> None:
        """Tell the client of a failure, in the way that `failure_policy` has chosen."""
        response = self._response
        if step is Step.ANSWER_ERROR:
            response.send(*render(self._family, error))
        elif step is Step.END_STREAM:
            self.end_cut_event()
            response.write(sse_event(self._family, error))
            response.close_after()
            response.end()
        elif step is Step.CUT:
            response.abort()

    def _judge(self, upstream: UpstreamResponse, streams: bool) -> None:
        if streams and upstream.status == 200:
            self.error_status = error_status(self.tail.value(), self._family)

    def _pass_on(self, data: bytes) -> None:
        self._note(data)
        renamer = self._renamer
        if renamer is not None:
            data = renamer.feed(data)
            if renamer.done:
                self._renamer = None

            if not data:
                return

        self._response.write(data)

    def _note(self, data: bytes) -> None:
        if self._awaited_token is not None and self._awaited_token.within(data):
            self._awaited_token = None
            self.first_token_s = monotonic() - self._began

        # Upstream says `:` while it reads a long prompt, and goes on saying it when it has stopped reading.
        if not (self._event_stream and data[0] == _COLON and only_comments(data)):
            self.written = self._part
            self._progress_at = monotonic()
            if self._traffic is not None:
                self._traffic.relayed_bytes += len(data)

        self.tail.add(data)


def _length(upstream: UpstreamResponse) -> int:
    """Return the length that the engine has announced; 0 where it has not."""
    return int(upstream.header(b"content-length") or 0)
