"""Notice that an engine answers every request with an error: health is the success of answers. Pure.

Both engines catch what their devices throw: the process lives, /health is good, and each request ends with a 500. A
window counts the failures in a row. It never decides alone, as a request's own text can make an engine fail (half a
character drawn, more context than there is in the fork): once it is suspicious, questions of our own decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["answered", "failed", "neutral"]

SUSPICIOUS_AFTER = 3
"""Failures in a row; one is enough where the engine's own log says that it could not compute."""

FIRST_GAP_S = 5.0
LONGEST_GAP_S = 60.0
"""Between two questions of our own, while they are answered: errors that are a client's own cost no more than that."""

_NOT_SUPPORTED = 501

_ABOUT_THE_TEXT = ("utf-8", "utf8", "unicode")
"""Words of an error about the text that was drawn: to draw it, the engine has computed."""


@dataclass(frozen=True, slots=True)
class AnswerWindow:
    """What an instance's answers were like.

    :param failures: in a row, without an answer between
    :param in_log: the log told of a request that could not be computed, and of none that could since
    :param next_question_at: before this time (monotonic) no question of our own is asked
    """

    failures: int = 0
    in_log: bool = False
    next_question_at: float = 0.0
    gap_s: float = FIRST_GAP_S


def outcome_of(status: int, outcome: str, output_tokens: int | None, *, generates: bool) -> Outcome:
    """Return what a request that an instance was given says of it.

    A client's mistakes (4xx), a client that left and what the engine does not offer (501) say nothing. Neither does a
    generation without a token: an error may have come in the stream.

    :param outcome: `complete`, `error` or `client_gone`
    """
    if outcome == "client_gone" or 400 <= status < 500 or status == _NOT_SUPPORTED:
        return "neutral"

    if status >= 500 or outcome == "error":
        return "failed"

    return "neutral" if generates and not output_tokens else "answered"


def add_outcome(window: AnswerWindow, outcome: Outcome, *, in_log: bool = False) -> AnswerWindow:
    """Return the window with one more request in it.

    :param in_log: the engine's log says of it, or of one about this time, that it could not be computed
    """
    match outcome:
        case "answered":
            return AnswerWindow()
        case "failed":
            return replace(window, failures=window.failures + 1, in_log=window.in_log or in_log)
        case _:
            return replace(window, in_log=window.in_log or in_log)


def suspicious(window: AnswerWindow, now: float) -> bool:
    """Return whether a question of our own is due."""
    return now >= window.next_question_at and (window.in_log or window.failures >= SUSPICIOUS_AFTER)


def after_question(window: AnswerWindow, now: float) -> AnswerWindow:
    """Return the window once a question of our own was answered, or could not be: the next one may come later."""
    gap_s = min(window.gap_s * 2, LONGEST_GAP_S)
    return AnswerWindow(next_question_at=now + window.gap_s, gap_s=gap_s)


def outcome_of_question(*, ok: bool, status: int | None, cut: bool, detail: str) -> Outcome:
    """Return what a question of our own says of an instance; `neutral` when it says nothing, as a late answer does.

    :param cut: the connection broke before the answer was whole
    """
    if ok or any(word in detail.lower() for word in _ABOUT_THE_TEXT):
        return "answered"

    broken = cut if status is None else status >= 500 and status != _NOT_SUPPORTED
    return "failed" if broken else "neutral"
