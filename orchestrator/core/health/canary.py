"""Whether two answers to one prompt can come from an engine that computes rightly. Pure.

At temperature 0 a prompt has one answer, whether it is read at once or in pieces. Honest engines differ a little
between the shapes of their batches, so that tokens that are nearly as likely may change places: what counts is a token
that is sure in one answer and doubted in the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

SURE = 0.6
DOUBTED = 0.5
APART = 2.4
"""Log-odds: 0.6 against 0.12, 0.8 against 0.27, 0.9 against 0.45. Between batches of other shapes upstream differs by a
tenth of it (SmolLM2 135M on a processor, tokens of 0.2 to 0.9)."""

Agreement = Literal["agree", "differ", "empty"]


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """One token of an answer.

    :param likely: the likeliest tokens and their probabilities; empty where the engine does not tell
    """

    text: str
    likely: Mapping[str, float] = field(default_factory=dict)


def compare_answers(at_once: Sequence[DrawnToken], in_pieces: Sequence[DrawnToken], tokens: int | None) -> Agreement:
    """Return whether two answers to one prompt agree as far as both go.

    :param at_once: with the prompt read at once; `in_pieces` with the prompt read a few tokens at a time
    :param tokens: that the engine counted for the two, the one that ends an answer included; None when it did not
    """
    if not at_once and not in_pieces:
        return "agree" if tokens else "empty"

    if not at_once or not in_pieces:
        first = (at_once or in_pieces)[0]
        # One has ended where the other goes on; where the engine tells nothing of likelihoods, that is too odd already.
        return "differ" if not first.likely or max(first.likely.values()) >= SURE else "agree"

    for one, other in zip(at_once, in_pieces, strict=False):
        if _contradict(one, other) or _contradict(other, one):
            return "differ"

        if one.text != other.text:
            break  # from here on they continue different texts

    return "agree"


def _contradict(one: DrawnToken, other: DrawnToken) -> bool:
    if not one.likely or not other.likely:
        return False

    token = max(one.likely, key=lambda each: one.likely[each])
    sure, doubted = one.likely[token], other.likely.get(token, 0.0)
    return sure >= SURE and doubted <= DOUBTED and _log_odds(sure) - _log_odds(doubted) >= APART


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1.0 - 1e-6)
    return math.log(clipped / (1.0 - clipped))
