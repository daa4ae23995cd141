"""Whether a new build becomes the current one: it computes rightly, and is no slower than is tolerated. Pure.

What was found comes in, a decision with its reason goes out. The reason is kept beside the build, and is all that
people see of one that was not made current: it says what was found, and what would have been allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.core.bench.gate import PASSES, GateSpeed
from orchestrator.core.quantities import shown_change
from orchestrator.core.verify.checks import Verdict

GateState = Literal["running", "interrupted", "accepted", "waiting", "refused", "undecided"]
"""Of a build's gate. `waiting`: it has passed, and nobody has made it current yet; `undecided`: it could not be
measured, and the current build stays.
"""


@dataclass(frozen=True, slots=True)
class BuildTruth:
    """What `orch verify` found of a build.

    :param failed: the names of the checks that failed
    """

    verdict: Verdict
    summary: str
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildSpeed:
    """What a bench of the new build against the current one found; ratios are the new one's rate over the current's."""

    speed: GateSpeed
    ratio: float
    low: float
    high: float
    blocks: int
    profile: str
    against: str


@dataclass(frozen=True, slots=True)
class NotCompared:
    """There was nothing to compare with, or no way to: verification alone decides."""

    reason: str


@dataclass(frozen=True, slots=True)
class DoesNotServe:
    """The profile runs on the current build, and not on the new one."""

    profile: str
    reason: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    accepted: bool
    reason: str


def judge_truth(new: BuildTruth | None, current: BuildTruth | None) -> GateDecision:
    """Return whether a build computes rightly enough to be compared by speed.

    A check that the current build fails as well is no reason to keep the current one.

    :param new: None where verification was left out
    :param current: None where nothing is known of the current build, or there is none
    """
    if new is None:
        return GateDecision(True, "not verified")

    if new.verdict != "wrong":
        return GateDecision(True, f"{new.verdict} ({new.summary})")

    known = current.failed if current is not None else ()
    if added := [name for name in new.failed if name not in known]:
        others = ", which the current build passes" if current is not None else ""
        return GateDecision(False, f"it computes wrongly: {_names(added)}{others}")

    if not new.failed:
        return GateDecision(False, f"it computes wrongly: {new.summary}")

    return GateDecision(True, f"wrong as the current build is ({new.summary})")


def decide(truth: GateDecision, speed: BuildSpeed | NotCompared | DoesNotServe, tolerate_slower: float) -> GateDecision:
    """Return the decision over a build.

    :param truth: what `judge_truth` said
    :param tolerate_slower: share of the current build's rate, 0.03 for 3 %
    """
    if not truth.accepted:
        return truth

    match speed:
        case NotCompared(reason):
            return GateDecision(True, f"{truth.reason}; its speed was not compared: {reason}")
        case DoesNotServe(profile, reason):
            return GateDecision(False, f"`{profile}` runs on the current build, and not on this one: {reason}")
        case BuildSpeed():
            return GateDecision(speed.speed in PASSES, f"{truth.reason}; {speed_text(speed, tolerate_slower)}")


def speed_text(found: BuildSpeed, tolerate_slower: float) -> str:
    """Return what was measured in a sentence, with its interval and what is tolerated."""
    interval = f"{shown_change(found.low)} to {shown_change(found.high)}"
    words = {
        "fast_enough": "no slower than is tolerated",
        "too_slow": "too slow",
        "probably_fast_enough": "probably no slower than is tolerated",
        "probably_too_slow": "probably too slow",
        "too_noisy": "the machine was too busy to compare its speed",
        "unknown": "not decided",
    }[found.speed]
    open_end = (
        f"; the interval holds the limit after {found.blocks} blocks, so that the estimate decides"
        if found.speed.startswith("probably")
        else ""
    )
    return (
        f"{words}: {shown_change(found.ratio)} ({interval}) with `{found.profile}` against {found.against}, "
        f"-{100 * tolerate_slower:g} % is tolerated{open_end}"
    )


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
