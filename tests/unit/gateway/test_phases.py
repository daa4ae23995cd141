from __future__ import annotations

from typing import get_args

from orchestrator.gateway.phases import NEXT, AwaitingHead, Concluded, Phase, Queued, ReadingBody, Recovering, Relaying


def test_each_phase_says_what_may_follow() -> None:
    assert set(NEXT) == set(get_args(Phase))
    assert NEXT[Concluded] == ()


def test_a_request_can_end_in_every_phase() -> None:
    assert all(Concluded in following for phase, following in NEXT.items() if phase is not Concluded)


def test_a_request_comes_back_to_the_queue_only_from_a_failure() -> None:
    assert [phase for phase, following in NEXT.items() if Queued in following] == [ReadingBody, Recovering]
    assert [phase for phase, following in NEXT.items() if Recovering in following] == [AwaitingHead, Relaying]
