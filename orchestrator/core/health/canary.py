"""Whether two answers to one prompt can come from an engine that computes rightly. Pure.

At temperature 0 a prompt has one answer, whether it is read at once or in pieces. Honest engines differ a little
between the shapes of their batches, so that tokens that are nearly as likely may change places: what counts is a token
that is sure in one answer and out of the question in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

SURE = 0.6
OUT_OF_THE_QUESTION = 0.1

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
    return one.likely[token] >= SURE and other.likely.get(token, 0.0) <= OUT_OF_THE_QUESTION
