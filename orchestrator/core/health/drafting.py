"""Whether an engine that is to draft with MTP still does: builds that cannot go on without a word. Pure.

The canary at the start has seen drafts counted. What comes later is read from the answers: none over many tokens, in
answer after answer, is no chance, however unsure the drafter is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LEAST_TOKENS = 1024
LEAST_REQUESTS = 4


@dataclass(frozen=True, slots=True)
class DraftHistory:
    """Tokens and answers since the last draft."""

    tokens: int = 0
    requests: int = 0
    lost: bool = False


def count(drafting: DraftHistory, tokens: int, *, drafted: bool) -> tuple[DraftHistory, Literal["lost", "back"] | None]:
    """One more answer.

    :param tokens: that were generated
    :return: also what is news
    """
    if drafted:
        return DraftHistory(), "back" if drafting.lost else None

    tokens, requests = drafting.tokens + tokens, drafting.requests + 1
    lost = tokens >= LEAST_TOKENS and requests >= LEAST_REQUESTS
    return DraftHistory(tokens, requests, lost), "lost" if lost and not drafting.lost else None
