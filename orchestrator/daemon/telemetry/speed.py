"""Speed figures of the engine, from the raw counts and times that its answers carry (rates: `gateway/contract.py`)."""

from __future__ import annotations

from collections import deque

from orchestrator.api.types import SpeedStatus
from orchestrator.gateway.contract import Finished

WINDOW = 32
"""Requests that the acceptance is pooled over."""

KEPT_INSTANCES = 2
"""A replaced instance ends its streams while the new one answers already: their records come mixed."""


class SpeedMeter:
    """Keeps figures of the last two instances."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[Finished]] = {}

    def add(self, record: Finished) -> None:
        if record.instance is None or record.output_tokens is None:
            return

        self._recent.setdefault(record.instance, deque(maxlen=WINDOW)).append(record)
        for instance in list(self._recent)[:-KEPT_INSTANCES]:
            del self._recent[instance]

    def read(self, instance: str | None) -> SpeedStatus:
        """Return the newest rates, and the acceptance over the recent requests; None where nothing was measured yet."""
        decode = prompt = None
        drafted = accepted = 0
        for record in self._recent.get(instance or "", ()):
            decode = record.decode_tok_s or decode
            prompt = record.prompt_tok_s or prompt
            drafted += record.draft_tokens or 0
            accepted += record.draft_accepted or 0

        return SpeedStatus(
            decode_tok_s=round(decode, 2) if decode else None,
            prompt_tok_s=round(prompt, 2) if prompt else None,
            draft_acceptance=round(accepted / drafted, 4) if drafted else None,
        )
