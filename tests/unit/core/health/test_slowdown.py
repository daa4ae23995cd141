from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.health.slowdown import (
    DEPTH_FLOOR,
    DeviceLook,
    SlowdownHistory,
    SlowdownPolicy,
    SlowdownVerdict,
    StepSample,
    assess,
    resume,
)

POLICY = SlowdownPolicy()
EVERY_S = 10.0

WELL = DeviceLook(0, "RTX 3080", 9100, 10240, pcie_mib_s=660.0, others_mib=300)
PAGING = dataclasses.replace(WELL, used_mib=9794, pcie_mib_s=11300.0)
"""As published: 446 MiB free, and traffic 17 times as high (docs/adr/0005-silent-spill.md)."""

HOT = dataclasses.replace(WELL, throttle=("thermal",))


def sample(step_ms: float = 20.0, look: DeviceLook | None = None, **more: Any) -> StepSample:
    plain = StepSample(0.0, 100, step_ms, 1000.0, looks=(look,) if look else ())
    return dataclasses.replace(plain, **more)


def judge(
    samples: Iterable[StepSample], history: SlowdownHistory | None = None, now: float = 0.0
) -> tuple[SlowdownHistory, list[SlowdownVerdict]]:
    """One sample after the other, each begun right before."""
    history = history or SlowdownHistory()
    verdicts = []
    for each in samples:
        now += EVERY_S
        history, verdict = assess(history, dataclasses.replace(each, began=now - 1), now, POLICY)
        verdicts.append(verdict)

    return history, verdicts


def kinds(samples: Iterable[StepSample], history: SlowdownHistory | None = None) -> list[str]:
    return [verdict.kind for verdict in judge(samples, history)[1]]


def healthy(look: DeviceLook | None = None, count: int = 20) -> SlowdownHistory:
    return judge([sample(look=look)] * count)[0]


# What is noticed.


def test_a_fourfold_slowdown_is_noticed_within_five_answers_and_said_once() -> None:
    _, verdicts = judge([sample(80.0)] * 50, healthy())
    assert [each.kind for each in verdicts].index("slow") < 5
    assert sum(each.news for each in verdicts) == 1
    assert "4.0 times slower" in verdicts[-1].reason and "80 ms a step" in verdicts[-1].reason


def test_the_published_spill_is_noticed_though_it_is_less_than_twice_as_slow() -> None:
    _, verdicts = judge([sample(20.0 * 45.4 / 24.7, PAGING)] * 5, healthy(WELL))
    assert verdicts[-1].kind == "spilled"
    assert "9794 of 10240 MiB" in verdicts[-1].reason
    assert "11300 MiB/s over PCIe, 660 before" in verdicts[-1].reason
    assert verdicts[-1].taken_mib == 0


def test_without_a_device_s_word_that_is_not_enough() -> None:
    assert set(kinds([sample(20.0 * 45.4 / 24.7)] * 50, healthy())) == {"ok"}


def test_other_programs_that_took_the_memory_are_named() -> None:
    crowded = dataclasses.replace(PAGING, others_mib=2300)
    _, verdicts = judge([sample(60.0, crowded)] * 5, healthy(WELL))
    news = next(each for each in verdicts if each.news)
    assert news.kind == "spilled" and news.taken_mib == 2000
    assert "other programs took 2000 MiB" in news.reason


def test_a_hot_device_is_named_instead() -> None:
    _, verdicts = judge([sample(60.0, HOT)] * 5, healthy(WELL))
    assert verdicts[-1].kind == "throttled"
    assert "GPU 0 (RTX 3080) lowers its clocks: thermal" in verdicts[-1].reason


def test_a_hot_device_is_named_though_its_memory_is_full_and_busy() -> None:
    both = dataclasses.replace(PAGING, throttle=("thermal",))
    assert kinds([sample(60.0, both)] * 5, healthy(WELL))[-1] == "throttled"


def test_lower_clocks_that_were_usual_are_no_reason() -> None:
    capped = dataclasses.replace(WELL, throttle=("power_cap",))
    assert kinds([sample(60.0, capped)] * 5, healthy(capped))[-1] == "slow"


@pytest.mark.parametrize(
    "look",
    [
        dataclasses.replace(PAGING, used_mib=6000),
        dataclasses.replace(PAGING, pcie_mib_s=700.0),
        dataclasses.replace(PAGING, pcie_mib_s=None),
        None,
    ],
    ids=["memory is free", "traffic as before", "no traffic told", "no device"],
)
def test_a_spill_takes_all_of_its_signs(look: DeviceLook | None) -> None:
    assert kinds([sample(80.0, look)] * 10, healthy(WELL))[-1] == "slow"


def test_traffic_that_was_always_high_is_no_sign() -> None:
    """Devices that split each layer talk to each other all the time."""
    assert kinds([sample(80.0, PAGING)] * 10, healthy(PAGING))[-1] == "slow"


def test_slow_becomes_spilled_when_a_device_says_so_later() -> None:
    found = kinds([*[sample(80.0)] * 6, *[sample(80.0, PAGING)] * 5], healthy(WELL))
    assert found[5] == "slow" and found[-1] == "spilled"


# Its end.


def test_recovery_is_said_once() -> None:
    history, _ = judge([sample(80.0)] * 10, healthy())
    _, verdicts = judge([sample()] * 10, history, now=1000.0)
    assert verdicts[-1].kind == "ok"
    assert [each.news for each in verdicts].count(True) == 1


def test_what_comes_and_goes_is_said_once_in_a_while() -> None:
    history, news = healthy(), 0
    for turn in range(30):
        history, verdicts = judge([*[sample(80.0)] * 5, *[sample()] * 5], history, now=1000.0 + turn * 100)
        news += sum(each.news for each in verdicts)

    assert 2 <= news <= 2 * (1 + 30 * 100 / POLICY.repeat_s)


def test_the_normal_does_not_follow_a_slow_decline() -> None:
    assert "slow" in kinds([sample(20.0 * 1.02**number) for number in range(100)])


# What is not taken for it.


def test_nothing_is_said_before_the_normal_is_known() -> None:
    assert set(kinds([sample(20.0 * 4**number) for number in range(POLICY.healthy_samples)])) == {"ok"}


def test_short_answers_say_nothing() -> None:
    short = dataclasses.replace(sample(500.0), steps=POLICY.least_steps - 1)
    assert set(kinds([short] * 50, healthy())) == {"ok"}


def test_single_slow_answers_say_nothing() -> None:
    assert set(kinds([sample(100.0), sample(), sample()] * 30, healthy())) == {"ok"}


def test_programs_that_take_the_cpus_explain_it() -> None:
    history, _ = judge([sample(other_cpu=0.05)] * 10)
    assert set(kinds([sample(80.0, other_cpu=0.6)] * 50, history)) == {"ok"}
    assert kinds([sample(80.0, other_cpu=0.1)] * 5, history)[-1] == "slow"


def test_a_context_that_was_never_so_deep_is_not_called_slow() -> None:
    assert set(kinds([sample(20.0 * 20, depth=40_000.0)] * 50, healthy())) == {"ok"}


@pytest.mark.parametrize("more", [{"streams": 4.0}, {"width": 4.0}])
def test_steps_that_are_shared_or_hold_drafts_are_not_called_slow(more: dict[str, float]) -> None:
    """Though four times as long: experts in host memory have to be read for each token of a step."""
    assert set(kinds([sample(80.0, None, **more)] * 50, healthy())) == {"ok"}


def test_slowness_at_a_depth_that_is_known_is_noticed() -> None:
    history, _ = judge([*[sample()] * 10, *[sample(40.0, depth=40_000.0)] * 10])
    assert kinds([sample(160.0, depth=42_000.0)] * 5, history)[-1] == "slow"


def test_an_answer_that_had_much_more_to_do_does_not_show_that_all_is_well() -> None:
    history, _ = judge([sample(80.0)] * 10, healthy())
    assert set(kinds([sample(80.0, streams=8.0)] * 50, history)) == {"slow"}


def test_a_suspend_in_the_middle_of_answers_says_nothing() -> None:
    history, now = healthy(), 1000.0
    for _ in range(30):
        now += 3600.0
        history = resume(history, now)
        for _ in range(8):  # all of them were under way
            history, verdict = assess(history, dataclasses.replace(sample(5000.0), began=now - 10), now + 1, POLICY)
            assert verdict == SlowdownVerdict("ok")


# Whatever the engine: a + b d for the depth, and more for drafts and for streams, with noise.

Burden = tuple[float, float, float, float, DeviceLook | None]
BURDENS = st.tuples(
    st.floats(0, 200_000),
    st.floats(1, 9),
    st.floats(1, 16),
    st.floats(0.75, 1.25),
    st.sampled_from([None, WELL, PAGING]),
)


@given(
    st.floats(0.5, 500),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(BURDENS, max_size=60),
)
def test_no_healthy_engine_is_ever_suspected(
    base_ms: float, by_depth: float, by_width: float, by_stream: float, burdens: list[Burden]
) -> None:  # fmt: skip
    samples = [
        sample(
            base_ms
            * (1 + by_depth * depth / DEPTH_FLOOR)
            * (1 + by_width * (width - 1))
            * (1 + by_stream * (streams - 1))
            * noise,
            look,
            depth=depth,
            width=width,
            streams=streams,
        )
        for depth, width, streams, noise, look in burdens
    ]
    assert set(kinds(samples)) <= {"ok"}


@given(
    st.lists(st.floats(0.75, 1.25), min_size=8, max_size=30),
    st.lists(st.floats(0.75, 1.25), min_size=5, max_size=5),
)
def test_every_fourfold_slowdown_is_noticed_within_five_answers(before: list[float], after: list[float]) -> None:
    history, verdicts = judge([sample(20.0 * noise) for noise in before])
    assert {each.kind for each in verdicts} == {"ok"}
    assert kinds([sample(80.0 * noise) for noise in after], history)[-1] == "slow"


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.booleans()), max_size=60))
def test_what_spans_a_gap_never_changes_the_verdict(answers: list[tuple[float, bool]]) -> None:
    history, now = healthy(), 1000.0
    for step_ms, spans in answers:
        now += 100.0
        history = resume(history, now)
        began = now - 50 if spans else now + 1
        history, verdict = assess(history, dataclasses.replace(sample(step_ms), began=began), now + 2, POLICY)
        assert verdict.kind == "ok"
