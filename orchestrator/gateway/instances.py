"""The instances that requests are sent to: the requests in flight, the bytes that were answered, the connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from orchestrator.adapters.http1 import UpstreamPool
from orchestrator.gateway.contract import Endpoint


class InstanceTraffic:
    """The traffic of one instance. `admission.Admission` enters and leaves it.

    :param forget: called when the instance is retired and its last request has ended
    :ivar places: requests that count among those which the instance is given at a time: looks at an engine do not
    :ivar relayed_bytes: bytes of answers since the daemon turned to the instance; comments of a stream are no answer
    :ivar idle: set while no request is in flight
    """

    __slots__ = ("_forget", "_pool", "idle", "in_flight", "places", "relayed_bytes")

    def __init__(self, forget: Callable[[], object]) -> None:
        self._forget = forget
        self._pool: UpstreamPool | None = None
        self.in_flight = 0
        self.places = 0
        self.relayed_bytes = 0
        self.idle = asyncio.Event()

    def enter(self) -> None:
        """Count a request that is sent to the instance."""
        if not self.in_flight:
            self.idle.clear()

        self.in_flight += 1

    def leave(self) -> None:
        """Count a request that is not with the instance any more."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()
            if self._pool is None:  # it was replaced while it still streamed
                self._forget()

    def pool(self, endpoint: Endpoint) -> UpstreamPool:
        """Return the connections to the instance, which is the one to ask as long as it has them."""
        if self._pool is None:
            self._pool = UpstreamPool(endpoint.host, endpoint.port)

        return self._pool

    def retire(self) -> None:
        """Close the connections, those in use as they end, and count anew: the daemon has turned away from it."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self.relayed_bytes = 0

        if not self.in_flight:
            self._forget()


class InstanceTable:
    """The traffic of each instance, kept from its first request until it is retired and its last request has ended."""

    def __init__(self) -> None:
        self._traffic: dict[str, InstanceTraffic] = {}

    @property
    def in_flight_total(self) -> int:
        """The number of requests that are with any instance."""
        return sum(each.in_flight for each in self._traffic.values())

    def traffic(self, instance: str) -> InstanceTraffic:
        """Return the traffic of an instance, which may be new."""
        found = self._traffic.get(instance)
        if found is None:
            found = self._traffic[instance] = InstanceTraffic(lambda: self._traffic.pop(instance, None))

        return found

    def in_flight(self, instance: str) -> int:
        """Return the number of requests that are with an instance."""
        found = self._traffic.get(instance)
        return found.in_flight if found is not None else 0

    def relayed_bytes(self, instance: str) -> int:
        """Return the bytes of answers that an instance has given."""
        found = self._traffic.get(instance)
        return found.relayed_bytes if found is not None else 0

    async def wait_idle(self, instance: str, timeout_s: float) -> bool:
        """Wait until the last request of an instance has ended; return False when the time is up before."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.in_flight(instance):
                    await self._traffic[instance].idle.wait()
        except TimeoutError:
            return False

        return True

    def places(self, instance: str) -> int:
        """Return the number of requests that count among those which an instance is given at a time."""
        found = self._traffic.get(instance)
        return found.places if found is not None else 0

    def retire_others(self, serving: Collection[str]) -> None:
        """Retire all instances but those that serve."""
        for instance in tuple(self._traffic):
            if instance not in serving:
                self._traffic[instance].retire()

    def close(self) -> None:
        """Close all connections, those in use as they end."""
        self.retire_others(())
