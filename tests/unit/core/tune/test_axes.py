"""Which axes a profile has on a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.profile.settings import Value
from orchestrator.core.tune.axes import ALLOWED, TuneFacts, space_of
from orchestrator.core.tune.space import Axis

CARD = TuneFacts(
    settings={"memory.fit_margin": 1024, "context.size": 32768}, kind="upstream", mtp=True, expert_layers=40, devices=1,
    cores=8, cpus=16, host_weights=True, context_tokens=32768,
)  # fmt: skip
CPU = replace(CARD, settings={}, mtp=False, expert_layers=0, devices=0, cores=2, cpus=2)


def axes(facts: TuneFacts, *allowed: str) -> dict[str, Axis]:
    return {axis.name: axis for axis in space_of(facts, allowed).axes}


def settings(**found: Value) -> dict[str, Value]:
    return {key.replace("__", "."): value for key, value in found.items()}


def now(axis: Axis) -> str:
    return axis.choices[axis.current].label


def test_a_card_has_drafts_micro_batch_margin_threads_and_p_min_in_this_order() -> None:
    assert list(axes(CARD)) == ["drafts", "ubatch", "margin", "threads", "threads_batch", "p_min"]


def test_what_changes_answers_is_an_axis_only_where_it_is_allowed() -> None:
    assert {"kv", "context"} & set(axes(CARD)) == set()
    assert {"kv", "context"} < set(axes(CARD, *ALLOWED))
    assert [each.label for each in axes(CARD, "context")["context"].choices] == ["16384", "24576", "32768"]


def test_there_is_one_memory_axis_at_most() -> None:
    by_hand = settings(memory__fit=False, memory__n_cpu_moe=20)
    assert [name for name, axis in axes(CARD).items() if axis.kind == "memory"] == ["margin"]
    assert [name for name, axis in axes(replace(CARD, settings=by_hand)).items() if axis.kind == "memory"] == [
        "n_cpu_moe"
    ]
    assert [axis for axis in axes(CPU).values() if axis.kind == "memory"] == []


def test_memory_axes_go_from_the_emptiest_to_the_fullest() -> None:
    assert [each.label for each in axes(CARD)["margin"].choices][:2] == ["2048 MiB", "1536 MiB"]
    by_hand = replace(CARD, settings=settings(memory__fit=False, memory__n_cpu_moe=20))
    assert [each.label for each in axes(by_hand)["n_cpu_moe"].choices] == ["24", "22", "21", "20", "19", "18", "16"]


@pytest.mark.parametrize("kind", ["upstream", "ik"])
def test_without_mtp_n_grams_draft_with_a_length_in_the_words_of_the_engine(kind: str) -> None:
    drafts = axes(replace(CPU, kind=kind))["drafts"]  # type: ignore[arg-type]
    assert now(drafts) == "none"
    key = "speculative.draft_max" if kind == "ik" else "speculative.ngram_m"
    assert drafts.choices[1].settings == (("speculative.type", '"ngram-simple"'), (key, "4"))


def test_what_drafts_now_is_the_current_choice_also_with_a_number_of_its_own() -> None:
    facts = replace(CARD, settings=settings(speculative__type="mtp", speculative__draft_max=5))
    assert now(axes(facts)["drafts"]) == "5 mtp"
    silent = replace(CARD, settings=settings(speculative__type="mtp"))
    assert now(axes(silent)["drafts"]) == "3 mtp"
    assert axes(CARD)["drafts"].choices[0].mutes == ("p_min",)


def test_a_larger_micro_batch_takes_the_batch_with_it() -> None:
    facts = replace(CARD, settings=settings(batch__size=512))
    [choice] = [each for each in axes(facts)["ubatch"].choices if each.label == "1024"]
    assert choice.settings == (("batch.ubatch", "1024"), ("batch.size", "1024"))


def test_threads_are_an_axis_where_weights_are_in_host_memory() -> None:
    assert "threads" not in axes(replace(CARD, host_weights=False))
    assert [each.label for each in axes(CARD)["threads"].choices] == ["4", "7", "8", "16", "auto"]


HYBRID = replace(CPU, cores=24, cpus=32, pins={"one_per_core": 24, "fast_cores": 8})


def test_cpus_are_an_axis_where_the_machine_has_a_choice_of_them() -> None:
    assert "pin" not in axes(CPU)
    assert "pin" not in axes(replace(HYBRID, devices=1, host_weights=False))
    pin = axes(HYBRID)["pin"]
    assert [each.label for each in pin.choices] == ["one_per_core", "none", "fast_cores"]
    assert (now(pin), pin.choices[2].settings) == ("none", (("cpu.pin", '"fast_cores"'),))


def test_each_set_of_cpus_is_one_step_from_none() -> None:
    space = space_of(HYBRID, ())
    at = [axis.name for axis in space.axes].index("pin")
    assert {point[at] for point in space.neighbours(space.current, at)} == {0, 2}


def test_another_set_of_cpus_has_a_thread_for_each_whatever_the_axes_of_threads_have() -> None:
    written = replace(HYBRID, settings=settings(cpu__threads=32, cpu__threads_batch=32))
    space = space_of(written, ())
    fast = tuple(2 if axis.name == "pin" else 0 for axis in space.axes)
    found = space.settings(space.canonical(fast))
    assert (found["cpu.pin"], found["cpu.threads"], found["cpu.threads_batch"]) == ('"fast_cores"', "8", "8")
    pinned = replace(HYBRID, settings=settings(cpu__pin="fast_cores"))
    assert [each.mutes for each in axes(pinned)["pin"].choices] == [("threads", "threads_batch"), (), ()]


def test_kernels_for_experts_are_the_forks_own() -> None:
    assert "fused_moe" not in axes(CARD)
    assert {"fused_moe", "merge_experts"} & set(axes(replace(CARD, kind="ik", expert_layers=0))) == set()
    fork = axes(replace(CARD, kind="ik"))
    assert now(fork["fused_moe"]) == "the engine's"
    assert [each.label for each in fork["fused_moe"].choices] == ["the engine's", "false", "true"]
