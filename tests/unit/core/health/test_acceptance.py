from __future__ import annotations

import random
from functools import partial

import pytest

from orchestrator.core.bench.mtp_gain import gain_at
from orchestrator.core.health.acceptance import (
    AcceptanceHistory,
    DraftedAnswer,
    Gain,
    add_drafted,
    describe_low,
)


def answer(share: float, drafts: int = 300) -> DraftedAnswer:
    """With 3 drafts a step, and 50 ms a step."""
    accepted = round(drafts * share)
    return DraftedAnswer(drafts, accepted, drafts // 3 + accepted + 1, 50.0 * (drafts // 3))


def after(*answers: DraftedAnswer, gain: Gain | None = None) -> tuple[AcceptanceHistory, list[str | None]]:
    history = AcceptanceHistory()
    said: list[str | None] = []
    for each in answers:
        history, news = add_drafted(history, each, gain)
        said.append(news)

    return history, said


def test_drafts_that_are_mostly_wrong_are_noticed_once_and_so_is_their_recovery() -> None:
    history, said = after(*[answer(0.4)] * 12, *[answer(0.7)] * 12)
    assert [each for each in said if each] == ["low", "well"]
    assert said[7] == "low" and not history.low


@pytest.mark.parametrize("answers", [[answer(0.2)] * 7, [answer(0.2, 90)] * 11])
def test_a_few_answers_or_drafts_are_chance(answers: list[DraftedAnswer]) -> None:
    assert not any(after(*answers)[1])


def test_around_the_bound_it_is_not_said_again_and_again() -> None:
    said = after(*[answer(0.49), answer(0.51)] * 40)[1]
    assert [each for each in said if each] in ([], ["low"])


@pytest.mark.parametrize("seed", range(20))
def test_a_drafter_that_is_right_as_published_is_never_called_so(seed: int) -> None:
    """Shares of nine prompts from 0.54 to 0.93 (llama.cpp pull request 22673), drawn anew for each answer."""
    drawn = random.Random(seed)
    shares = (0.84, 0.84, 0.64, 0.93, 0.73, 0.76, 0.59, 0.64, 0.79)
    assert not any(after(*(answer(drawn.choice(shares), drawn.randint(60, 400)) for _ in range(300)))[1])


def test_where_the_cost_of_a_draft_is_known_it_decides() -> None:
    cheap, dear = partial(gain_at, 0.2), partial(gain_at, 0.9)
    assert not after(*[answer(0.4)] * 12, gain=cheap)[0].low  # 40 % right, and it still pays
    assert after(*[answer(0.8)] * 12, gain=dear)[0].low  # 80 % right, and it does not


def test_the_loss_is_said_where_it_was_measured() -> None:
    gain = partial(gain_at, 0.9)
    history = after(*[answer(0.4)] * 12, gain=gain)[0]
    text = describe_low(history, 1.0, gain, "bench 12", "p")
    # 2.2 tokens in 50 ms; (1 + 3 x 0.9) / 2.2 of that without.
    assert "that loses 30.0 tok/s: 44.0 with MTP, about 74.0 without (by bench 12)" in text
    assert "40 % of the last 2400 drafts" in text and "temperature, 1, under 50 % is usual" in text
    assert "`orch profile set p speculative.type=none`" in text


def test_many_right_drafts_are_not_called_few_for_a_temperature() -> None:
    gain = partial(gain_at, 0.9)
    text = describe_low(after(*[answer(0.8)] * 12, gain=gain)[0], 0.2, gain, "bench 12", "p")
    assert "80 % of the last 2400 drafts of MTP were right (too few for what a draft costs on this machine)" in text


@pytest.mark.parametrize("gain", [None, lambda share, drafts: 0.0])
def test_else_it_is_said_to_be_unknown_and_how_it_is_measured(gain: Gain | None) -> None:
    text = describe_low(after(*[answer(0.4)] * 12)[0], 0.2, gain, "", "p")
    assert "whether that costs speed here is unknown" in text
    assert "`orch bench p p+speculative.type=none`" in text and "few for the profile's temperature, 0.2" in text
