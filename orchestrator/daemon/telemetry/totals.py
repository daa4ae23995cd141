"""The counters since the daemon started. Plain numbers, which only ever grow: `metrics.py` writes them out.

They belong to the loop. Counting costs a few microseconds a request, and needs no library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.energy.sharing import Pair
from orchestrator.core.fleet.lifecycle_states import Ready, Starting, State
from orchestrator.core.fleet.resident_states import SwitchFinished
from orchestrator.core.fleet.state_summary import start_record_of
from orchestrator.gateway.contract import Finished

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)

MAX_PAIRS = 16
"""Pairs of profile and engine with series of their own; a Prometheus pays for each series."""

OTHER = ("other", "other")
MAX_CLIENTS = 32
"""Named keys with series of their own."""

OTHER_CLIENT = "other"


class Histogram:
    """Observations by upper bound; the last count is for what is above all of them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class PairTotals:
    """The counters of one profile on one engine. Tokens are those that the engine said it counted."""

    outcomes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    prompt_s: float = 0.0
    output_tokens: int = 0
    output_s: float = 0.0
    draft_tokens: int = 0
    draft_accepted: int = 0
    request_s: Histogram = field(default_factory=Histogram)
    first_token_s: Histogram = field(default_factory=Histogram)
    queue_s: Histogram = field(default_factory=Histogram)
    token_s: Histogram = field(default_factory=lambda: Histogram(TOKEN_SECONDS))
    load_s: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class ClientTotals:
    """The counters of one named key."""

    outcomes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    output_tokens: int = 0


class Totals:
    """Counts what it is told.

    :ivar clients: by the name of the key; requests without one are in no entry
    :ivar switches: by `ok`, `rolled_back` and `failed`
    :ivar keys_refused: requests with a wrong key, or none where one is needed
    :ivar limited: requests that were refused because their key had reached a limit
    """

    def __init__(self) -> None:
        self.pairs: dict[Pair, PairTotals] = {}
        self.clients: dict[str, ClientTotals] = {}
        self.keys_refused = 0
        self.limited = 0
        self.replayed = 0
        self.switches: Counter[str] = Counter(ok=0, rolled_back=0, failed=0)
        self.memory_retries = 0
        self._slots: Mapping[str, State] = {}

    def finished(self, record: Finished) -> None:
        """Count a request that has ended."""
        totals = self._pair(record.profile, record.engine)
        totals.outcomes[record.outcome] += 1
        self.replayed += record.replays
        totals.request_s.observe(max(record.total_s, 0.0))
        totals.queue_s.observe(max(record.held_s, 0.0))
        if record.first_token_s is not None:
            totals.first_token_s.observe(max(record.first_token_s, 0.0))

        # An engine's figures are somebody else's: a negative one must not make a counter go down.
        totals.prompt_tokens += max(record.prompt_tokens or 0, 0)
        totals.prompt_s += max(record.prompt_ms or 0.0, 0.0) / 1000
        output, output_ms = max(record.output_tokens or 0, 0), max(record.output_ms or 0.0, 0.0)
        totals.output_tokens += output
        totals.output_s += output_ms / 1000
        totals.draft_tokens += max(record.draft_tokens or 0, 0)
        totals.draft_accepted += max(record.draft_accepted or 0, 0)
        if output > 1 and output_ms:
            totals.token_s.observe(output_ms / 1000 / (output - 1))  # n tokens take n - 1 steps: see contract.py

        if record.client is not None:
            client = self._client(record.client)
            client.outcomes[record.outcome] += 1
            client.prompt_tokens += max(record.prompt_tokens or 0, 0)
            client.output_tokens += output

    def refused(self, code: str) -> None:
        """Count a request that got no further than the gateway's guard."""
        if code == "too_many_requests":
            self.limited += 1
        else:
            self.keys_refused += 1

    def switched(self, event: SwitchFinished) -> None:
        self.switches["ok" if event.ok else "rolled_back" if event.rolled_back else "failed"] += 1

    def looked(self, slots: Mapping[str, State], now: float) -> None:
        """Count what a change of the fleet means; `now` is monotonic."""
        for slot, state in slots.items():
            before = self._slots.get(slot)
            if before is not None and before is not state:
                self._moved(before, state, now)

        self._slots = slots

    def _moved(self, before: State, state: State, now: float) -> None:
        earlier, start_record = start_record_of(before), start_record_of(state)
        if start_record is None or not start_record.attempts:
            return

        last = start_record.attempts[-1]
        if isinstance(before, Starting) and isinstance(state, Ready):
            target = start_record.target
            self._pair(target.profile, target.engine).load_s.observe(max(now - last.started, 0.0))

        known = earlier.attempts[-1].number if earlier is not None and earlier.attempts else 0
        if last.number > known and len(start_record.attempts) > 1 and start_record.attempts[-2].outcome == "device_oom":
            self.memory_retries += 1

    def _client(self, name: str) -> ClientTotals:
        if name not in self.clients and len(self.clients) >= MAX_CLIENTS:
            name = OTHER_CLIENT

        return self.clients.setdefault(name, ClientTotals())

    def _pair(self, profile: str | None, engine: str | None) -> PairTotals:
        pair = (profile or "", engine or "")
        if pair not in self.pairs and len(self.pairs) >= MAX_PAIRS:
            pair = OTHER

        return self.pairs.setdefault(pair, PairTotals())
