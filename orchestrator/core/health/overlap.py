"""Tell answers that had the engine's steps to themselves from those that shared them. Pure.

An engine with several slots decodes them in one batch: a step then takes longer, for a reason that is no fault. And a
slot that reads a prompt meanwhile makes steps that much longer that nothing can be said of them at all. Both are known
only once the requests beside have ended, too: an answer waits here until they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

KEPT = 64
"""Answers that are remembered, and that wait at most; with more than that beside each other, some are not judged."""

DISTURBED_SHARE = 0.05
"""The end of a request is seen some milliseconds after the engine's: so much beside a prompt is none."""


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """One request that an engine answered; times are monotonic.

    :param entered: when it was sent to the engine
    :param prompt_ms: that its prompt took, right before its tokens; None where the engine did not say
    :param decode_ms: that its tokens took, right before its end; None where the engine did not say
    :param steps: of the engine, for these tokens: each yields one, and the drafts that were right
    :param depth: tokens of context on average while it decoded; None where that is not known
    :param width: tokens that a step evaluated: one, and the drafts
    :param tokens_per_step: that a step yielded: one, and the drafts that were right
    :param prompt_tokens: that were computed for it
    """

    entered: float
    ended: float
    prompt_ms: float | None = None
    decode_ms: float | None = None
    steps: int = 0
    depth: float | None = None
    width: float = 1.0
    tokens_per_step: float = 1.0
    prompt_tokens: int = 0

    @property
    def decode_from(self) -> float:
        return self.ended - self.decode_ms / 1000 if self.decode_ms is not None else self.ended

    @property
    def prompt_from(self) -> float:
        """Unknown times are taken for a prompt: nothing is concluded from what was beside them."""
        if self.decode_ms is None or self.prompt_ms is None:
            return self.entered

        return self.decode_from - self.prompt_ms / 1000


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """`left` requests that were in flight when this one ended have not ended yet."""

    request: AnsweredRequest
    left: int


@dataclass(frozen=True, slots=True)
class OverlapTracker:
    """The requests that were on the engine lately, oldest first."""

    ended: tuple[AnsweredRequest, ...] = ()
    waiting: tuple[PendingAnswer, ...] = ()


def add_request(
    tracker: OverlapTracker, request: AnsweredRequest, in_flight: int
) -> tuple[OverlapTracker, tuple[tuple[AnsweredRequest, float], ...]]:
    """One more request has ended.

    :param in_flight: requests that are on the engine now
    :return: those of which it is known now how many streams shared their steps (1.0: none), and that no prompt was
        read meanwhile
    """
    ended = (*tracker.ended, request)[-KEPT:]
    waiting = [
        replace(each, left=each.left - 1) if request.entered < each.request.ended else each for each in tracker.waiting
    ]
    waiting.append(PendingAnswer(request, in_flight))
    known = [each.request for each in waiting if each.left <= 0 or not in_flight]
    rest = tuple(each for each in waiting if each.left > 0 and in_flight)[-KEPT:]
    shared = [(each, streams_beside(each, ended)) for each in known if each.decode_ms]
    return OverlapTracker(ended, rest), tuple((each, streams) for each, streams in shared if streams is not None)


def streams_beside(request: AnsweredRequest, others: Sequence[AnsweredRequest]) -> float | None:
    """The number of streams that shared the steps of a request: the harmonic mean over its time, itself included.

    :return: None when a prompt was read meanwhile
    """
    begin, end = request.decode_from, request.ended
    beside = [each for each in others if each is not request and each.ended > begin and each.prompt_from < end]
    reading = sum(max(min(each.decode_from, end) - max(each.prompt_from, begin), 0) for each in beside)
    if reading > DISTURBED_SHARE * (end - begin):
        return None

    cuts = sorted({begin, end, *(at for each in beside for at in (each.decode_from, each.ended) if begin < at < end)})
    inverse = 0.0
    for left, right in zip(cuts, cuts[1:], strict=False):
        streams = 1 + sum(each.decode_from <= left and each.ended >= right for each in beside)
        inverse += (right - left) / streams

    return (end - begin) / inverse if inverse else 1.0
