"""Admission: the way of a request to an instance, past those who came before it and those who may kill an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from orchestrator.adapters.http1 import UpstreamError, UpstreamPool
from orchestrator.core.failure.quarantine import QuarantinePolicy
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, RoutingView, Supervisor
from orchestrator.gateway.crash_suspects import CrashSuspects, RequestFingerprint
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.hold import Hold
from orchestrator.gateway.instances import InstanceTable, InstanceTraffic

LOOK_PATIENCE_S = 20.0


class AdmissionGate:
    """Lets requests through to the instances of their profiles, each in its order.

    :ivar accepting: false once the gateway drains: new requests are refused, held and running ones go on
    :ivar note_demand: called when a request begins to wait
    :ivar stopping: true once draining is over: held requests are refused, running ones are cut
    """

    def __init__(self, config: GatewayOptions, supervisor: Supervisor) -> None:
        self.config = config
        self.supervisor = supervisor
        self.hold = Hold(config.max_queued)
        self.instances = InstanceTable()
        self.accepting = True
        self.stopping = False
        self.crash_suspects = CrashSuspects(
            QuarantinePolicy(config.quarantine_s), config.trial_s, self._later, self._wake
        )
        self.note_demand: Callable[[], None] = lambda: None

    def admitted(
        self,
        profile: str | None,
        progress: Callable[[str], None] | None = None,
        fingerprint: RequestFingerprint | None = None,
        arrived: float | None = None,
        *,
        may_wait: bool = True,
    ) -> Admission:
        """Return the way of a request to an instance: `async with` waits for it, and holds a place there.

        :param profile: the profile that the request names; None takes the focus
        :param progress: called while waiting with what it waits for, for clients that can be told
        :param fingerprint: None for a request that the engine answers without computing anything
        :param arrived: when a request that was let through before arrived (monotonic): it comes back to its place
        :param may_wait: False for what is answered by what is loaded or not at all: it never has anything loaded
        """
        return Admission(self, profile, progress, fingerprint, arrived, may_wait=may_wait)

    @asynccontextmanager
    async def looking_at(self, profile: str | None, patience_s: float = LOOK_PATIENCE_S) -> AsyncIterator[Admission]:
        """Hold a place at an instance that serves, for a look at it that costs it little, and for so long at most.

        :raises GatewayError: `engine_unreachable`, or as nothing serves the profile
        """
        try:
            async with asyncio.timeout(patience_s), self.admitted(profile, may_wait=False) as admission:
                yield admission
        except TimeoutError:
            raise GatewayError("engine_unreachable", f"the engine did not answer in {patience_s:g} s") from None
        except UpstreamError as error:
            raise GatewayError("engine_unreachable", error.message, retry_after_s=2) from error

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, work)

    def _wake(self) -> None:
        self.release()

    def release(self, profiles: Collection[str | None] | None = None) -> int:
        """Wake those who wait and need not any more, of one instance no more than it may be given; return how many.

        :param profiles: only those who wait for one of these
        """
        return self.hold.release(self._due(self.supervisor.view()), profiles)

    def _due(self, view: RoutingView) -> Callable[[str | None], bool]:
        """Return what tells of one waiting request after the other whether it is its turn."""
        left: dict[str, int] = {}

        def due(profile: str | None) -> bool:
            endpoint = view.endpoint_for(profile)
            if endpoint is None:
                return view.decided(profile)

            if not endpoint.max_in_flight:
                return True

            places = left.get(endpoint.instance)
            if places is None:
                places = endpoint.max_in_flight - self.instances.places(endpoint.instance)

            left[endpoint.instance] = places - 1
            return places > 0

        return due

    def pass_on(self, profile: str | None) -> None:
        """Let the next one have a place that is free, where an instance is given so many at a time."""
        if len(self.hold):
            view = self.supervisor.view()
            endpoint = view.endpoint_for(profile)
            if endpoint is not None and endpoint.max_in_flight:
                self.release(_line(view, profile))

    def is_full(self, endpoint: Endpoint) -> bool:
        """Return whether an instance has as many requests as it is given at a time."""
        most = endpoint.max_in_flight
        return most > 0 and self.instances.places(endpoint.instance) >= most


class Admission:
    """A request's way to an instance and its stay there, as `async with`.

    It is entered at once or after a time in the queue. However it is left, by an error or a cancellation while waiting
    included, the places in the queue, at the instance and among the suspects are free again.

    :ivar endpoint: the instance, once entered
    :raises GatewayError: on entering, when nothing is expected, the queue is full, the wait is too long, or the request
        kills engines
    """

    __slots__ = (
        "_arrived", "_gate", "_fingerprint", "_may_wait", "_profile", "_progress", "endpoint", "traffic",
    )  # fmt: skip

    endpoint: Endpoint
    traffic: InstanceTraffic

    def __init__(
        self,
        gate: AdmissionGate,
        profile: str | None,
        progress: Callable[[str], None] | None,
        fingerprint: RequestFingerprint | None,
        arrived: float | None,
        *,
        may_wait: bool,
    ) -> None:
        self._gate = gate
        self._may_wait = may_wait
        self._profile = profile
        self._progress = progress
        self._fingerprint = fingerprint
        self._arrived = arrived

    async def __aenter__(self) -> Admission:
        gate, fingerprint = self._gate, self._fingerprint
        try:
            self.endpoint = await self._wait()
        except BaseException:
            self._leave_suspects()
            gate.pass_on(self._profile)  # a place may have been meant for this one
            raise

        # Nothing is awaited from here to the body of `async with`: no cancellation comes in between.
        self.traffic = gate.instances.traffic(self.endpoint.instance)
        if fingerprint is not None:
            gate.crash_suspects.entered(fingerprint, self.traffic.in_flight, time.monotonic(), self.endpoint.instance)

        self.traffic.enter()
        self.traffic.places += self._may_wait
        return self

    async def __aexit__(self, *error: object) -> None:
        self.traffic.places -= self._may_wait
        self.traffic.leave()
        self._leave_suspects()
        self._gate.pass_on(self.endpoint.profile)

    @property
    def pool(self) -> UpstreamPool:
        """The connections to the instance."""
        return self.traffic.pool(self.endpoint)

    async def _wait(self) -> Endpoint:
        gate, profile = self._gate, self._profile
        view = gate.supervisor.view()
        if not gate.accepting and (self._arrived is None or gate.stopping):
            raise shutting_down()

        if len(gate.hold) and gate.release(_line(view, profile)):
            # The view has changed, and those who waited for that have not run yet: they go first.
            await asyncio.sleep(0)
            view = gate.supervisor.view()

        endpoint = view.endpoint_for(profile)
        self._check(view, endpoint)
        if self._waits(view, endpoint):
            if not self._may_wait:
                raise unloaded_error(view, profile)

            view = await self._held(view)
            endpoint = view.endpoint_for(profile)
            self._check(view, endpoint)

        if endpoint is None:
            raise refusal_error(view, profile) if self._may_wait else unloaded_error(view, profile)

        return endpoint

    async def _held(self, view: RoutingView) -> RoutingView:
        """Wait in the queue until something is decided for the request; return the view that decides it."""
        gate, config, progress = self._gate, self._gate.config, self._progress
        clock = asyncio.get_running_loop().time
        with gate.hold.enter(self._profile, time.monotonic(), self._why(view), arrived=self._arrived) as ticket:
            gate.note_demand()
            deadline = clock() + config.hold_timeout_s
            next_comment = clock() + config.comment_after_s if progress is not None else deadline
            waits = True
            while waits:
                if await ticket.wait(min(deadline, next_comment) - clock()):
                    if gate.stopping:
                        raise shutting_down()

                    view = gate.supervisor.view()
                    waits = self._waits(view, view.endpoint_for(self._profile))
                elif clock() >= deadline:
                    what = "no engine was ready" if view.endpoint_for(self._profile) is None else "it was not its turn"
                    text = f"{what} in {config.hold_timeout_s:g} s ({self._why(view)})"
                    raise GatewayError("hold_timeout", text, retry_after_s=30)
                elif progress is not None:
                    view = gate.supervisor.view()
                    progress(self._why(view))
                    next_comment = clock() + config.comment_every_s

        return view

    def _why(self, view: RoutingView) -> str:
        """Return what this request waits for, in words."""
        endpoint = view.endpoint_for(self._profile)
        if endpoint is None or not self._gate.is_full(endpoint):
            return view.progress_for(self._profile)

        return f"{endpoint.profile} is given {endpoint.max_in_flight} requests at a time, and has them"

    def _waits(self, view: RoutingView, endpoint: Endpoint | None) -> bool:
        if endpoint is None:
            return not view.decided(self._profile)

        if endpoint.max_in_flight and self._may_wait and self._gate.is_full(endpoint):
            return True

        if self._fingerprint is None:
            return False

        instance, now = endpoint.instance, time.monotonic()
        in_flight = self._gate.instances.in_flight(instance)
        # An engine may be turned away from before its end is known: whoever waits since then was not charged yet.
        self._gate.crash_suspects.attribute(view.fallen, now)
        return not self._gate.crash_suspects.may_enter(self._fingerprint, in_flight, now, endpoint.runs, instance)

    def _check(self, view: RoutingView, endpoint: Endpoint | None) -> None:
        if self._fingerprint is not None:
            now, crash_suspects = time.monotonic(), self._gate.crash_suspects
            crash_suspects.attribute(view.fallen, now)
            if endpoint is not None:  # whether it is refused depends on what runs: something else may answer it
                crash_suspects.check(self._fingerprint, now, endpoint.runs)

    def _leave_suspects(self) -> None:
        if self._fingerprint is not None:
            self._gate.crash_suspects.left(self._fingerprint)


def _line(view: RoutingView, profile: str | None) -> tuple[str | None, ...]:
    """Return the profiles of requests that are for the same instance as those for this one."""
    serving = view.serving
    if serving is not None and profile in (None, serving.profile):
        return (serving.profile, None)

    return (profile,)


def shutting_down() -> GatewayError:
    """Return the error for a request that ends because the gateway stops."""
    return GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5)


def refusal_error(view: RoutingView, profile: str | None) -> GatewayError:
    """Return the error for a client that cannot, or does not want to, wait for an instance."""
    refusal = view.refuses(profile)
    if view.serving is not None and refusal is None:
        return GatewayError(
            "model_not_loaded",
            f"`{profile}` is not loaded, {_loaded(view)}; run `orch load {profile}`, or `orch switch {profile}`",
            param="model",
        )

    if refusal is None:
        return GatewayError("loading", f"no engine is ready ({view.progress_for(profile)})", retry_after_s=2)

    return GatewayError(refusal.code, refusal.message, retry_after_s=refusal.retry_after_s, permanent=refusal.permanent)


def unloaded_error(view: RoutingView, profile: str | None) -> GatewayError:
    """Return the error for who asks about a model that is not loaded: a look at it is no reason to load it."""
    refusal = view.refuses(profile)
    if profile is None:
        return refusal_error(view, None)

    if refusal is not None:
        return GatewayError("model_unloaded", f"`{profile}` is not loaded: {refusal.message}", param="model")

    if any(model.name == profile and model.status == "loading" for model in view.models):
        text = f"`{profile}` is loading ({view.progress_for(profile)})"
        return GatewayError("loading", text, retry_after_s=2, param="model")

    serving = f", {_loaded(view)}" if view.loaded else ""
    how = f"run `orch load {profile}`, or `orch switch {profile}`"
    if view.on_request:
        how = f'send it a request (POST /v1/chat/completions with "model": "{profile}"), or {how}'

    text = f"`{profile}` is not loaded{serving}; a GET loads nothing: {how}"
    return GatewayError("model_unloaded", text, param="model")


def _loaded(view: RoutingView) -> str:
    names = ", ".join(f"`{profile}`" for profile in view.loaded)
    return f"{names} {'are' if len(view.loaded) > 1 else 'is'}"
