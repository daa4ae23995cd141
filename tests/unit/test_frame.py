"""What a frame says of the margin."""

from __future__ import annotations

import pytest

from orchestrator.core.ladder import Rung
from orchestrator.core.profile import EngineProfile, Recovery
from orchestrator.core.settings import Value
from orchestrator.core.states import Attempt, Course, Ready, Stopped, Target
from orchestrator.daemon.frame import margin_origin

TARGET = Target("m", "upstream")


def course(*margins: int | None, steps: tuple[str, ...] = ()) -> Course:
    """One attempt for each margin; the last is in force."""
    rungs = [Rung(margin, steps) for margin in margins]
    attempts = tuple(Attempt(number, 0.0, rung) for number, rung in enumerate(rungs, 1))
    return Course(TARGET, rungs[-1] if rungs else None, attempts=attempts)


def profile(margin: int | None) -> EngineProfile:
    settings: dict[str, Value] = {} if margin is None else {"memory.fit": True, "memory.fit_margin": margin}
    return EngineProfile("m", "upstream", "/m.gguf", (), settings, Recovery(), ())


@pytest.mark.parametrize(
    ("tried", "written", "origin"),
    [
        ((1664,), 1664, "profile"),
        ((2048,), 1664, "learned"),
        ((1664, 2048), 1664, "ladder"),
        ((1792, 2048), 1664, "ladder"),
        ((2048, 2048), 1664, "learned"),
        ((None,), None, None),
        ((), 1664, None),
    ],
)
def test_how_a_margin_was_found(tried: tuple[int | None, ...], written: int | None, origin: str | None) -> None:
    state = Ready(course(*tried), "i-1", 1, 0.0)
    assert margin_origin(state, profile(written)) == origin


def test_nothing_runs_and_nothing_has_a_margin() -> None:
    assert margin_origin(Stopped(), None) is None
    assert margin_origin(Stopped(course(1664)), None) is None
