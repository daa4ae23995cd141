"""Energy shared out over a recording whose truth is known: with gaps, counter resets, and requests together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.core.energy.intervals import EnergySample
from orchestrator.core.energy.sharing import ModelEnergy, Pair, RequestAtWork, share_out
from tests.unit.core.energy.recording import REQUESTS, Asked, Card, sample_times

MODEL: Pair = ("qwen", "upstream")
OTHER: Pair = ("gemma", "ik")
ONCE = {number: RequestAtWork(MODEL, each.span) for number, each in enumerate(REQUESTS)}
TOGETHER = (3, 4)


def integrate(samples: Sequence[EnergySample]) -> tuple[dict[int, float | None], ModelEnergy]:
    """Return the energy of each request and of the model over a whole recording of one card."""
    joules: dict[int, float | None] = {}
    model, idle_w = ModelEnergy(), dict[str, float]()
    for first, last in zip(samples, samples[1:], strict=False):
        shared = share_out((first.at_s, last.at_s), {"GPU-1": (first, last)}, {MODEL: ["GPU-1"]}, ONCE, idle_w)
        for number, more_j in shared.requests.items():
            before_j = joules.get(number, 0.0)
            joules[number] = None if before_j is None or more_j is None else before_j + more_j

        model.add(shared.models[MODEL])
        idle_w.update(shared.idle_w)

    return joules, model


def true_joules(card: Card) -> dict[int, float]:
    """Return the counter's rise from the begin to the end of each request; of two together, that of both."""
    alone = {number: card.used(each.span) for number, each in enumerate(REQUESTS) if number not in TOGETHER}
    first, second = (REQUESTS[number].span for number in TOGETHER)
    return {**alone, TOGETHER[0]: card.used((first[0], second[1]))}


def check(joules: dict[int, float | None], card: Card, *, unknown: Sequence[int] = ()) -> None:
    """Check each request against the counter, to 2 %, and that exactly these are unknown."""
    assert sorted(number for number, each in joules.items() if each is None) == sorted(unknown)
    for number, true_j in true_joules(card).items():
        own = [joules[each] for each in (TOGETHER if number == TOGETHER[0] else (number,))]
        known = [each for each in own if each is not None]
        if len(known) == len(own):
            assert sum(known) == pytest.approx(true_j, rel=0.02), number


CARD = Card()


def test_counted_requests_agree_with_the_counter_and_all_adds_up_to_the_card() -> None:
    times = sample_times()
    joules, model = integrate([CARD.sample(at_s) for at_s in times])
    check(joules, CARD)
    assert model.busy_j + model.idle_j == pytest.approx(CARD.used((times[0], times[-1])), abs=0.01)
    assert model.busy_j == pytest.approx(sum(each or 0.0 for each in joules.values()))
    assert model.idle_unknown_s == 0


def test_integrated_requests_agree_with_the_counter_of_the_same_card() -> None:
    joules, model = integrate([CARD.sample(at_s, counter=False) for at_s in sample_times()])
    check(joules, CARD)
    assert model.idle_j == pytest.approx(21 * 200, rel=0.2), "idle power, with a few warmer seconds after each request"


def test_a_counter_that_begins_anew_while_requests_run_is_bridged_by_the_power() -> None:
    times = sample_times()
    samples = [CARD.sample(at_s, zero_s=0.0 if at_s < 40 else 40.0 if at_s < 260 else 260.0) for at_s in times]
    resets = [
        last
        for first, last in zip(samples, samples[1:], strict=False)
        if (last.counter_j or 0) < (first.counter_j or 0)
    ]
    assert len(resets) == 2, "the recording has what the test is about"
    check(integrate(samples)[0], CARD)


def test_a_gap_costs_a_counter_nothing_and_leaves_integrated_requests_unknown_rather_than_wrong() -> None:
    times = [at_s for at_s in sample_times() if not 80 < at_s < 92 and not 240 < at_s < 270 and not 305 < at_s < 328]
    check(integrate([CARD.sample(at_s) for at_s in times])[0], CARD)
    joules, model = integrate([CARD.sample(at_s, counter=False) for at_s in times])
    check(joules, CARD, unknown=[1, 5])
    assert model.idle_unknown_s > 20


def test_a_reset_inside_a_gap_is_unknown() -> None:
    times = [at_s for at_s in sample_times() if not 240 < at_s < 270]
    samples = [CARD.sample(at_s, zero_s=0.0 if at_s < 250 else 250.0) for at_s in times]
    check(integrate(samples)[0], CARD, unknown=[5])


def test_a_short_request_between_two_idle_samples_is_found_in_the_counter() -> None:
    short = Card((Asked((104.0, 104.4), 0.0),))
    times = [74.0, 84.0, 94.0, 105.0]
    samples, idle_w, joules = [short.sample(at_s) for at_s in times], dict[str, float](), None
    for first, last in zip(samples, samples[1:], strict=False):
        request = {7: RequestAtWork(MODEL, (104.0, 104.4))}
        shared = share_out((first.at_s, last.at_s), {"GPU-1": (first, last)}, {MODEL: ["GPU-1"]}, request, idle_w)
        idle_w.update(shared.idle_w)
        joules = shared.requests.get(7)

    assert joules == pytest.approx(short.used((104.0, 104.4)) + 0.6 * (34 - 21), rel=0.02)


# Several devices, several models.

ONE_S = (100.0, 101.0)


def rise(joules: float) -> tuple[EnergySample, EnergySample]:
    return EnergySample(100.0, 100.0, 0.0), EnergySample(101.0, 101.0, joules)


def test_the_cards_of_one_model_add_up_and_one_that_does_not_tell_makes_the_sum_unknown() -> None:
    request = {1: RequestAtWork(MODEL, (90.0, 110.0))}
    loaded = {MODEL: ["a", "b"]}
    both = share_out(ONE_S, {"a": rise(150.0), "b": rise(120.0)}, loaded, request, {})
    assert both.requests == {1: 270.0} and both.models[MODEL].busy_j == 270.0
    one = share_out(ONE_S, {"a": rise(150.0)}, loaded, request, {})
    assert one.requests == {1: None} and one.models[MODEL].busy_j == 0.0


def test_models_on_one_card_share_its_idle_energy_and_who_works_has_all_of_the_rest() -> None:
    loaded = {MODEL: ["a"], OTHER: ["a"]}
    idle = share_out(ONE_S, {"a": rise(30.0)}, loaded, {}, {})
    assert [idle.models[each].idle_j for each in (MODEL, OTHER)] == [15.0, 15.0]
    assert idle.idle_w == {"a": 30.0}
    busy = share_out(ONE_S, {"a": rise(200.0)}, loaded, {1: RequestAtWork(OTHER, (0.0, 200.0))}, {})
    assert busy.requests == {1: 200.0} and busy.models[MODEL].idle_j == 0.0
    assert busy.idle_w == {}, "a card at work tells nothing about its idle power"


def test_requests_of_two_models_on_one_card_share_its_time() -> None:
    requests = {1: RequestAtWork(MODEL, (0.0, 200.0)), 2: RequestAtWork(OTHER, (100.5, 200.0))}
    shared = share_out(ONE_S, {"a": rise(200.0)}, {MODEL: ["a"], OTHER: ["a"]}, requests, {})
    assert shared.requests == {1: 150.0, 2: 50.0}
    assert shared.models[OTHER].idle_s == 0.5


def test_a_model_on_no_device_that_tells_is_unknown() -> None:
    shared = share_out(ONE_S, {"a": rise(9.0)}, {MODEL: []}, {1: RequestAtWork(MODEL, (100.5, 200.0))}, {})
    assert shared.requests == {1: None}
    assert shared.models[MODEL] == ModelEnergy(idle_unknown_s=0.5)


def test_a_request_of_a_model_that_is_gone_is_unknown_and_one_that_is_over_has_nothing_more() -> None:
    requests = {1: RequestAtWork(OTHER, (100.2, 100.4)), 2: RequestAtWork(OTHER, (90.0, 99.0))}
    assert share_out(ONE_S, {"a": rise(9.0)}, {MODEL: ["a"]}, requests, {}).requests == {1: None}
