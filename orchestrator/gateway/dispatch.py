"""The requests of the gateway together: the view that they go by, their figures, and their end with the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from orchestrator.gateway.admission import AdmissionGate
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, EngineProgress, Ledger, RoutingView, Supervisor, Underway
from orchestrator.gateway.models import default_profile, is_known, profile_for, variant_of
from orchestrator.gateway.requests.variant_body import rewritten

_POLL_S = 0.01


class Served(Protocol):
    """A request that can be told that its time is up, and that tells how it goes on."""

    def stop(self) -> None: ...

    def cancel(self) -> None: ...

    def underway(self, now: float) -> Underway | None: ...

    def silent_s(self, instance: str, now: float) -> float | None: ...


async def _never(instance: str) -> bool:
    return False


class Dispatcher(AdmissionGate):
    """Follows the view, counts the requests, and ends them with the gateway.

    :param look_for_models: looks for new profiles; in passing, where the request has another way to go
    :ivar given_up: asked when an instance has answered a request with an error, before the client is told: returns
        whether the daemon turns away from the instance, as soon as that is known
    :ivar progress: returns what is known of the engine's work, by the number of the request
    """

    def __init__(
        self,
        config: GatewayOptions,
        supervisor: Supervisor,
        ledger: Ledger,
        look_for_models: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(config, supervisor)
        self._look_for_models = look_for_models
        self.ledger = ledger
        self.exchanges: set[Served] = set()
        self.given_up: Callable[[str], Awaitable[bool]] = _never
        self.progress: Callable[[], Mapping[int, EngineProgress]] = dict
        self._quiet = asyncio.Event()
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

    async def moved_on(self, endpoint: Endpoint, timeout_s: float) -> bool:
        """Wait until the daemon sends no more requests to this endpoint; return False when the time is up before."""
        return await self._shown(lambda view: endpoint.instance not in view.instances, timeout_s)

    async def confirmed_dead(self, endpoint: Endpoint, timeout_s: float) -> bool:
        """Wait until the daemon knows how this endpoint's engine ended; False when the time is up before. That it sends
        no more requests there may come first, when its own questions were not answered either.
        """
        return await self._shown(lambda view: endpoint.instance in view.fallen, timeout_s)

    async def _shown(self, condition: Callable[[RoutingView], bool], timeout_s: float) -> bool:
        """Wait for a view of which the condition is true; return False when the time is up before."""
        view = self.supervisor.view()
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(view):
                    view = await self.supervisor.changed(view.generation)
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

        profile = profile_for(name, models, default) or self.supervisor.view().asleep
        if self._look_for_models is not None and not self.supervisor.view().serves(profile):
            refusal = self.supervisor.view().refuses(profile)
            if refusal is not None and refusal.permanent:  # what was wrong may have been mended a moment ago
                await self._look_for_models(False)

        return profile

    def body_for(self, name: str | None, body: bytes) -> bytes:
        """Return the body as the variant makes it that a name stands for; the same where it stands for none.

        :raises GatewayError: `invalid_json`
        """
        variant = variant_of(name, self.supervisor.view().models)
        return body if variant is None else rewritten(body, variant)

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

    def cancel(self, asked: str | int) -> list[Underway]:
        """End the requests that have this id, or else the one that has this number; return them as they stood."""
        now = time.monotonic()
        found = [(each, row) for each in self.exchanges if (row := each.underway(now)) is not None]
        named = [(each, row) for each, row in found if row.request_id == asked]
        named = named or [(each, row) for each, row in found if str(row.id) == str(asked)]
        for exchange, _ in named:
            exchange.cancel()

        return sorted((row for _, row in named), key=lambda row: row.id)

    def engine_progress(self, number: int) -> str:
        """Return what a client can be told while its stream has had nothing: how much of its prompt was read."""
        known = self.progress().get(number)
        if known is None or known.prompt_done is None:
            return "the engine has the request; no token yet"

        return f"the engine has read {known.prompt_done:.0%} of the prompt"

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

    async def _watch(self) -> None:
        view = self.supervisor.view()
        while True:
            self.release()
            self.instances.retire_others(view.instances)
            view = await self.supervisor.changed(view.generation)
