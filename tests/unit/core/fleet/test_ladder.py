from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fleet.ladder import Rung, apply_rung, first_rung, next_rung, raise_rung
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value

MARGINS = Recovery(margins=(1664, 1792, 2048), then=("kv:q4_0", "context:65536"))


def profile(settings: Mapping[str, Value], recovery: Recovery = MARGINS) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/models/demo.gguf", (), settings, recovery, ())


def climb(
    rung: Rung,
    recovery: Recovery,
    *,
    margin_helps: bool = True,
    requested_mib: float | None = None,
    device: str | None = None,
) -> Rung:
    above = next_rung(rung, recovery, margin_helps=margin_helps, requested_mib=requested_mib, device=device)
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


def per_device(*margins: int, devices: tuple[str, ...] = ()) -> Rung:
    return Rung(max(margins), margins_mib=margins, devices=devices)


def test_margins_per_device_begin_as_the_profile_says_and_their_largest_is_shown_as_one() -> None:
    rung = first_rung(profile({"memory.fit_margin": (512, 1024)}))
    assert rung == per_device(512, 1024)
    assert rung.margin_mib == 1024


@pytest.mark.parametrize(
    ("learned", "begins"),
    [((256, 2048), (512, 2048)), (768, (768, 1024)), ((100, 900, 100), (900, 1024)), ((1, 1), (512, 1024))],
    ids=["each its own", "one number", "another number of devices", "all smaller"],
)
def test_what_survived_raises_the_margin_of_each_device(
    learned: int | tuple[int, ...], begins: tuple[int, ...]
) -> None:
    assert first_rung(profile({"memory.fit_margin": (512, 1024)}), learned) == per_device(*begins)


def test_margins_per_device_that_survived_hold_with_their_largest_where_there_is_one_number() -> None:
    assert first_rung(profile({"memory.fit_margin": 600}), (512, 1024)) == Rung(1024)
    assert first_rung(profile({"memory.fit": True}, Recovery()), (512, 1024)) == Rung(1024)


@pytest.mark.parametrize("device", ["CUDA1", "ROCm1", "Vulkan1", "SYCL1"])
def test_only_the_margin_of_the_device_that_failed_rises(device: str) -> None:
    assert climb(per_device(1664, 1664), MARGINS, device=device) == per_device(1664, 1792)


def test_the_margin_of_a_device_grows_by_what_was_missing_on_it() -> None:
    assert climb(per_device(512, 1664), MARGINS, device="CUDA0", requested_mib=3000.5) == per_device(3513, 1664)


@pytest.mark.parametrize("device", [None, "CUDA7", "CUDA1_Split", "RPC0[127.0.0.1:50052]", "CUDA_Host"])
def test_a_failure_whose_device_or_place_is_not_known_raises_every_margin(device: str | None) -> None:
    assert climb(per_device(1000, 1664), MARGINS, device=device) == per_device(1664, 1792)


def test_every_margin_rises_as_far_as_margins_are_listed() -> None:
    assert climb(per_device(1664, 2048), MARGINS) == per_device(1792, 2048)


def test_a_device_at_its_last_margin_is_helped_by_a_step_and_not_by_the_others_margins() -> None:
    assert climb(per_device(512, 2048), MARGINS, device="CUDA1").steps == ("kv:q4_0",)


def test_one_margin_for_all_devices_rises_whichever_failed() -> None:
    assert climb(Rung(1664), MARGINS, device="CUDA1") == Rung(1792)


@pytest.mark.parametrize(
    ("settings", "device", "margins"),
    [
        ({"memory.devices": ("CUDA3", "CUDA0")}, "CUDA3", (1664, 1)),
        ({"memory.devices": ("CUDA3", "CUDA0")}, "CUDA0", (1, 1664)),
        ({"memory.devices": ("CUDA3", "CUDA0")}, "CUDA1", (1664, 1664)),
        ({"memory.devices": ("CUDA0", "RPC0"), "memory.rpc": ("10.0.0.2:50052",)}, "RPC0[10.0.0.2:50052]", (1, 1664)),
        ({"memory.rpc": ("10.0.0.2:50052",)}, "RPC0[10.0.0.2:50052]", (1664, 1)),
        ({"memory.rpc": ("10.0.0.2:50052",)}, "CUDA0", (1664, 1664)),
    ],
)
def test_the_place_of_a_device_is_that_of_the_profile(
    settings: dict[str, Value], device: str, margins: tuple[int, ...]
) -> None:
    rung = first_rung(profile({"memory.fit_margin": (1, 1), **settings}))
    assert climb(rung, MARGINS, device=device).margins_mib == margins


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
    assert str(per_device(512, 1792)) == "margin 512, 1792 MiB"
    assert str(Rung()) == "as the profile says"


def test_the_margin_of_the_rung_replaces_that_of_the_profile() -> None:
    assert apply_rung(profile({"memory.fit_margin": 1664}), Rung(1792)).settings == {"memory.fit_margin": 1792}


def test_margins_per_device_are_raised_to_the_rung_and_never_lowered() -> None:
    raised = apply_rung(profile({"memory.fit_margin": (512, 4096)}), Rung(1792))
    assert raised.settings["memory.fit_margin"] == (1792, 4096)


def test_a_margin_per_device_of_the_rung_is_laid_over_that_device() -> None:
    raised = apply_rung(profile({"memory.fit_margin": (512, 512)}), per_device(512, 1792))
    assert raised.settings["memory.fit_margin"] == (512, 1792)


@pytest.mark.parametrize(
    ("edited", "margins"), [(512, 1792), ((512, 512, 4096), (1792, 1792, 4096))], ids=["one number", "another device"]
)
def test_a_list_that_was_edited_away_since_gets_the_largest(edited: Value, margins: Value) -> None:
    assert apply_rung(profile({"memory.fit_margin": edited}), per_device(512, 1792)).settings == {
        "memory.fit_margin": margins
    }


def test_a_rung_without_a_margin_leaves_the_profile_as_it_is() -> None:
    settings = profile({"memory.fit": False, "memory.fit_margin": 512})
    assert apply_rung(settings, Rung()) == settings


def test_the_kv_step_sets_both_caches() -> None:
    changed = apply_rung(profile({"kv.k": "q8_0"}), Rung(None, ("kv:q4_0",)))
    assert changed.settings == {"kv.k": "q4_0", "kv.v": "q4_0"}


@pytest.mark.parametrize(
    ("before", "after"),
    [({"context.size": 131072}, 65536), ({"context.size": 0}, 65536), ({}, 65536), ({"context.size": 8192}, 8192)],
)
def test_the_context_step_shortens_and_never_lengthens(before: dict[str, Value], after: int) -> None:
    assert apply_rung(profile(before), Rung(None, ("context:65536",))).settings["context.size"] == after


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [("n_cpu_moe:+4", {}, 4), ("n_cpu_moe:+4", {"memory.n_cpu_moe": 10}, 14)]
    + [("n_cpu_moe:20", {"memory.n_cpu_moe": 10}, 20), ("n_cpu_moe:20", {"memory.n_cpu_moe": 30}, 30)],
)
def test_the_expert_step_moves_layers_to_the_host_and_never_back(
    step: str, before: dict[str, Value], after: int
) -> None:
    assert apply_rung(profile(before), Rung(None, (step,))).settings["memory.n_cpu_moe"] == after


def test_laying_a_rung_over_a_profile_leaves_the_profile_untouched() -> None:
    original = profile({"memory.fit_margin": 1664})
    apply_rung(original, Rung(2048, ("kv:q4_0",)))
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


@given(
    RECOVERIES,
    st.lists(st.integers(1, 8192), min_size=1, max_size=4),
    st.lists(st.tuples(st.none() | st.integers(0, 5), st.none() | st.floats(0.01, 20000.0)), max_size=40),
)
def test_no_margin_of_any_device_ever_shrinks_and_the_ladder_ends(
    recovery: Recovery, margins: list[int], failures: list[tuple[int | None, float | None]]
) -> None:
    rung = per_device(*margins)
    for number, (place, requested_mib) in enumerate(failures):
        device = None if place is None else f"CUDA{place}"
        above = next_rung(rung, recovery, margin_helps=True, requested_mib=requested_mib, device=device)
        if above is None:
            return

        assert number < len(margins) * len(recovery.margins) + len(recovery.then)
        changed = [index for index, margin in enumerate(above.margins_mib) if margin != rung.margins_mib[index]]
        assert all(above.margins_mib[index] > rung.margins_mib[index] for index in changed)
        assert bool(changed) == (above.steps == rung.steps)
        if place is not None and place < len(margins):
            assert changed in ([], [place])

        assert above.margin_mib == max(above.margins_mib)
        rung = above


@pytest.mark.parametrize(
    ("rung", "floor", "expected"),
    [
        (Rung(1024), 1536, Rung(1536)),
        (Rung(2048), 1536, Rung(2048)),
        (Rung(1024, ("kv:q4_0",)), 1536, Rung(1536, ("kv:q4_0",))),
        (Rung(1024, margins_mib=(1024, 512)), (1024, 768), Rung(1024, margins_mib=(1024, 768))),
        (Rung(None, ("kv:q4_0",)), 1536, Rung(None, ("kv:q4_0",))),
    ],
)
def test_a_start_that_is_repeated_begins_no_lower_than_what_was_learned_meanwhile(
    rung: Rung, floor: int | tuple[int, ...], expected: Rung
) -> None:
    assert raise_rung(rung, floor) == expected
