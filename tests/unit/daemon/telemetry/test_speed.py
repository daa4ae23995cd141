from __future__ import annotations

import pytest

from orchestrator.daemon.telemetry.speed import WINDOW, SpeedMeter
from orchestrator.gateway.contract import Finished

NOTHING = {"decode_tok_s": None, "prompt_tok_s": None, "draft_acceptance": None}


def answered(
    instance: str | None = "s.1",
    *,
    prompt: tuple[int, float] | None = (100, 50.0),
    predicted: tuple[int | None, float | None] = (11, 1000.0),
    drafts: tuple[int, int] | None = None,
) -> Finished:
    """A request; pairs are a count and milliseconds, or drafted and accepted."""
    return Finished(
        instance=instance,
        route="/v1/chat/completions",
        status=200,
        outcome="complete",
        held_s=0.0,
        first_token_s=0.1,
        total_s=1.0,
        prompt_tokens=prompt[0] if prompt else None,
        prompt_ms=prompt[1] if prompt else None,
        output_tokens=predicted[0],
        output_ms=predicted[1],
        draft_tokens=drafts[0] if drafts else None,
        draft_accepted=drafts[1] if drafts else None,
    )


def test_nothing_measured_is_nothing_shown() -> None:
    meter = SpeedMeter()
    assert meter.read(None) == meter.read("s.1") == NOTHING


def test_n_tokens_took_n_minus_one_steps() -> None:
    meter = SpeedMeter()
    meter.add(answered(predicted=(11, 1000.0), prompt=(100, 50.0)))
    assert meter.read("s.1") == {"decode_tok_s": 10.0, "prompt_tok_s": 2000.0, "draft_acceptance": None}


def test_the_newest_rate_is_shown() -> None:
    meter = SpeedMeter()
    meter.add(answered(predicted=(11, 1000.0)))
    meter.add(answered(predicted=(11, 500.0)))
    assert meter.read("s.1")["decode_tok_s"] == 20.0


@pytest.mark.parametrize("predicted", [(1, 5.0), (0, 0.0), (11, 0.0), (11, None), (None, None)])
def test_an_answer_too_short_to_measure_leaves_the_last_rate(predicted: tuple[int | None, float | None]) -> None:
    meter = SpeedMeter()
    meter.add(answered(predicted=(11, 1000.0)))
    meter.add(answered(predicted=predicted, prompt=None))
    assert meter.read("s.1") == {"decode_tok_s": 10.0, "prompt_tok_s": 2000.0, "draft_acceptance": None}


def test_acceptance_is_pooled_over_requests_not_averaged() -> None:
    meter = SpeedMeter()
    meter.add(answered(drafts=(1, 0)))
    meter.add(answered(drafts=(9, 9)))
    assert meter.read("s.1")["draft_acceptance"] == 0.9


def test_drafts_of_which_none_was_accepted_are_a_figure() -> None:
    meter = SpeedMeter()
    meter.add(answered(drafts=(8, 0)))
    assert meter.read("s.1")["draft_acceptance"] == 0.0


def test_acceptance_forgets_what_is_long_ago() -> None:
    meter = SpeedMeter()
    meter.add(answered(drafts=(100, 0)))
    for _ in range(WINDOW):
        meter.add(answered(drafts=(10, 10)))

    assert meter.read("s.1")["draft_acceptance"] == 1.0


def test_figures_of_one_instance_are_not_shown_for_another() -> None:
    meter = SpeedMeter()
    meter.add(answered("s.1"))
    assert meter.read("s.2") == NOTHING
    assert meter.read(None) == NOTHING


def test_a_replaced_instance_that_ends_its_last_stream_does_not_wipe_the_figures_of_the_new_one() -> None:
    meter = SpeedMeter()
    meter.add(answered("old.1", predicted=(11, 1000.0)))
    meter.add(answered("new.1", predicted=(21, 1000.0)))
    meter.add(answered("old.1", predicted=(11, 500.0)))
    assert meter.read("new.1")["decode_tok_s"] == 20.0


def test_instances_long_gone_are_forgotten() -> None:
    meter = SpeedMeter()
    for number in range(100):
        meter.add(answered(f"s.{number}"))

    known = [number for number in range(100) if meter.read(f"s.{number}") != NOTHING]
    assert known == [98, 99]


def test_a_request_that_no_instance_answered_says_nothing_about_speed() -> None:
    meter = SpeedMeter()
    meter.add(answered(None))
    assert meter.read(None) == NOTHING
