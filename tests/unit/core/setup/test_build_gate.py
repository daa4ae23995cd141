"""Which builds are made current, and what is said of those that are not."""

from __future__ import annotations

import pytest

from orchestrator.core.bench.gate import GateSpeed
from orchestrator.core.setup.build_gate import (
    BuildSpeed,
    BuildTruth,
    DoesNotServe,
    GateDecision,
    NotCompared,
    decide,
    judge_truth,
)

RIGHT = BuildTruth("right", "24 checks passed")
WRONG = BuildTruth("wrong", "2 of 24 checks failed: seeds, accepted drafts", ("seeds", "accepted drafts"))
GOOD = GateDecision(True, "right (24 checks passed)")


def speed(says: GateSpeed, ratio: float, low: float, high: float) -> BuildSpeed:
    return BuildSpeed(says, ratio, low, high, 16, "mine", "b1")


@pytest.mark.parametrize("current", [None, RIGHT, WRONG])
def test_a_build_that_is_right_passes(current: BuildTruth | None) -> None:
    assert judge_truth(RIGHT, current) == GOOD


@pytest.mark.parametrize(
    ("current", "says"),
    [
        (None, "it computes wrongly: seeds, accepted drafts"),
        (RIGHT, "it computes wrongly: seeds, accepted drafts, which the current build passes"),
        (BuildTruth("wrong", "", ("seeds",)), "it computes wrongly: accepted drafts, which the current build passes"),
    ],
)
def test_a_wrong_build_is_refused_with_what_it_adds_to_the_current_ones_failures(
    current: BuildTruth | None, says: str
) -> None:
    assert judge_truth(WRONG, current) == GateDecision(False, says)


def test_what_the_current_build_fails_as_well_is_no_reason_to_keep_it() -> None:
    found = judge_truth(WRONG, BuildTruth("wrong", "", ("accepted drafts", "seeds", "slots side by side")))
    assert found.accepted and found.reason.startswith("wrong as the current build is")


def test_a_wrong_build_of_which_no_check_is_named_is_refused() -> None:
    assert not judge_truth(BuildTruth("wrong", "odd"), BuildTruth("wrong", "odd")).accepted


def test_a_wrong_build_is_not_helped_by_its_speed() -> None:
    refused = judge_truth(WRONG, RIGHT)
    assert decide(refused, speed("fast_enough", 1.5, 1.4, 1.6), 0.03) == refused


def test_without_a_comparison_verification_decides_and_that_is_said() -> None:
    assert decide(GOOD, NotCompared("no profile has used it"), 0.03) == GateDecision(
        True, "right (24 checks passed); its speed was not compared: no profile has used it"
    )
    assert decide(judge_truth(None, None), NotCompared("x"), 0.03).reason.startswith("not verified")


def test_a_build_on_which_the_profile_does_not_run_is_refused() -> None:
    assert decide(GOOD, DoesNotServe("mine", "unknown argument: --x"), 0.03) == GateDecision(
        False, "`mine` runs on the current build, and not on this one: unknown argument: --x"
    )


@pytest.mark.parametrize(
    ("found", "accepted", "says"),
    [
        (
            speed("fast_enough", 1.004, 0.988, 1.02),
            True,
            "no slower than is tolerated: +0.4 % (-1.2 % to +2.0 %) with `mine` against b1, -3 % is tolerated",
        ),
        (speed("too_slow", 0.92, 0.9, 0.94), False, "too slow: -8.0 % (-10.0 % to -6.0 %) with `mine`"),
        (speed("probably_fast_enough", 0.99, 0.95, 1.03), True, "after 16 blocks, so that the estimate decides"),
        (speed("probably_too_slow", 0.96, 0.93, 0.99), False, "probably too slow: -4.0 % (-7.0 % to -1.0 %)"),
        (speed("too_noisy", 0.87, 0.66, 1.14), True, "the machine was too busy to compare its speed: -13.0 % (-34.0 %"),
        (speed("unknown", 1.0, 0.5, 2.0), False, "not decided"),
    ],
)
def test_the_reason_tells_the_interval_and_what_is_tolerated(found: BuildSpeed, accepted: bool, says: str) -> None:
    decision = decide(GOOD, found, 0.03)
    assert decision.accepted is accepted
    assert decision.reason.startswith("right (24 checks passed); ") and says in decision.reason
