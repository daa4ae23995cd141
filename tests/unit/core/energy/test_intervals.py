from __future__ import annotations

import pytest

from orchestrator.core.energy.intervals import (
    MAX_BUSY_S,
    MAX_IDLE_S,
    MAX_WRAP_S,
    DeviceActivity,
    EnergySample,
    IntervalEnergy,
    activity_between,
    energy_between,
)

IDLE = DeviceActivity(10.0, 0.0, False, False, {})
BUSY = DeviceActivity(1.0, 1.0, True, True, {1: 1.0})


def counted(at_s: float, joules: float, **more: float) -> EnergySample:
    return EnergySample(at_s, at_s, joules, **more)


def drawing(at_s: float, watts: float | None, slept_s: float = 0.0) -> EnergySample:
    return EnergySample(at_s, at_s + slept_s, None, watts)


def test_each_moment_is_shared_equally_by_those_at_work_in_it() -> None:
    activity = activity_between(10.0, 20.0, {1: (8.0, 14.0), 2: (12.0, 16.0), 3: (12.0, 13.0), 4: (21.0, 22.0)})
    assert activity.shares_s == pytest.approx({1: 2 + 1 / 3 + 1 / 2, 2: 1 / 3 + 1 / 2 + 2, 3: 1 / 3})
    assert activity.busy_s == pytest.approx(6.0) == pytest.approx(sum(activity.shares_s.values()))
    assert (activity.idle_s, activity.busy_first, activity.busy_last) == (4.0, True, False)


def test_with_two_pauses_only_the_work_counts() -> None:
    activity = activity_between(0.0, 10.0, {1: (1.0, 2.0), 2: (5.0, 7.0)})
    assert (activity.busy_s, activity.idle_s, dict(activity.shares_s)) == (3.0, 7.0, {1: 1.0, 2: 2.0})


def test_a_counter_is_believed_over_any_time_and_power_is_not_asked() -> None:
    energy = energy_between(counted(0, 100.0, power_w=5.0), counted(4000, 900.0, power_w=5.0), IDLE)
    assert energy == IntervalEnergy(0.0, 800.0)
    assert energy_between(counted(0, 1.0), counted(1, 201.0), BUSY) == IntervalEnergy(200.0, 0.0)


def test_idle_time_takes_what_the_idle_device_drew_and_the_rest_is_the_requests() -> None:
    nine_of_ten_idle = DeviceActivity(10.0, 1.0, False, True, {1: 1.0})
    energy = energy_between(counted(0, 0.0), counted(10, 380.0), nine_of_ten_idle, idle_w=20.0)
    assert energy == IntervalEnergy(200.0, 180.0)
    assert energy_between(counted(0, 0.0), counted(10, 380.0), nine_of_ten_idle) == IntervalEnergy(38.0, 342.0)
    assert energy_between(counted(0, 0.0), counted(10, 90.0), nine_of_ten_idle, idle_w=20.0) == IntervalEnergy(
        0.0, 90.0
    )


def test_after_a_reset_the_power_at_both_ends_is_integrated() -> None:
    before, after = counted(0, 5e6, power_w=180.0), counted(1, 40.0, power_w=200.0)
    assert energy_between(before, after, BUSY) == IntervalEnergy(190.0, 0.0)
    assert energy_between(counted(0, 5e6), counted(1, 40.0), BUSY) == IntervalEnergy(None, 0.0)


def test_a_counter_that_wraps_goes_on_and_is_not_believed_when_it_may_have_wrapped_twice() -> None:
    before, after = counted(0, 262_000.0, wraps_at_j=262_143.0), counted(1, 7.0, wraps_at_j=262_143.0)
    assert energy_between(before, after, BUSY).busy_j == pytest.approx(150.0)
    late = counted(MAX_WRAP_S + 1, 262_100.0, wraps_at_j=262_143.0)
    assert energy_between(before, late, IDLE) == IntervalEnergy(0.0, None)


def test_a_counter_that_may_have_begun_anew_while_the_machine_slept_is_not_taken_for_one_that_wrapped() -> None:
    before = counted(0, 250_000.0, wraps_at_j=262_143.0)
    after = EnergySample(10.0, 40.0, 1_000.0, wraps_at_j=262_143.0)
    assert energy_between(before, after, IDLE) == IntervalEnergy(0.0, None)


def test_more_than_a_device_can_draw_is_another_counter() -> None:
    assert energy_between(counted(0, 0.0), counted(1, 4000.0), BUSY) == IntervalEnergy(None, 0.0)
    assert energy_between(counted(0, 0.0, power_w=200.0), counted(1, 4e6, power_w=220.0), BUSY).busy_j == 210.0


@pytest.mark.parametrize(("gap_s", "known"), [(MAX_BUSY_S, True), (MAX_BUSY_S + 0.1, False)])
def test_power_does_not_bridge_a_gap_in_work(gap_s: float, known: bool) -> None:
    activity = DeviceActivity(gap_s, gap_s, True, True, {1: gap_s})
    energy = energy_between(drawing(0, 100.0), drawing(gap_s, 200.0), activity)
    assert energy.busy_j == (pytest.approx(150 * gap_s) if known else None)


@pytest.mark.parametrize(("gap_s", "known"), [(MAX_IDLE_S, True), (MAX_IDLE_S + 0.1, False)])
def test_power_does_not_bridge_a_gap_without_work(gap_s: float, known: bool) -> None:
    energy = energy_between(drawing(0, 20.0), drawing(gap_s, 22.0), DeviceActivity(gap_s, 0.0, False, False, {}))
    assert (energy.busy_j, energy.idle_j) == (0.0, pytest.approx(21 * gap_s) if known else None)


def test_a_machine_that_slept_makes_a_gap_though_its_clock_stood_still() -> None:
    assert energy_between(drawing(0, 20.0), drawing(10, 20.0, slept_s=3600), IDLE) == IntervalEnergy(0.0, None)
    assert energy_between(drawing(0, 200.0), drawing(1, 200.0, slept_s=3600), BUSY) == IntervalEnergy(None, 0.0)


def test_work_that_begins_or_ends_between_samples_takes_the_power_of_the_end_it_was_seen_at() -> None:
    begun = DeviceActivity(10.0, 0.5, False, True, {1: 0.5})
    assert energy_between(drawing(0, 20.0), drawing(10, 200.0), begun) == IntervalEnergy(100.0, 190.0)
    ended = DeviceActivity(1.0, 0.25, True, False, {1: 0.25})
    assert energy_between(drawing(0, 200.0), drawing(1, 40.0), ended) == IntervalEnergy(50.0, 30.0)


def test_the_power_of_a_request_that_no_sample_saw_is_unknown() -> None:
    unseen = DeviceActivity(10.0, 0.5, False, False, {1: 0.5})
    assert energy_between(drawing(0, 20.0), drawing(10, 20.0), unseen) == IntervalEnergy(None, 190.0)


def test_a_pause_that_no_sample_saw_takes_what_the_device_drew_when_idle_last() -> None:
    pause = DeviceActivity(1.0, 0.75, True, True, {1: 0.5, 2: 0.25})
    assert energy_between(drawing(0, 200.0), drawing(1, 200.0), pause, idle_w=20.0) == IntervalEnergy(150.0, 5.0)
    assert energy_between(drawing(0, 200.0), drawing(1, 200.0), pause) == IntervalEnergy(150.0, None)


def test_a_device_that_tells_nothing_is_unknown_and_not_nothing() -> None:
    assert energy_between(drawing(0, None), drawing(10, 20.0), IDLE) == IntervalEnergy(0.0, None)
    assert energy_between(drawing(0, None), drawing(1, None), BUSY) == IntervalEnergy(None, 0.0)
