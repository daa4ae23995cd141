"""Notice that an engine that is to draft with MTP no longer does: builds that cannot go on in silence. Pure.

The canary at the start has seen drafts counted. What comes later is read from the answers: none over many tokens, in
answer after answer, is no chance, however unsure the drafter is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LEAST_TOKENS = 1024
LEAST_REQUESTS = 4
"""So many tokens in so many answers without a draft are no chance."""


@dataclass(frozen=True, slots=True)
class DraftHistory:
    """Tokens and answers since the last draft."""

    tokens: int = 0
    requests: int = 0
    lost: bool = False


def add_answer(
    history: DraftHistory, tokens: int, *, drafted: bool
) -> tuple[DraftHistory, Literal["lost", "back"] | None]:
    """Return the history with one more answer, and the news.

    :param tokens: that were generated
    :return: "lost" when drafts have just stopped, "back" when they have come again
    """
    if drafted:
        return DraftHistory(), "back" if history.lost else None

    tokens, requests = history.tokens + tokens, history.requests + 1
    lost = tokens >= LEAST_TOKENS and requests >= LEAST_REQUESTS
    return DraftHistory(tokens, requests, lost), "lost" if lost and not history.lost else None
