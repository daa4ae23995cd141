"""The ledger of requests: each one that ends is entered once, and told to whoever subscribed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, time

from orchestrator.api.types import SpeedStatus
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.daemon.telemetry.energy import EnergyBook
from orchestrator.daemon.telemetry.history import HistoryWriter, record_of
from orchestrator.daemon.telemetry.speed import SpeedMeter
from orchestrator.daemon.telemetry.totals import Totals
from orchestrator.gateway.contract import Finished

KEPT_REQUESTS = 64


class RequestLedger:
    """Enters requests into the totals, the speed figures and the history.

    :ivar recent: the requests that ended last, oldest first
    """

    def __init__(self, totals: Totals, history: HistoryWriter, energy: EnergyBook) -> None:
        self._totals = totals
        self._history = history
        self._energy = energy
        self._speed = SpeedMeter()
        self._joules: dict[int, float] = {}
        self._subscribers: list[Callable[[Finished], None]] = []
        self.recent: deque[Finished] = deque(maxlen=KEPT_REQUESTS)

    def subscribe(self, subscriber: Callable[[Finished], None]) -> None:
        """Call this with each request that ends."""
        self._subscribers.append(subscriber)

    def finished(self, record: Finished) -> None:
        """Enter one request that has ended."""
        self._totals.finished(record)
        self._speed.add(record)
        self.recent.append(record)
        for subscriber in self._subscribers:
            subscriber(record)

        row = record_of(record, time(), monotonic())
        self._energy.finished(record, lambda joules: self._settle(record.id, row, joules))

    def _settle(self, number: int, row: RequestRecord, joules: float | None) -> None:
        """Take a request's energy, which comes later than its end, and give its row to the history."""
        if joules is not None:
            self._joules[number] = joules = round(joules, 3)
            row = replace(row, energy_j=joules)
            while len(self._joules) > KEPT_REQUESTS:
                del self._joules[next(iter(self._joules))]

        self._history.add_request(row)

    def energy_j(self, number: int) -> float | None:
        """Return the energy of one of the recent requests; None while it is not known, or when it never is."""
        return self._joules.get(number)

    def refused(self, code: str) -> None:
        """Count a request that got no further than the gateway's guard."""
        self._totals.refused(code)

    def speed(self, instance: str | None) -> SpeedStatus:
        """Return the newest rates of an instance, and its acceptance over the recent requests."""
        return self._speed.read(instance)
