"""The way of requests to instances: the view, the queue, admission, and what ends with the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from orchestrator.adapters.http1 import UpstreamPool
from orchestrator.core.failure.quarantine import QuarantinePolicy
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Ledger, Supervisor, Underway, View
from orchestrator.gateway.crash_suspects import CrashSuspects, RequestFingerprint
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.hold import Hold
from orchestrator.gateway.instances import InstanceTable, InstanceTraffic
from orchestrator.gateway.models import default_profile, is_known, profile_for

_POLL_S = 0.01


class Served(Protocol):
    """A request that can be told that its time is up, and that tells how it goes on."""

    def stop(self) -> None: ...

    def underway(self, now: float) -> Underway | None: ...

    def silent_s(self, instance: str, now: float) -> float | None: ...


class Dispatcher:
    """Lets requests through to the serving instance, in order.

    :param look_for_models: looks for new profiles; in passing, where the request has another way to go
    :ivar accepting: false once the gateway drains: new requests are refused, held and running ones go on
    :ivar stopping: true once draining is over: held requests are refused, running ones are cut
    """

    def __init__(
        self,
        config: GatewayOptions,
        supervisor: Supervisor,
        ledger: Ledger,
        look_for_models: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        self.config = config
        self._look_for_models = look_for_models
        self.supervisor = supervisor
        self.ledger = ledger
        self.hold = Hold(config.max_queued)
        self.instances = InstanceTable()
        self.accepting = True
        self.stopping = False
        self.exchanges: set[Served] = set()
        self.crash_suspects = CrashSuspects(
            QuarantinePolicy(config.quarantine_s), config.trial_s, self._later, self._release_decided
        )
        self._quiet = asyncio.Event()
        self._demanded = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the view."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def run(self) -> None:
        """Run for ever; raise what the watcher dies of, since nobody is let through any more then."""
        assert self._watcher is not None
        await asyncio.wait((self._watcher,))
        if not self._watcher.cancelled():
            self._watcher.result()

        await asyncio.get_running_loop().create_future()  # stopped: the daemon is on its way out

    async def stop(self) -> None:
        """Cut what still runs, and wait until each request has said so to its client."""
        self.stopping = True
        self.hold.release(lambda profile: True)
        for exchange in tuple(self.exchanges):
            exchange.stop()

        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait((self._watcher,))

    def close(self) -> None:
        """Close the connections to all instances."""
        self.instances.close()

    def begin(self, exchange: Served) -> None:
        """Count a request as active."""
        self.exchanges.add(exchange)

    def end(self, exchange: Served) -> None:
        """Count a request as ended."""
        self.exchanges.discard(exchange)
        if not self.exchanges:
            self._quiet.set()

    async def wait_assigned(self, within_s: float) -> None:
        """Wait until each request is with an instance or in the queue, at most so long: one whose body is still on its
        way would come too late for either once the daemon ends.
        """
        deadline = time.monotonic() + within_s
        while len(self.exchanges) > len(self.hold) + self.instances.in_flight_total:
            if time.monotonic() >= deadline:
                return

            await asyncio.sleep(_POLL_S)

    async def wait_quiet(self, timeout_s: float) -> bool:
        """Wait until no request is held or running; return False when the time is up before."""
        self._quiet.clear()
        try:
            async with asyncio.timeout(timeout_s):
                if self.exchanges:
                    await self._quiet.wait()
        except TimeoutError:
            return False

        return True

    async def profile_for(self, name: str | None) -> str | None:
        """Return the profile that a name stands for; None for no name. An unknown one is looked for once more first.

        :raises GatewayError: `model_not_found`
        """
        models, default = self.supervisor.view().models, self.config.default_model
        if self._look_for_models is not None and not is_known(name, models):
            await self._look_for_models(default_profile(models, default) is not None)
            models = self.supervisor.view().models

        return profile_for(name, models, default)

    # Figures (`contract.Traffic`).

    @property
    def queued(self) -> int:
        """The number of requests that wait for an instance."""
        return len(self.hold)

    @property
    def active(self) -> int:
        """The number of requests that have not ended, those in the queue included."""
        return len(self.exchanges)

    def underway(self) -> list[Underway]:
        """Return the requests that wait or run, in the order in which they came."""
        now = time.monotonic()
        found = (each.underway(now) for each in self.exchanges)
        return sorted((each for each in found if each is not None), key=lambda each: each.id)

    def in_flight(self, instance: str) -> int:
        """Return the number of requests that an instance is working on."""
        return self.instances.in_flight(instance)

    def relayed(self, instance: str) -> int:
        """Return the bytes of answers that an instance has given to clients."""
        return self.instances.relayed_bytes(instance)

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        """Return the streams of an instance that had tokens and now have none: a name to seconds, `stall_s` or more."""
        now = time.monotonic()
        silent = {id(each): each.silent_s(instance, now) for each in self.exchanges}
        return {name: silent_s for name, silent_s in silent.items() if silent_s is not None and silent_s >= stall_s}

    async def wait_idle(self, instance: str, timeout_s: float) -> bool:
        """Wait until the last request of an instance has ended; return False when the time is up before."""
        return await self.instances.wait_idle(instance, timeout_s)

    def note_demand(self) -> None:
        """Wake who waits for a demand: a request begins to wait for a profile that it names."""
        self._demanded.set()

    async def wait_demand(self) -> None:
        """Wait until a request begins to wait for a profile that it names."""
        await self._demanded.wait()
        self._demanded.clear()

    # Admission.

    async def moved_on(self, endpoint: Endpoint, timeout_s: float) -> bool:
        """Wait until the daemon sends no more requests to this endpoint; return False when the time is up before."""
        view = self.supervisor.view()
        try:
            async with asyncio.timeout(timeout_s):
                while view.serving is not None and view.serving.instance == endpoint.instance:
                    view = await self.supervisor.changed(view.generation)
        except TimeoutError:
            return False

        return True

    def admitted(
        self,
        profile: str | None,
        progress: Callable[[View], None] | None = None,
        fingerprint: RequestFingerprint | None = None,
        arrived: float | None = None,
        *,
        may_wait: bool = True,
    ) -> Admission:
        """Return the way of a request to an instance: `async with` waits for it, and holds a place there.

        :param profile: the profile that the request names; None takes what serves
        :param progress: called while waiting, for clients that can be told
        :param fingerprint: None for a request that the engine answers without computing anything
        :param arrived: when a request that was let through before arrived (monotonic): it comes back to its place
        :param may_wait: False for what is answered by what is loaded or not at all: it never has anything loaded
        """
        return Admission(self, profile, progress, fingerprint, arrived, may_wait=may_wait)

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, work)

    def _release_decided(self) -> None:
        self.hold.release(self.supervisor.view().decided)

    async def _watch(self) -> None:
        view = self.supervisor.view()
        while True:
            self.hold.release(view.decided)
            self.instances.retire_others(view.serving.instance if view.serving is not None else None)
            view = await self.supervisor.changed(view.generation)


class Admission:
    """A request's way to an instance and its stay there, as `async with`.

    It is entered at once or after a time in the queue. However it is left, by an error or a cancellation while waiting
    included, the places in the queue, at the instance and among the suspects are free again.

    :ivar endpoint: the instance, once entered
    :raises GatewayError: on entering, when nothing is expected, the queue is full, the wait is too long, or the request
        kills engines
    """

    __slots__ = (
        "_arrived", "_dispatcher", "_fingerprint", "_may_wait", "_profile", "_progress", "endpoint", "traffic",
    )  # fmt: skip

    endpoint: Endpoint
    traffic: InstanceTraffic

    def __init__(
        self,
        dispatcher: Dispatcher,
        profile: str | None,
        progress: Callable[[View], None] | None,
        fingerprint: RequestFingerprint | None,
        arrived: float | None,
        *,
        may_wait: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._may_wait = may_wait
        self._profile = profile
        self._progress = progress
        self._fingerprint = fingerprint
        self._arrived = arrived

    async def __aenter__(self) -> Admission:
        dispatcher, fingerprint = self._dispatcher, self._fingerprint
        try:
            self.endpoint = await self._wait()
        except BaseException:
            self._leave_suspects()
            raise

        # Nothing is awaited from here to the body of `async with`: no cancellation comes in between.
        self.traffic = dispatcher.instances.traffic(self.endpoint.instance)
        if fingerprint is not None:
            dispatcher.crash_suspects.entered(fingerprint, self.traffic.in_flight, time.monotonic())

        self.traffic.enter()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.traffic.leave()
        self._leave_suspects()

    @property
    def pool(self) -> UpstreamPool:
        """The connections to the instance."""
        return self.traffic.pool(self.endpoint)

    async def _wait(self) -> Endpoint:
        dispatcher, profile = self._dispatcher, self._profile
        view = dispatcher.supervisor.view()
        if not dispatcher.accepting and (self._arrived is None or dispatcher.stopping):
            raise shutting_down()

        if len(dispatcher.hold) and dispatcher.hold.release(view.decided):
            # The view has changed, and those who waited for that have not run yet: they go first.
            await asyncio.sleep(0)
            view = dispatcher.supervisor.view()

        self._check(view)
        if self._waits(view):
            if not self._may_wait:
                raise unloaded_error(view, profile)

            view = await self._held(view)
            self._check(view)

        if view.serving is None or not view.serves(profile):
            raise refusal_error(view, profile) if self._may_wait else unloaded_error(view, profile)

        return view.serving

    async def _held(self, view: View) -> View:
        """Wait in the queue until something is decided for the request; return the view that decides it."""
        dispatcher, config, progress = self._dispatcher, self._dispatcher.config, self._progress
        clock = asyncio.get_running_loop().time
        with dispatcher.hold.enter(self._profile, time.monotonic(), view.progress, arrived=self._arrived) as ticket:
            if self._profile is not None:
                dispatcher.note_demand()

            deadline = clock() + config.hold_timeout_s
            next_comment = clock() + config.comment_after_s if progress is not None else deadline
            while self._waits(view):
                if await ticket.wait(min(deadline, next_comment) - clock()):
                    if dispatcher.stopping:
                        raise shutting_down()

                    view = dispatcher.supervisor.view()
                elif clock() >= deadline:
                    raise GatewayError(
                        "hold_timeout", f"no engine was ready in {config.hold_timeout_s:g} s ({view.progress})",
                        retry_after_s=30,
                    )  # fmt: skip
                elif progress is not None:
                    view = dispatcher.supervisor.view()
                    progress(view)
                    next_comment = clock() + config.comment_every_s

        return view

    def _waits(self, view: View) -> bool:
        if not view.decided(self._profile):
            return True

        if self._fingerprint is None or view.serving is None or not view.serves(self._profile):
            return False

        in_flight = self._dispatcher.instances.in_flight(view.serving.instance)
        return not self._dispatcher.crash_suspects.may_enter(self._fingerprint, in_flight, time.monotonic())

    def _check(self, view: View) -> None:
        if self._fingerprint is not None:
            now, crash_suspects = time.monotonic(), self._dispatcher.crash_suspects
            crash_suspects.attribute(view.fallen, now)
            crash_suspects.check(self._fingerprint, now)

    def _leave_suspects(self) -> None:
        if self._fingerprint is not None:
            self._dispatcher.crash_suspects.left(self._fingerprint)


def shutting_down() -> GatewayError:
    """Return the error for a request that ends because the gateway stops."""
    return GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5)


def refusal_error(view: View, profile: str | None) -> GatewayError:
    """Return the error for a client that cannot, or does not want to, wait for an instance."""
    refusal = view.refuses(profile)
    if view.serving is not None and refusal is None:
        return GatewayError(
            "model_not_loaded",
            f"`{profile}` is not loaded, `{view.serving.profile}` is; run `orch switch {profile}`",
            param="model",
        )

    if refusal is None:
        return GatewayError("loading", f"no engine is ready ({view.progress})", retry_after_s=2)

    return GatewayError(refusal.code, refusal.message, retry_after_s=refusal.retry_after_s)


def unloaded_error(view: View, profile: str | None) -> GatewayError:
    """Return the error for who asks about a model that is not loaded: a look at it is no reason to load it."""
    refusal = view.refuses(profile)
    if profile is None:
        return refusal_error(view, None)

    if refusal is not None:
        return GatewayError("model_unloaded", f"`{profile}` is not loaded: {refusal.message}", param="model")

    if any(model.name == profile and model.status == "loading" for model in view.models):
        return GatewayError("loading", f"`{profile}` is loading ({view.progress})", retry_after_s=2, param="model")

    serving = f", `{view.serving.profile}` is" if view.serving is not None else ""
    how = f"run `orch switch {profile}`"
    if view.on_request:
        how = f'send it a request (POST /v1/chat/completions with "model": "{profile}"), or {how}'

    text = f"`{profile}` is not loaded{serving}; a GET loads nothing: {how}"
    return GatewayError("model_unloaded", text, param="model")
