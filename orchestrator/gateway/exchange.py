"""One request on its way to the engine and back: held, sent, relayed, accounted for.

Once a byte of an answer is out, the status is no longer ours to choose: a failure is then an event of the client's
dialect on a stream, and a cut on anything else. Never a `[DONE]` that the engine did not send. Until then the death of
an engine need not be the client's: the request is sent once more, to the next instance.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count

from orchestrator.adapters.http1 import Headers, Request, Response, UpstreamError, UpstreamResponse
from orchestrator.gateway import forward
from orchestrator.gateway.contract import Endpoint, Finished, Underway, View
from orchestrator.gateway.crash_suspects import RequestFingerprint
from orchestrator.gateway.dispatch import Dispatcher, refused
from orchestrator.gateway.errors import GatewayError, render, sse_event
from orchestrator.gateway.first_token import FirstToken
from orchestrator.gateway.models import profile_for
from orchestrator.gateway.routes import Match
from orchestrator.gateway.timings import BodyTail, figures

_ERROR_BYTES = 256 * 1024
"""What is read of an engine's error body when it has to become an event."""

_CAUSE_S = 1.0
"""How long an error waits for the daemon to name the cause of an engine's death."""

_CLIENT_GONE = 499
"""nginx's number for a client that left before its answer; on our books only."""

_WITHOUT_INFERENCE = frozenset(("/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"))
"""What an engine answers while its inference is dead: no sign of life."""

_IDS = count(1)

_SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Exchange:
    """Serves one request that the engine answers."""

    def __init__(self, dispatcher: Dispatcher, request: Request, response: Response, match: Match) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._response = response
        self._match = match
        self._task = asyncio.current_task()
        self._began = time.monotonic()  # the loop counts in milliseconds only
        self._id = next(_IDS)
        self._held_s = 0.0
        self._waits_since: float | None = None
        self._first_token = FirstToken()
        self._first_token_s: float | None = None
        self._profile: str | None = None
        self._endpoint: Endpoint | None = None
        self._upstream: UpstreamResponse | None = None
        self._stopping = False
        self._event_stream = False
        self._begun = False
        self._replays = 0
        self._computed = match.route.kind == "inference" and match.path not in _WITHOUT_INFERENCE
        self._tail = BodyTail()
        self._moved_at = 0.0
        self._failed = False

    async def run(self) -> None:
        """Serve it. Only cancellation, by the client's leaving, gets out of here."""
        self._dispatcher.begin(self)
        try:
            await self._serve()
        except GatewayError as error:
            self._fail(error)
        except asyncio.CancelledError:
            if not self._stopping or self._response.client_gone:
                raise

            self._fail(GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5))
        finally:
            self._dispatcher.end(self)
            if self._match.route.kind == "inference":
                self._dispatcher.ledger.finished(self._record())

    def stop(self) -> None:
        """End it now: the gateway stops."""
        self._stopping = True
        if self._upstream is not None:
            self._upstream.abort("the gateway is shutting down")
        elif self._task is not None:
            self._task.cancel()

    def still_s(self, instance: str, now: float) -> float | None:
        """How long a stream of an instance that has had a token has had nothing more; None where that is not so.

        A client that does not read is no stream that stands still.
        """
        streams = self._first_token_s is not None and self._upstream is not None and not self._response.paused
        if not streams or self._endpoint is None or self._endpoint.instance != instance:
            return None

        return now - self._moved_at

    def underway(self, now: float) -> Underway | None:
        """How it stands; None for what is not for the books: an engine's own pages."""
        if self._match.route.kind != "inference":
            return None

        waited_s = now - self._waits_since if self._waits_since is not None else 0.0
        endpoint = self._endpoint
        return Underway(
            id=self._id,
            route=self._match.path,
            waits=self._waits_since is not None,
            held_s=self._held_s + waited_s,
            first_token_s=self._first_token_s,
            started=self._began,
            profile=endpoint.profile if endpoint else self._profile,
            engine=endpoint.engine if endpoint else None,
            build=endpoint.build if endpoint else None,
            instance=endpoint.instance if endpoint else None,
        )

    async def _serve(self) -> None:
        match, dispatcher = self._match, self._dispatcher
        body = await self._request.body()
        name, wants_stream = forward.peek(body) if body and match.route.json_body else (None, False)
        view = dispatcher.supervisor.view()
        profile = self._profile = profile_for(match.model or name, view.models)
        if match.route.kind == "monitor" and view.serving is None:
            raise refused(view, profile)

        progress = self._comment if wants_stream and match.route.streams else None
        fingerprint = RequestFingerprint(self._request, match.path, body) if self._computed else None
        arrived = None
        try:
            while True:
                waited_from = self._waits_since = time.monotonic()
                endpoint = await dispatcher.admit(profile, progress, fingerprint, arrived)
                self._waits_since = None
                self._held_s += time.monotonic() - waited_from
                failure = await self._attempt(endpoint, body, fingerprint)
                if failure is None:
                    return

                await self._recover(failure, endpoint, body, fingerprint)
                arrived = self._began
        finally:
            if fingerprint is not None:
                dispatcher.crash_suspects.left(fingerprint)

    async def _attempt(
        self, endpoint: Endpoint, body: bytes, fingerprint: RequestFingerprint | None
    ) -> UpstreamError | None:
        """Send it once.

        :return: None when it was answered
        """
        dispatcher, response = self._dispatcher, self._response
        self._endpoint = endpoint
        self._first_token = FirstToken()
        try:
            await self._relay(await self._send(endpoint, body))
        except UpstreamError as failure:
            return failure
        finally:
            self._upstream = response.flow = None
            dispatcher.leave(endpoint.instance)
            if fingerprint is not None:
                dispatcher.crash_suspects.left(fingerprint)

        if fingerprint is not None and response.status == 200:
            dispatcher.crash_suspects.answered(fingerprint)

        return None

    async def _recover(
        self, failure: UpstreamError, endpoint: Endpoint, body: bytes, fingerprint: RequestFingerprint | None
    ) -> None:
        """Return when it is to be sent again, to another instance: at most once, unless it never got to the engine.

        :raises GatewayError: when it is not
        """
        dispatcher = self._dispatcher
        crash_suspects, config = dispatcher.crash_suspects, dispatcher.config
        unsent = failure.stage == "connect"
        if self._stopping or failure.malformed or (fingerprint is None and not unsent):
            raise await self._explained(failure, endpoint)

        if fingerprint is not None and not unsent:
            crash_suspects.lost(endpoint.instance, fingerprint)

        if not await dispatcher.moved_on(endpoint, config.recover_s):
            crash_suspects.spared(endpoint.instance)
            raise await self._explained(failure, endpoint)

        if fingerprint is None or unsent:
            return

        error = await self._explained(failure, endpoint)
        now = time.monotonic()
        crash_suspects.attribute(dispatcher.supervisor.view().fallen, now)
        crash_suspects.check(fingerprint, now, error.message)
        if self._begun:
            raise error

        if self._replays:
            text = "two engines died while they answered this request and others"
            raise GatewayError("not_replayed", f"{text}: {error.message}", retry_after_s=5)

        if len(body) > config.replay_bytes:
            text = f"a request of more than {config.replay_bytes >> 20} MiB is not sent again"
            raise GatewayError("not_replayed", f"{error.message}; {text}", retry_after_s=5)

        self._replays += 1

    async def _send(self, endpoint: Endpoint, body: bytes) -> UpstreamResponse:
        request, match = self._request, self._match
        target = f"{match.path}?{request.query}" if request.query else match.path
        headers = forward.request_headers(request.headers, endpoint.api_key)
        return await self._dispatcher.pool(endpoint).request(request.method, target, headers, body)

    async def _relay(self, upstream: UpstreamResponse) -> None:
        self._upstream = upstream
        try:
            await self._pass_back(upstream)
        finally:
            upstream.abort()

    async def _pass_back(self, upstream: UpstreamResponse) -> None:
        response = self._response
        streams = forward.is_event_stream(upstream.headers)
        if response.started and not (upstream.status == 200 and streams):
            # The client was given a 200 while it waited; what the engine says instead has to be an event.
            message = forward.error_message(await upstream.read(_ERROR_BYTES), upstream.status)
            raise GatewayError("engine_refused", message)

        if not response.started:
            headers = forward.response_headers(upstream.headers)
            if upstream.complete:
                body = upstream.take()
                self._look_for_token(body, streams=streams)
                self._tail.add(body)
                if upstream.status == 200:
                    self._count(body)

                response.send(upstream.status, headers, body)
                return

            self._event_stream = streams
            self._begun = not streams
            length = upstream.header(b"content-length")
            response.start(upstream.status, headers, length=None if length is None else int(length))

        response.flow = upstream
        if response.paused:
            upstream.pause()

        await upstream.relay(self._pass_on)
        response.end()

    def _pass_on(self, data: bytes) -> None:
        # Runs once for each read from the engine, inside the event loop's callback: nothing here waits, and nothing is
        # parsed but what comes before the first token.
        if self._first_token_s is None:
            self._look_for_token(data, streams=self._event_stream)

        # Upstream says `:` while it reads a long prompt, and goes on saying it when it has stopped reading.
        if not (self._event_stream and data.startswith(b":")):
            self._begun = True
            self._moved_at = time.monotonic()
            self._count(data)

        self._tail.add(data)
        self._response.write(data)

    def _look_for_token(self, data: bytes, *, streams: bool) -> None:
        if streams and self._first_token.within(data):
            self._first_token_s = time.monotonic() - self._began

    def _count(self, data: bytes) -> None:
        if self._computed and self._endpoint is not None:
            relayed, instance = self._dispatcher.relayed_bytes, self._endpoint.instance
            relayed[instance] = relayed.get(instance, 0) + len(data)

    def _comment(self, view: View) -> None:
        """Keep a waiting stream alive, and say what it waits for."""
        if not self._response.started:
            self._response.start(200, _SSE_HEADERS)
            self._event_stream = True

        text = "".join(char if char.isprintable() else " " for char in view.progress)
        self._response.write(f": orch: {text}\n\n".encode())

    async def _explained(self, failure: UpstreamError, endpoint: Endpoint) -> GatewayError:
        if self._stopping:
            return GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5)

        if failure.malformed:
            return GatewayError("engine_protocol", failure.message, retry_after_s=5)

        message = failure.message
        if await self._dispatcher.moved_on(endpoint, _CAUSE_S):
            view = self._dispatcher.supervisor.view()
            if view.refusal is not None:
                message = f"{message}: {view.refusal.message}"
            elif view.serving is None:
                message = f"{message}; {view.progress}"

        code = "engine_unreachable" if failure.stage == "connect" else "engine_died"
        return GatewayError(code, message, retry_after_s=5)

    def _fail(self, error: GatewayError) -> None:
        self._failed = True
        response, family = self._response, self._match.route.family
        if not response.started:
            if not self._dispatcher.accepting:
                response.close_after()

            response.send(*render(family, error))
        elif self._event_stream:
            tail = self._tail.value()
            if tail and not tail.endswith((b"\n\n", b"\r\n\r\n")):
                response.write(b"\n\n")

            response.write(sse_event(family, error))
            response.close_after()
            response.end()
        else:
            response.abort()

    def _record(self) -> Finished:
        response = self._response
        outcome, status = "complete", response.status
        if response.client_gone:
            outcome, status = "client_gone", response.status or _CLIENT_GONE
        elif self._failed or status >= 400:
            outcome = "error"

        found = figures(self._tail.value())
        endpoint = self._endpoint
        return Finished(
            instance=endpoint.instance if endpoint else None,
            route=self._match.path,
            status=status,
            outcome=outcome,
            held_s=self._held_s,
            first_token_s=self._first_token_s,
            total_s=time.monotonic() - self._began,
            prompt_tokens=found.prompt_tokens,
            prompt_ms=found.prompt_ms,
            predicted_tokens=found.predicted_tokens,
            predicted_ms=found.predicted_ms,
            draft_tokens=found.draft_tokens,
            draft_accepted=found.draft_accepted,
            replays=self._replays,
            started=self._began,
            id=self._id,
            profile=endpoint.profile if endpoint else self._profile,
            engine=endpoint.engine if endpoint else None,
            build=endpoint.build if endpoint else None,
            depth_tokens=found.depth_tokens,
        )
