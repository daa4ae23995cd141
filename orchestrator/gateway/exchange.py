"""One request on its way to an engine and back: its phases, its attempts, and the account of it.

`phases.py` draws the phases, `failure_policy.py` says what follows a failure, `answer.py` writes to the client.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

from orchestrator.adapters.http1 import Request, Response, UpstreamError
from orchestrator.gateway import forward
from orchestrator.gateway.admission import Admission, shutting_down
from orchestrator.gateway.answer import ClientAnswer
from orchestrator.gateway.contract import Endpoint, Finished, RequestState, Underway
from orchestrator.gateway.crash_suspects import RequestFingerprint
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.failure_policy import MAX_REPLAYS, Consequence, FailureKind, Step, Written, after_failure
from orchestrator.gateway.phases import (
    ANSWERED,
    AWAITING_HEAD,
    FAILED,
    NEXT,
    READING_BODY,
    RECOVERING,
    AwaitingHead,
    Phase,
    Queued,
    ReadingBody,
    Recovering,
    Relaying,
)
from orchestrator.gateway.request_guard import read_body
from orchestrator.gateway.requests.ids import REQUEST_ID, id_of
from orchestrator.gateway.routes import Match
from orchestrator.gateway.timings import EngineFigures, figures

_CAUSE_S = 1.0
"""The time that an error waits for the daemon to name the cause of an engine's death."""

_CLIENT_GONE = 499
"""nginx's number for a client that left before its answer; on our books only."""

_FIGURES = tuple(field.name for field in fields(EngineFigures))

_IDS = count(1)

_NOT_SUPPORTED = 501


class _GivenUpError(UpstreamError):
    """The engine answered with an error, and the daemon turns away from it: it answers nothing else any more.

    :param in_flight: the requests that were with it then
    """

    def __init__(self, status: int, in_flight: int) -> None:
        super().__init__(f"the engine answered {status}, as it does always", "during_response")
        self.in_flight = in_flight


_STATES: dict[type[Phase], RequestState] = {
    ReadingBody: "receiving", Queued: "held", AwaitingHead: "sent", Recovering: "recovering"
}  # fmt: skip


class Exchange:
    """Serves one request that the engine answers.

    :param client: the name of the key that it came with
    """

    def __init__(
        self, dispatcher: Dispatcher, request: Request, response: Response, match: Match, client: str | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._name = id_of(response.own_headers)
        self._client = client
        self._request = request
        self._response = response
        self._match = match
        self._task = asyncio.current_task()
        self._id = next(_IDS)
        self._began = monotonic()  # the loop counts in milliseconds only
        self._answer = ClientAnswer(response, match.route.family, self._began)
        self._phase: Phase = READING_BODY
        self._since = self._began
        self._ended_by: FailureKind | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._model: str | None = None
        self._profile: str | None = None
        self._endpoint: Endpoint | None = None
        self._held_s = 0.0
        self._replays = 0
        self._lost_at: set[str] = set()

    async def run(self) -> None:
        """Serve it. Only cancellation, by the client's leaving, gets out of here."""
        self._dispatcher.begin(self)
        try:
            await self._serve()
            self._enter(ANSWERED)
        except GatewayError as error:
            self._fail(FailureKind.REFUSED, error)
        except asyncio.CancelledError:
            kind = self._ended_by
            if self._response.client_gone or kind is None:
                self._fail(FailureKind.CLIENT_LEFT, shutting_down())
                raise

            self._fail(kind, cancelled() if kind is FailureKind.CANCELLED else shutting_down())
        finally:
            if self._silence is not None:
                self._silence.cancel()

            self._dispatcher.end(self)
            if self._match.route.kind == "inference":
                self._dispatcher.ledger.finished(self._record())

    def stop(self) -> None:
        """End it now: the gateway stops."""
        self._end(FailureKind.SHUTDOWN, "the gateway is shutting down")

    def cancel(self) -> None:
        """End it now: somebody has asked for that. Its client is told so, and its engine stops working for it."""
        self._end(FailureKind.CANCELLED, "the request was cancelled")

    def _end(self, kind: FailureKind, reason: str) -> None:
        self._ended_by = self._ended_by or kind
        if isinstance(self._phase, Relaying):
            self._phase.upstream.abort(reason)
        elif self._task is not None:
            self._task.cancel()

    def silent_s(self, instance: str, now: float) -> float | None:
        """Return for how long a stream of an instance that has had a token has had nothing more, if it is one."""
        if not isinstance(self._phase, Relaying) or self._endpoint is None or self._endpoint.instance != instance:
            return None

        return self._answer.silent_s(now)

    def underway(self, now: float) -> Underway | None:
        """Return how it stands; None for what is not for the books: an engine's own pages."""
        if self._match.route.kind != "inference":
            return None

        phase = self._phase
        held_s = self._held_s + (now - phase.since if isinstance(phase, Queued) else 0.0)
        outcome = "held" if isinstance(phase, Queued) else "running"
        answering = isinstance(phase, Relaying) and self._answer.written in (Written.EVENTS, Written.BODY)
        return Underway(
            **self._facts(now),
            outcome=outcome,
            held_s=held_s,
            model=self._model,
            state="answering" if answering else _STATES.get(type(phase), "sent"),
            since=self._since,
        )

    def _enter(self, phase: Phase) -> None:
        """Go on to the next phase: the one place where it changes."""
        before = self._phase
        assert type(phase) in NEXT[type(before)], (before, phase)
        self._since = monotonic()
        if isinstance(before, Queued) and phase is AWAITING_HEAD:
            self._held_s += self._since - before.since

        self._phase = phase

    async def _serve(self) -> None:
        match, dispatcher = self._match, self._dispatcher
        body = await read_body(self._request)
        monitor = match.route.kind == "monitor"
        name, wants_stream = (None, False) if monitor else _asked_for(self._request, match, body)
        self._model = match.model or name
        profile = self._profile = await dispatcher.profile_for(self._model)
        if "autoload=" in self._request.query and not monitor:
            self._check_autoload(profile)

        if match.route.computes and match.route.json_body:
            body = dispatcher.body_for(self._model, body)

        progress = self._answer.comment if wants_stream and match.route.streams else None
        if progress is not None:
            self._silence = asyncio.get_running_loop().call_later(dispatcher.config.silence_s, self._break_silence)

        fingerprint = RequestFingerprint(self._request, match.path, body) if match.route.computes else None
        arrived = None
        while True:
            self._enter(Queued(monotonic()))
            async with dispatcher.admitted(profile, progress, fingerprint, arrived, may_wait=not monitor) as admission:
                failure = await self._attempt(admission, body)

            if failure is None:
                break

            self._enter(RECOVERING)
            await self._recover(failure, admission.endpoint, body, fingerprint)
            arrived = self._began

        if fingerprint is not None and self._response.status == 200:
            if self._answer.error_status is None:
                dispatcher.crash_suspects.answered(fingerprint, admission.endpoint.runs)
            elif _engine_failed(self._answer.error_status):
                # Its client has it, and nothing waits here for what becomes of the engine.
                dispatcher.crash_suspects.lost(admission.endpoint, fingerprint, admission.traffic.in_flight + 1)

    def _check_autoload(self, profile: str | None) -> None:
        """As llama-server's router has it: with `autoload=false` a request has nothing loaded.

        :raises GatewayError: `model_not_loaded`
        """
        asked = parse_qs(self._request.query, errors="replace").get("autoload", [""])[-1]
        if asked in ("false", "0") and not self._dispatcher.supervisor.view().serves(profile):
            name = f"`{profile}`" if profile else "the model"
            text = f"{name} is not loaded, and the request says `autoload={asked}`"
            raise GatewayError("model_not_loaded", text, param="model")

    async def _attempt(self, admission: Admission, body: bytes) -> UpstreamError | None:
        """Send it once.

        :return: None when it was answered
        """
        if admission.endpoint.instance in self._lost_at:  # it was taken for dead, and lives: it may have done the work
            message = "the engine closed the connection that this request was sent on, and lives; it is not sent again"
            raise GatewayError("engine_died", message, retry_after_s=5)

        self._endpoint = admission.endpoint
        self._enter(AWAITING_HEAD)
        request, match = self._request, self._match
        target = f"{match.path}?{request.query}" if request.query else match.path
        headers = forward.request_headers(request.headers, admission.endpoint.api_key)
        headers.append((REQUEST_ID, self._name.encode()))
        try:
            upstream = await admission.pool.request(request.method, target, headers, body)
            self._enter(Relaying(upstream))
            try:
                in_flight = admission.traffic.in_flight
                if await self._is_given_up(upstream.status, admission.endpoint):
                    raise _GivenUpError(upstream.status, in_flight)

                traffic = admission.traffic if self._match.route.computes else None
                asked = (self._model or admission.endpoint.profile) if self._match.route.computes else None
                await self._answer.relay(upstream, traffic, asked)
            finally:
                upstream.abort()
        except UpstreamError as failure:
            return failure

        return None

    async def _is_given_up(self, status: int, endpoint: Endpoint) -> bool:
        """Return whether an answer is the error of an engine that can answer nothing else. Others pay no time: the
        daemon knows at once that an error is no more than that, mostly.
        """
        failed = _engine_failed(status) and self._match.route.computes
        return failed and await self._dispatcher.given_up(endpoint.instance)

    def _consequence(self, kind: FailureKind, body: bytes) -> Consequence:
        body_kept = len(body) <= self._dispatcher.config.replay_bytes
        return after_failure(kind, self._answer.written, self._replays, body_kept=body_kept)

    async def _recover(
        self, failure: UpstreamError, endpoint: Endpoint, body: bytes, fingerprint: RequestFingerprint | None
    ) -> None:
        """Return when it is to be sent again.

        :raises GatewayError: when it is not
        """
        kind = await self._kind_of(failure, endpoint, fingerprint)
        consequence = self._consequence(kind, body)
        suspect = fingerprint if kind is FailureKind.ENGINE_DIED else None
        # One that is sent again is charged with the death on its way back.
        if suspect is not None and consequence.step is not Step.SEND_AGAIN:
            lives = isinstance(failure, _GivenUpError)  # it is asked once more before it is ended
            await self._dispatcher.confirmed_dead(endpoint, self._dispatcher.config.recover_s if lives else _CAUSE_S)

        message = await self._cause(kind, failure, endpoint)
        if suspect is not None:
            now, crash_suspects = monotonic(), self._dispatcher.crash_suspects
            crash_suspects.attribute(self._dispatcher.supervisor.view().fallen, now)
            crash_suspects.check(suspect, now, endpoint.runs, message)

        if consequence.step is Step.SEND_AGAIN:
            self._replays += consequence.replay
            if consequence.replay and not isinstance(failure, _GivenUpError):  # that one's work was over
                self._lost_at.add(endpoint.instance)

            self._answer.end_cut_event()
            return

        assert consequence.code is not None, kind
        if consequence.code == "shutting_down":
            raise shutting_down()

        if consequence.code == "cancelled":
            raise cancelled()

        if consequence.code == "not_replayed":
            message = self._not_replayed(message)

        raise GatewayError(consequence.code, message, retry_after_s=5)

    async def _kind_of(
        self, failure: UpstreamError, endpoint: Endpoint, fingerprint: RequestFingerprint | None
    ) -> FailureKind:
        """Tell the kinds of broken connections apart, for which the daemon has to notice an engine's end."""
        if self._ended_by is not None:
            return self._ended_by

        if failure.malformed:
            return FailureKind.MALFORMED

        crash_suspects = self._dispatcher.crash_suspects
        if isinstance(failure, _GivenUpError):
            if fingerprint is not None:
                crash_suspects.lost(endpoint, fingerprint, failure.in_flight)

            return FailureKind.ENGINE_DIED

        unsent = failure.stage == "connect"
        if not unsent:
            if fingerprint is None:
                return FailureKind.CONNECTION_LOST

            crash_suspects.lost(endpoint, fingerprint)

        if await self._dispatcher.moved_on(endpoint, self._dispatcher.config.recover_s):
            return FailureKind.UNSENT if unsent else FailureKind.ENGINE_DIED

        crash_suspects.spared(endpoint.instance)
        return FailureKind.UNREACHABLE if unsent else FailureKind.CONNECTION_LOST

    async def _cause(self, kind: FailureKind, failure: UpstreamError, endpoint: Endpoint) -> str:
        """Return what is known of a failure, with the daemon's word on it where it has one in time."""
        if kind in (FailureKind.CANCELLED, FailureKind.SHUTDOWN, FailureKind.MALFORMED, FailureKind.UNSENT):
            return failure.message

        if await self._dispatcher.moved_on(endpoint, _CAUSE_S):
            route = self._dispatcher.supervisor.view().route_for(endpoint.profile)
            if route.refusal is not None:
                return f"{failure.message}: {route.refusal.message}"

            if route.serving is None:
                return f"{failure.message}; {route.progress}"

        return failure.message

    def _not_replayed(self, message: str) -> str:
        if self._replays >= MAX_REPLAYS:
            return f"two engines died while they answered this request and others: {message}"

        limit_mib = self._dispatcher.config.replay_bytes >> 20
        return f"{message}; a request of more than {limit_mib} MiB is not sent again"

    def _break_silence(self) -> None:
        """Tell a client whose stream has had nothing of an answer that it is being worked on; again until it has."""
        if self._answer.written not in (Written.NOTHING, Written.COMMENTS):
            return

        if isinstance(self._phase, AwaitingHead | Relaying):
            self._answer.comment_between(self._dispatcher.engine_progress(self._id))

        every_s = self._dispatcher.config.comment_every_s
        self._silence = asyncio.get_running_loop().call_later(every_s, self._break_silence)

    def _fail(self, kind: FailureKind, error: GatewayError) -> None:
        """Conclude it with an error, told as what was written to the client allows."""
        self._enter(FAILED)
        if not self._dispatcher.accepting:
            self._response.close_after()

        self._answer.fail(after_failure(kind, self._answer.written, self._replays, body_kept=False).step, error)

    def _record(self) -> Finished:
        response = self._response
        outcome, status = "complete", response.status
        if response.client_gone:
            outcome, status = "client_gone", response.status or _CLIENT_GONE
        elif self._ended_by is FailureKind.CANCELLED and self._phase is not ANSWERED:
            outcome = "cancelled"
        elif status >= 400 or self._phase is not ANSWERED or self._answer.error_status is not None:
            outcome = "error"

        found = figures(self._answer.tail.value())
        return Finished(
            **self._facts(monotonic()),
            **{name: getattr(found, name) for name in _FIGURES},
            outcome=outcome,
            held_s=self._held_s,
            status=status,
            error_status=self._answer.error_status,
            replays=self._replays,
        )

    def _facts(self, now: float) -> dict[str, Any]:
        """Return the fields of `RequestFacts` that do not depend on whether the request has ended."""
        endpoint = self._endpoint
        return {
            "id": self._id,
            "route": self._match.path,
            "started": self._began,
            "first_token_s": self._answer.first_token_s,
            "total_s": now - self._began,
            "instance": endpoint.instance if endpoint else None,
            "profile": endpoint.profile if endpoint else self._profile,
            "engine": endpoint.engine if endpoint else None,
            "build": endpoint.build if endpoint else None,
            "client": self._client,
            "request_id": self._name,
        }


def cancelled() -> GatewayError:
    """Return the error for a request that somebody else had ended."""
    return GatewayError("cancelled", "the request was cancelled")


def _engine_failed(status: int) -> bool:
    """Return whether an answer's status says that the engine could not do it, rather than that it was not to."""
    return status >= 500 and status != _NOT_SUPPORTED


def _asked_for(request: Request, match: Match, body: bytes) -> tuple[str | None, bool]:
    """Return the model that a body names, and whether it asks for a stream.

    :raises GatewayError: when the body cannot be read as the engine would read it
    """
    if not body:
        return None, False

    kind = request.header(b"content-type") or b""
    if not match.route.json_body and kind.lstrip().lower().startswith(b"multipart/"):
        return forward.form_model(kind, body), False

    return forward.peek(body)
