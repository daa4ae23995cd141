from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ladder import Rung, first_rung, next_rung, on_rung
from orchestrator.core.profile import EngineProfile, Recovery
from orchestrator.core.settings import Value

MARGINS = Recovery(margins=(1664, 1792, 2048), then=("kv:q4_0", "context:65536"))


def profile(settings: Mapping[str, Value], recovery: Recovery = MARGINS) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/models/demo.gguf", (), settings, recovery, ())


def climb(rung: Rung, recovery: Recovery, *, margin_helps: bool = True, requested_mib: float | None = None) -> Rung:
    above = next_rung(rung, recovery, margin_helps=margin_helps, requested_mib=requested_mib)
    assert above is not None
    return above


def rungs(first: Rung, recovery: Recovery, requested_mib: float | None = None) -> Iterator[Rung]:
    rung: Rung | None = first
    while rung is not None:
        yield rung
        rung = next_rung(rung, recovery, margin_helps=True, requested_mib=requested_mib)


def test_a_start_begins_with_the_margin_of_the_profile() -> None:
    assert first_rung(profile({"memory.fit": True, "memory.fit_margin": 512})) == Rung(512)


def test_without_a_margin_in_the_profile_a_fitted_start_begins_with_the_first_listed_one() -> None:
    assert first_rung(profile({"memory.fit": True})) == Rung(1664)


def test_without_any_margin_the_engine_decides() -> None:
    assert first_rung(profile({"memory.fit": True}, Recovery())) == Rung(None)


def test_a_larger_margin_that_survived_is_where_the_next_start_begins() -> None:
    assert first_rung(profile({"memory.fit_margin": 1664}), learned_mib=1792) == Rung(1792)


def test_a_smaller_margin_that_survived_does_not_undercut_the_profile() -> None:
    assert first_rung(profile({"memory.fit_margin": 2048}), learned_mib=1792) == Rung(2048)


def test_with_fitting_off_there_is_no_margin_whatever_was_learned() -> None:
    assert first_rung(profile({"memory.fit": False, "memory.fit_margin": 2048}), learned_mib=1792) == Rung(None)


def test_margins_per_device_begin_at_their_largest() -> None:
    assert first_rung(profile({"memory.fit_margin": (512, 1024)})) == Rung(1024)


def test_the_next_listed_margin_follows() -> None:
    assert climb(Rung(1664), MARGINS) == Rung(1792)


def test_a_margin_between_two_listed_ones_goes_to_the_upper() -> None:
    assert climb(Rung(1700), MARGINS) == Rung(1792)


def test_a_listed_margin_below_the_current_one_is_not_taken() -> None:
    assert climb(Rung(2048), Recovery(margins=(2048, 1024, 4096))) == Rung(4096)


def test_the_margin_grows_by_what_was_missing_rounded_up() -> None:
    assert climb(Rung(1664), MARGINS, requested_mib=500.25) == Rung(2165)


def test_an_allocation_smaller_than_the_step_does_not_shorten_it() -> None:
    assert climb(Rung(1664), MARGINS, requested_mib=3.0) == Rung(1792)


def test_after_the_last_margin_the_allowed_steps_are_added_one_by_one() -> None:
    assert list(rungs(Rung(2048), MARGINS)) == [
        Rung(2048),
        Rung(2048, ("kv:q4_0",)),
        Rung(2048, ("kv:q4_0", "context:65536")),
    ]


def test_where_a_margin_cannot_help_the_steps_come_first() -> None:
    assert climb(Rung(1664), MARGINS, margin_helps=False) == Rung(1664, ("kv:q4_0",))


def test_a_step_stays_in_force_when_a_margin_follows_it() -> None:
    assert climb(Rung(1664, ("kv:q4_0",)), MARGINS) == Rung(1792, ("kv:q4_0",))


def test_a_start_without_a_margin_has_only_steps() -> None:
    assert climb(Rung(None), MARGINS) == Rung(None, ("kv:q4_0",))


def test_the_top_is_where_nothing_more_is_allowed() -> None:
    assert next_rung(Rung(2048), Recovery(margins=(1664, 2048)), margin_helps=True, requested_mib=None) is None


def test_a_step_listed_twice_is_taken_once() -> None:
    twice = Recovery(then=("n_cpu_moe:+4", "n_cpu_moe:+4"))
    assert list(rungs(Rung(None), twice)) == [Rung(None), Rung(None, ("n_cpu_moe:+4",))]


def test_a_rung_is_shown_in_words() -> None:
    assert str(Rung(1792, ("kv:q4_0",))) == "margin 1792 MiB, kv:q4_0"
    assert str(Rung()) == "as the profile says"


def test_the_margin_of_the_rung_replaces_that_of_the_profile() -> None:
    assert on_rung(profile({"memory.fit_margin": 1664}), Rung(1792)).settings == {"memory.fit_margin": 1792}


def test_margins_per_device_are_raised_to_the_rung_and_never_lowered() -> None:
    raised = on_rung(profile({"memory.fit_margin": (512, 4096)}), Rung(1792))
    assert raised.settings["memory.fit_margin"] == (1792, 4096)


def test_a_rung_without_a_margin_leaves_the_profile_as_it_is() -> None:
    settings = profile({"memory.fit": False, "memory.fit_margin": 512})
    assert on_rung(settings, Rung()) == settings


def test_the_kv_step_sets_both_caches() -> None:
    changed = on_rung(profile({"kv.k": "q8_0"}), Rung(None, ("kv:q4_0",)))
    assert changed.settings == {"kv.k": "q4_0", "kv.v": "q4_0"}


@pytest.mark.parametrize(
    ("before", "after"),
    [({"context.size": 131072}, 65536), ({"context.size": 0}, 65536), ({}, 65536), ({"context.size": 8192}, 8192)],
)
def test_the_context_step_shortens_and_never_lengthens(before: dict[str, Value], after: int) -> None:
    assert on_rung(profile(before), Rung(None, ("context:65536",))).settings["context.size"] == after


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [("n_cpu_moe:+4", {}, 4), ("n_cpu_moe:+4", {"memory.n_cpu_moe": 10}, 14)]
    + [("n_cpu_moe:20", {"memory.n_cpu_moe": 10}, 20), ("n_cpu_moe:20", {"memory.n_cpu_moe": 30}, 30)],
)
def test_the_expert_step_moves_layers_to_the_host_and_never_back(
    step: str, before: dict[str, Value], after: int
) -> None:
    assert on_rung(profile(before), Rung(None, (step,))).settings["memory.n_cpu_moe"] == after


def test_laying_a_rung_over_a_profile_leaves_the_profile_untouched() -> None:
    original = profile({"memory.fit_margin": 1664})
    on_rung(original, Rung(2048, ("kv:q4_0",)))
    assert original.settings == {"memory.fit_margin": 1664}


RECOVERIES = st.builds(
    Recovery,
    margins=st.lists(st.integers(1, 8192), max_size=6).map(tuple),
    then=st.lists(st.sampled_from(("kv:q8_0", "kv:q4_0", "context:65536", "n_cpu_moe:+4")), max_size=5).map(tuple),
)


@given(RECOVERIES, st.integers(1, 8192), st.none() | st.floats(0.01, 20000.0))
def test_margins_rise_strictly_one_thing_changes_at_a_time_and_the_ladder_ends(
    recovery: Recovery, margin_mib: int, requested_mib: float | None
) -> None:
    climbed = list(rungs(Rung(margin_mib), recovery, requested_mib))
    assert len(climbed) <= 1 + len(recovery.margins) + len(recovery.then)
    for below, above in zip(climbed, climbed[1:], strict=False):
        assert below.margin_mib is not None
        assert above.margin_mib is not None
        if above.steps == below.steps:
            assert above.margin_mib > below.margin_mib
            assert above.margin_mib - below.margin_mib >= (requested_mib or 0)
        else:
            assert above.margin_mib == below.margin_mib
            assert above.steps[:-1] == below.steps
