from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.measure.samples import TIERS, HistorySample, thin, thinned_before


def test_rates_are_averaged_where_they_were_measured() -> None:
    samples = [
        HistorySample(10, 40.0, None),
        HistorySample(11, None, None),
        HistorySample(19, 20.0, 900.0),
        HistorySample(20, 7.0, None),
    ]
    assert thin(samples, 10) == [HistorySample(10, 30.0, 900.0), HistorySample(20, 7.0, None)]


def test_of_memory_the_most_is_kept_for_each_device() -> None:
    samples = [
        HistorySample(0, None, None, (10, 5)),
        HistorySample(1, None, None, (30,)),
        HistorySample(2, None, None, (20, 8)),
    ]
    assert thin(samples, 10)[0].used_mib == (30, 8)


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.none() | st.floats(0, 1e4)), unique_by=lambda each: each[0]),
    st.sampled_from([10, 60]),
)
def test_thinning_keeps_one_sample_a_step_and_invents_no_rate(
    points: list[tuple[int, float | None]], step_s: int
) -> None:
    samples = [HistorySample(at_s, rate, None) for at_s, rate in sorted(points)]
    thinned = thin(samples, step_s)
    assert [each.at_s for each in thinned] == sorted({each.at_s // step_s * step_s for each in samples})
    for each in thinned:
        rates = [
            one.decode_tok_s
            for one in samples
            if each.at_s <= one.at_s < each.at_s + step_s and one.decode_tok_s is not None
        ]
        if rates:
            assert each.decode_tok_s is not None
            assert min(rates) - 0.001 <= each.decode_tok_s <= max(rates) + 0.001
        else:
            assert each.decode_tok_s is None


@given(st.integers(0, len(TIERS) - 1), st.floats(1e9, 2e9))
def test_a_sample_is_due_only_when_its_whole_step_is(tier: int, now_s: float) -> None:
    before_s = thinned_before(tier, now_s)
    wider_s = TIERS[min(tier + 1, len(TIERS) - 1)].step_s
    assert before_s % wider_s == 0
    assert now_s - TIERS[tier].keep_s - wider_s - 1 < before_s <= now_s - TIERS[tier].keep_s


def test_steps_of_a_tier_fit_into_those_of_the_next() -> None:
    for tier, wider in zip(TIERS, TIERS[1:], strict=False):
        assert wider.step_s % tier.step_s == 0
        assert wider.keep_s > tier.keep_s
