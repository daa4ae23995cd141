"""Rates from raw counts, with requests that come and go between samples."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from orchestrator.core.measure.rates import (
    MAX_S,
    CounterSample,
    Measured,
    Meter,
    advance_meter,
    begin_meter,
    idle_meter,
    read_totals,
)
from orchestrator.core.measure.slots import Slot

METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 2600
llamacpp:tokens_predicted_total 4000
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 12
llamacpp:kv_cache_usage_ratio 0.25
llamacpp:prompt_tokens_seconds nan
other_total 1
"""


def sample(at: float, *slots: Slot, **totals: float) -> CounterSample:
    return CounterSample(at, slots, totals)


def busy(decoded: int, task: int = 1, read: int = 10, slot: int = 0) -> Slot:
    return Slot(slot, busy=True, context=100, task=task, decoded=decoded, prompt_read=read, prompt=read + decoded)


FREE = Slot(0, busy=False, context=100, task=1)


def test_totals_are_read_by_name_and_labels_left_out() -> None:
    totals = read_totals(METRICS)
    assert totals["prompt_tokens_total"] == 2600 and totals["tokens_predicted_total"] == 4000
    assert not any("position" in name for name in totals) and "other_total" not in totals


def test_the_first_sample_has_no_rate_but_says_who_is_busy() -> None:
    _, measured = begin_meter(sample(0.0, busy(5), requests_deferred=2))
    assert measured == Measured(processing=1, deferred=2, kv_used=0.15)


def test_a_rate_is_tokens_over_wall_time() -> None:
    meter, _ = begin_meter(sample(10.0, busy(100), tokens_predicted_total=0))
    _, measured = advance_meter(meter, sample(12.0, busy(300), tokens_predicted_total=0))
    assert measured.decode_tok_s == 100.0


def test_a_request_that_ends_between_samples_is_counted_whole() -> None:
    meter, _ = begin_meter(sample(0.0, busy(100), tokens_predicted_total=1000))
    _, measured = advance_meter(meter, sample(1.0, FREE, tokens_predicted_total=1150))
    assert measured.decode_tok_s == 50.0


def test_requests_that_come_and_go_between_samples_are_counted() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, tokens_predicted_total=1000))
    _, measured = advance_meter(meter, sample(1.0, FREE, tokens_predicted_total=1300))
    assert measured.decode_tok_s == 300.0


def test_a_request_that_ends_between_the_two_answers_is_counted_a_sample_later_and_once() -> None:
    meter, _ = begin_meter(sample(0.0, busy(100), tokens_predicted_total=0))
    meter, first = advance_meter(meter, sample(1.0, FREE, tokens_predicted_total=0))
    _, second = advance_meter(meter, sample(2.0, FREE, tokens_predicted_total=150))
    assert (first.decode_tok_s, second.decode_tok_s) == (0.0, 50.0)


def test_without_totals_the_slots_alone_tell() -> None:
    meter, _ = begin_meter(sample(0.0, busy(100)))
    meter, measured = advance_meter(meter, sample(1.0, busy(160)))
    assert measured.decode_tok_s == 60.0
    _, measured = advance_meter(meter, sample(2.0, busy(20, task=2)))
    assert measured.decode_tok_s == 20.0


def test_totals_that_were_not_answered_once_are_made_up_for() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, tokens_predicted_total=1000))
    meter, missing = advance_meter(meter, sample(1.0, FREE))
    _, after = advance_meter(meter, sample(2.0, FREE, tokens_predicted_total=1100))
    assert (missing.decode_tok_s, after.decode_tok_s) == (0.0, 100.0)


def test_totals_that_are_answered_late_for_the_first_time_are_no_rate() -> None:
    meter, _ = begin_meter(sample(0.0, FREE))
    meter, measured = advance_meter(meter, sample(1.0, FREE, tokens_predicted_total=9000))
    assert measured.decode_tok_s is None
    _, measured = advance_meter(meter, sample(2.0, FREE, tokens_predicted_total=9010))
    assert measured.decode_tok_s == 10.0


def test_counts_that_fall_are_another_engine_s() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, tokens_predicted_total=1000))
    meter, measured = advance_meter(meter, sample(1.0, FREE, tokens_predicted_total=5))
    assert measured.decode_tok_s is None
    assert meter.decoded == 5


def test_samples_too_close_or_too_far_apart_give_no_rate() -> None:
    meter, _ = begin_meter(sample(0.0, busy(0), tokens_predicted_total=0))
    near, measured = advance_meter(meter, sample(0.1, busy(1), tokens_predicted_total=0))
    assert near == meter and measured.decode_tok_s is None
    _, measured = advance_meter(meter, sample(MAX_S + 1, busy(1), tokens_predicted_total=0))
    assert measured.decode_tok_s is None


def test_time_in_which_nothing_was_in_flight_is_not_counted() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, tokens_predicted_total=1000))
    _, measured = advance_meter(idle_meter(meter, 100.0), sample(101.0, busy(40, task=2), tokens_predicted_total=1000))
    assert measured.decode_tok_s == 40.0


def test_a_prompt_s_rate_comes_from_the_slots_while_it_is_read() -> None:
    meter, _ = begin_meter(sample(0.0, busy(0, read=100), prompt_tokens_total=0))
    meter, measured = advance_meter(meter, sample(1.0, busy(0, read=400), prompt_tokens_total=0))
    assert measured.prompt_tok_s == 300.0
    _, measured = advance_meter(meter, sample(2.0, busy(9, read=500), prompt_tokens_total=500))
    assert measured.prompt_tok_s == 100.0


def test_a_batch_of_a_prompt_that_takes_several_samples_counts_over_its_time() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, prompt_tokens_total=0))
    meter, measured = advance_meter(meter, sample(1.0, busy(0, read=0), prompt_tokens_total=0))
    assert measured.prompt_tok_s is None
    seen = []
    for second in range(2, 9):
        meter, measured = advance_meter(
            meter, sample(second, busy(0, read=2000 * (second // 4)), prompt_tokens_total=0)
        )
        seen.append(measured.prompt_tok_s)

    assert seen == [None, None, 500.0, 500.0, 500.0, 500.0, 500.0]
    _, measured = advance_meter(meter, sample(9.0, busy(9, read=4000), prompt_tokens_total=4000))
    assert measured.prompt_tok_s == 0.0


def test_a_prompt_that_is_told_only_when_it_was_read_counts_over_the_time_it_took() -> None:
    meter, _ = begin_meter(sample(0.0, FREE, prompt_tokens_total=0, prompt_seconds_total=0))
    _, measured = advance_meter(meter, sample(1.0, FREE, prompt_tokens_total=5000, prompt_seconds_total=10))
    assert measured.prompt_tok_s == 500.0


def test_acceptance_is_that_of_the_drafts_between_the_samples() -> None:
    drafted, accepted = "spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total"
    meter, _ = begin_meter(sample(0.0, FREE, **{drafted: 100, accepted: 100}))
    meter, measured = advance_meter(meter, sample(1.0, FREE, **{drafted: 300, accepted: 150}))
    assert measured.draft_acceptance == 0.25
    _, measured = advance_meter(meter, sample(2.0, FREE, **{drafted: 300, accepted: 150}))
    assert measured.draft_acceptance is None


def test_the_fork_s_own_share_of_the_cache_is_taken() -> None:
    _, measured = begin_meter(sample(0.0, Slot(0, busy=True, context=100), kv_cache_usage_ratio=0.25))
    assert measured.kv_used == 0.25


steps = some.lists(
    some.tuples(some.sampled_from(["decode", "end", "start", "sample", "sample, and an end between the answers"]),
                some.integers(0, 1), some.integers(1, 50)),
    max_size=60,
)  # fmt: skip


@settings(max_examples=300)
@given(steps=steps, keeps=some.booleans())
def test_no_token_is_lost_and_none_is_counted_twice(steps: list[tuple[str, int, int]], keeps: bool) -> None:
    """A simulated engine with two slots: what the rates add up to is never more than what was generated, and all of
    it once nothing runs and one more sample was taken.

    :param keeps: a slot shows the last request's count after its end, as the fork's do
    """
    tasks, decoded, running = [0, 0], [0, 0], [False, False]
    ended = generated = 0
    at, counted = 0.0, 0.0

    def slots() -> tuple[Slot, ...]:
        shown = (decoded[each] if running[each] or keeps else 0 for each in (0, 1))
        return tuple(
            Slot(each, busy=running[each], context=100, task=tasks[each], decoded=count)
            for each, count in zip((0, 1), shown, strict=True)
        )

    def end(slot: int) -> None:
        nonlocal ended
        if running[slot]:
            ended += decoded[slot]
            running[slot] = False

    meter: Meter = begin_meter(CounterSample(at, slots(), {"tokens_predicted_total": 0.0}))[0]

    def take(between: int | None = None) -> None:
        nonlocal at, counted, meter
        at += 1.0
        total = float(ended)
        if between is not None:
            end(between)

        meter, measured = advance_meter(meter, CounterSample(at, slots(), {"tokens_predicted_total": total}))
        assert measured.decode_tok_s is not None and measured.decode_tok_s >= 0
        counted += measured.decode_tok_s
        assert counted <= generated + 1e-6

    for what, slot, count in steps:
        if what == "start" and not running[slot]:
            tasks[slot], decoded[slot], running[slot] = tasks[slot] + 1, 0, True
        elif what == "decode" and running[slot]:
            decoded[slot] += count
            generated += count
        elif what == "end":
            end(slot)
        elif what == "sample":
            take()
        elif what.startswith("sample, and"):
            take(between=slot)

    end(0)
    end(1)
    take()
    assert counted == pytest.approx(generated)
