"""Notice that an instance that is ready no longer works: a decision from one sample after the other. Pure.

Three verdicts. `ok`. `unroute`: it does not answer at the moment, so new requests are held; nothing is ended.
`hung`: it is ended and started again.

Busy is never hung. What counts is progress, of whatever kind can be seen: tokens that reached clients, the counters of
/slots, the engine's own lines about its prompt. A slow /health is no sign of death by itself: the fork answers it
between two batches. An answer to /health is no sign of life either: both engines give it while inference is dead.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["ok", "unroute", "hung"]


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """The patience of the watch.

    :param every_s: time between two samples
    :param timeout_s: how long an engine may take to answer one question
    :param stall_s: without any progress for so long, an engine that should have made some is hung
    :param unroute_after: samples in a row without an answer, until new requests are held
    :param hung_after: samples in a row in which the process was stopped, until it is ended
    """

    every_s: float = 10.0
    timeout_s: float = 5.0
    stall_s: float = 120.0
    unroute_after: int = 2
    hung_after: int = 4

    @property
    def gap_s(self) -> float:
        """A longer time between two samples says that nobody was there to take them."""
        return 2 * (self.every_s + 2 * self.timeout_s)


@dataclass(frozen=True, slots=True)
class LivenessSample:
    """One look at an instance.

    :param stopped: the process is stopped by a signal or a debugger
    :param answered: /health was good in time
    :param in_flight: requests that it has to answer
    :param work: anything that changes when it makes progress, and only then
    """

    stopped: bool
    answered: bool
    in_flight: int
    work: Hashable


@dataclass(frozen=True, slots=True)
class LivenessHistory:
    """The past that the next sample is compared with.

    :param moved_at: when it last made progress, or had nothing to do
    :param silent: samples in a row without an answer or any progress; `stopped` likewise
    """

    looked_at: float
    moved_at: float
    work: Hashable = None
    silent: int = 0
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    """:param reason: for people; empty when all is well"""

    kind: Kind
    reason: str = ""


def begin(now: float) -> LivenessHistory:
    """The history of an instance that has just become ready, or of one that nobody has looked at for a while."""
    return LivenessHistory(now, now)


def assess(
    history: LivenessHistory, sample: LivenessSample, now: float, policy: LivenessPolicy
) -> tuple[LivenessHistory, LivenessVerdict]:
    """Judge a sample, in this order.

    1. Nobody looked for a long time (the daemon was suspended): what was seen before, and this look, say nothing.
    2. The process is stopped: no new requests at once; ended after `hung_after` looks.
    3. Progress, or an answer with nothing to do: all is well.
    4. No progress for `stall_s`, and it should have made some: hung.
    5. No answer and no progress for `unroute_after` looks: no new requests.
    """
    if now - history.looked_at > policy.gap_s:
        return replace(begin(now), work=sample.work), LivenessVerdict("ok")

    moved = sample.work != history.work
    idle = sample.in_flight == 0 and sample.answered
    history = LivenessHistory(
        looked_at=now,
        moved_at=now if moved or idle else history.moved_at,
        work=sample.work,
        silent=0 if moved or sample.answered else history.silent + 1,
        stopped=history.stopped + 1 if sample.stopped else 0,
    )
    if sample.stopped:
        kind: Kind = "hung" if history.stopped >= policy.hung_after else "unroute"
        return history, LivenessVerdict(kind, "the process is stopped (by SIGSTOP or a debugger)")

    still_s = now - history.moved_at
    if still_s >= policy.stall_s:
        what = f"{sample.in_flight} requests in flight" if sample.in_flight else "/health unanswered"
        return history, LivenessVerdict("hung", f"no progress for {still_s:.0f} s with {what}")

    if history.silent >= policy.unroute_after:
        return history, LivenessVerdict(
            "unroute", f"/health was not answered {history.silent} times, and nothing moved"
        )

    return history, LivenessVerdict("ok")
