"""What all requests share: the view, the queue, the connections to each instance, and who is using it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.adapters.http1 import UpstreamPool
from orchestrator.core.failure.quarantine import QuarantinePolicy
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Ledger, Supervisor, Underway, View
from orchestrator.gateway.crash_suspects import CrashSuspects, RequestFingerprint
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.hold import Hold

_LOOK_S = 0.01


class Served(Protocol):
    """A request that can be told that its time is up, and that tells how it goes on."""

    def stop(self) -> None: ...

    def underway(self, now: float) -> Underway | None: ...

    def still_s(self, instance: str, now: float) -> float | None: ...


class Dispatcher:
    """Lets requests through to the serving instance, in order, and counts them there.

    :ivar accepting: false once the gateway drains: new requests are refused, held and running ones go on
    :ivar stopping: true once draining is over: held requests are refused, running ones are cut
    :ivar relayed_bytes: instance to bytes of answers that it has given; comments of a stream are no answer
    """

    def __init__(self, config: GatewayOptions, supervisor: Supervisor, ledger: Ledger) -> None:
        self.config = config
        self.supervisor = supervisor
        self.ledger = ledger
        self.hold = Hold(config.max_queued)
        self.accepting = True
        self.stopping = False
        self.exchanges: set[Served] = set()
        self.relayed_bytes: dict[str, int] = {}
        self.crash_suspects = CrashSuspects(
            QuarantinePolicy(config.quarantine_s), config.trial_s, self._later, self._release_decided
        )
        self._quiet = asyncio.Event()
        self._demanded = asyncio.Event()
        self._in_flight: dict[str, int] = {}
        self._idle: dict[str, asyncio.Event] = {}
        self._pools: dict[str, UpstreamPool] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def run(self) -> None:
        """For ever; raises what the watcher dies of, since nobody is let through any more then."""
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
        for pool in self._pools.values():
            pool.close()

        self._pools.clear()

    def begin(self, exchange: Served) -> None:
        self.exchanges.add(exchange)

    def end(self, exchange: Served) -> None:
        self.exchanges.discard(exchange)
        if not self.exchanges:
            self._quiet.set()

    async def wait_assigned(self, within_s: float) -> None:
        """Wait until each request is with an instance or in the queue, at most so long: one whose body is still on its
        way would come too late for either once the daemon ends.
        """
        deadline = time.monotonic() + within_s
        while len(self.exchanges) > len(self.hold) + sum(self._in_flight.values()):
            if time.monotonic() >= deadline:
                return

            await asyncio.sleep(_LOOK_S)

    async def wait_quiet(self, timeout_s: float) -> bool:
        """Whether no request is held or running any more within that time."""
        self._quiet.clear()
        try:
            async with asyncio.timeout(timeout_s):
                if self.exchanges:
                    await self._quiet.wait()
        except TimeoutError:
            return False

        return True

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

    def relayed(self, instance: str) -> int:
        """Return the bytes of answers that an instance has given to clients."""
        return self.relayed_bytes.get(instance, 0)

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        """Return the streams of an instance that had tokens and now have none: a name to seconds, `stall_s` or more."""
        now = time.monotonic()
        still = {id(each): each.still_s(instance, now) for each in self.exchanges}
        return {name: still_s for name, still_s in still.items() if still_s is not None and still_s >= stall_s}

    async def wait_demand(self) -> None:
        """Wait until a request begins to wait for a profile that it names."""
        await self._demanded.wait()
        self._demanded.clear()

    # Admission.

    async def admit(
        self,
        profile: str | None,
        progress: Callable[[View], None] | None,
        fingerprint: RequestFingerprint | None = None,
        arrived: float | None = None,
    ) -> Endpoint:
        """The endpoint to send to, at once or after a wait in the queue; counted in flight from here on.

        :param profile: the profile that the request names; None takes what serves
        :param progress: called while waiting, for clients that can be told
        :param fingerprint: None for a request that the engine answers without computing anything
        :param arrived: when a request that was let through before arrived (monotonic): it comes back to its place
        :raises GatewayError: when nothing is expected, the queue is full, the wait is too long, or it kills engines
        """
        view = self.supervisor.view()
        if not self.accepting and (arrived is None or self.stopping):
            raise GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5)

        if len(self.hold) and self.hold.release(view.decided):
            # The view has changed, and those who waited for that have not run yet: they go first.
            await asyncio.sleep(0)
            view = self.supervisor.view()

        self._check(view, fingerprint)
        if self._waits(view, profile, fingerprint):
            view = await self._held(view, profile, progress, fingerprint, arrived)
            self._check(view, fingerprint)

        if view.serving is None or not view.serves(profile):
            raise refused(view, profile)

        instance = view.serving.instance
        if fingerprint is not None:
            self.crash_suspects.entered(fingerprint, self.in_flight(instance), time.monotonic())

        self.enter(instance)
        return view.serving

    async def moved_on(self, endpoint: Endpoint, timeout_s: float) -> bool:
        """Whether the daemon stops sending requests to this endpoint within that time."""
        view = self.supervisor.view()
        try:
            async with asyncio.timeout(timeout_s):
                while view.serving is not None and view.serving.instance == endpoint.instance:
                    view = await self.supervisor.changed(view.generation)
        except TimeoutError:
            return False

        return True

    def pool(self, endpoint: Endpoint) -> UpstreamPool:
        pool = self._pools.get(endpoint.instance)
        if pool is None:
            pool = self._pools[endpoint.instance] = UpstreamPool(endpoint.host, endpoint.port)

        return pool

    # Counting.

    def enter(self, instance: str) -> None:
        self._in_flight[instance] = self._in_flight.get(instance, 0) + 1

    def leave(self, instance: str) -> None:
        left = self._in_flight[instance] - 1
        if left:
            self._in_flight[instance] = left
            return

        del self._in_flight[instance]
        if instance not in self._pools:  # it was replaced while it still streamed
            self.relayed_bytes.pop(instance, None)

        idle = self._idle.pop(instance, None)
        if idle is not None:
            idle.set()

    def in_flight(self, instance: str) -> int:
        return self._in_flight.get(instance, 0)

    async def wait_idle(self, instance: str, timeout_s: float) -> bool:
        """Whether the last request of an instance has ended within that time."""
        try:
            async with asyncio.timeout(timeout_s):
                while instance in self._in_flight:
                    await self._idle.setdefault(instance, asyncio.Event()).wait()
        except TimeoutError:
            return False

        return True

    # Waiting.

    async def _held(
        self,
        view: View,
        profile: str | None,
        progress: Callable[[View], None] | None,
        fingerprint: RequestFingerprint | None,
        arrived: float | None,
    ) -> View:
        loop, config = asyncio.get_running_loop(), self.config
        ticket = self.hold.enter(profile, time.monotonic(), view.progress, arrived=arrived)
        if profile is not None:
            self._demanded.set()

        deadline = loop.time() + config.hold_timeout_s
        told_next = loop.time() + config.comment_after_s if progress is not None else deadline
        try:
            while self._waits(view, profile, fingerprint):
                now = loop.time()
                if await ticket.wait(min(deadline, told_next) - now):
                    view = self._current_view()
                elif loop.time() >= deadline:
                    raise GatewayError(
                        "hold_timeout", f"no engine was ready in {config.hold_timeout_s:g} s ({view.progress})",
                        retry_after_s=30,
                    )  # fmt: skip
                elif progress is not None:
                    view = self.supervisor.view()
                    progress(view)
                    told_next = loop.time() + config.comment_every_s
        finally:
            self.hold.leave(ticket)

        return view

    def _waits(self, view: View, profile: str | None, fingerprint: RequestFingerprint | None) -> bool:
        if not view.decided(profile):
            return True

        if fingerprint is None or view.serving is None or not view.serves(profile):
            return False

        return not self.crash_suspects.may_enter(fingerprint, self.in_flight(view.serving.instance), time.monotonic())

    def _check(self, view: View, fingerprint: RequestFingerprint | None) -> None:
        if fingerprint is not None:
            now = time.monotonic()
            self.crash_suspects.attribute(view.fallen, now)
            self.crash_suspects.check(fingerprint, now)

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, work)

    def _release_decided(self) -> None:
        self.hold.release(self.supervisor.view().decided)

    def _current_view(self) -> View:
        if self.stopping:
            raise GatewayError("shutting_down", "the gateway is shutting down", retry_after_s=5)

        return self.supervisor.view()

    async def _watch(self) -> None:
        view = self.supervisor.view()
        while True:
            self.hold.release(view.decided)
            for instance in tuple(self._pools):
                if view.serving is None or view.serving.instance != instance:
                    self._pools.pop(instance).close()
                    self.relayed_bytes.pop(instance, None)

            view = await self.supervisor.changed(view.generation)


def refused(view: View, profile: str | None) -> GatewayError:
    """What a client is told that cannot, or does not want to, wait for an instance."""
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
