"""How fast the engine is, from the raw counts and times that its answers carry.

The engines define their own `predicted_per_second` differently (upstream over n - 1 steps, the fork over n), so the
rate is computed here: n tokens need n - 1 steps after the prompt, because the prompt's last step yields the first one.
"""

from __future__ import annotations

from collections import deque

from orchestrator.api.types import Speed
from orchestrator.gateway.contract import Finished

WINDOW = 32
"""Requests that the acceptance is pooled over."""


class SpeedMeter:
    """Figures of one instance; those of an earlier one are forgotten."""

    def __init__(self) -> None:
        self._instance: str | None = None
        self._recent: deque[Finished] = deque(maxlen=WINDOW)

    def add(self, record: Finished) -> None:
        if record.instance is None or record.predicted_tokens is None:
            return

        if record.instance != self._instance:
            self._instance = record.instance
            self._recent.clear()

        self._recent.append(record)

    def read(self, instance: str | None) -> Speed:
        """The newest rates, and the acceptance over the recent requests; None where nothing was measured yet."""
        if instance is None or instance != self._instance:
            return Speed(decode_tok_s=None, prompt_tok_s=None, draft_acceptance=None)

        decode = prompt = None
        drafted = accepted = 0
        for record in self._recent:
            if record.predicted_tokens and record.predicted_tokens > 1 and record.predicted_ms:
                decode = (record.predicted_tokens - 1) * 1000 / record.predicted_ms

            if record.prompt_tokens and record.prompt_ms:
                prompt = record.prompt_tokens * 1000 / record.prompt_ms

            drafted += record.draft_tokens or 0
            accepted += record.draft_accepted or 0

        return Speed(
            decode_tok_s=round(decode, 2) if decode else None,
            prompt_tok_s=round(prompt, 2) if prompt else None,
            draft_acceptance=round(accepted / drafted, 4) if drafted else None,
        )
