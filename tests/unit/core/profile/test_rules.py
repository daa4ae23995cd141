from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.profile import EngineOverride, EngineProfile, Profile, Recovery
from orchestrator.core.profile.rules import checked_when_read, engine_kind, find_conflicts, refuse_combinations
from orchestrator.core.profile.settings import Value

Settings = Mapping[str, Value]


def messages(settings: Settings, kind: Kind = "unknown", recovery: Recovery | None = None) -> list[str]:
    profile = EngineProfile("p", "e", "/m", (), settings, recovery or Recovery(), ())
    return [finding.message for finding in find_conflicts(profile, kind)]


FIT: Settings = {"memory.fit": True}


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"speculative.type": "draft"}, "unknown", "needs `speculative.draft_model`"),
        ({"speculative.draft_model": "/d"}, "unknown", "never used"),
        ({"speculative.type": "ngram-mod", "speculative.draft_model": "/d"}, "unknown", "never used"),
        (
            {"speculative.type": ("mtp", "draft"), "speculative.draft_model": "/d"},
            "upstream",
            '"mtp" and "draft" cannot be chained',
        ),
        (
            {"speculative.type": ("dflash", "mtp"), "speculative.draft_model": "/d"},
            "ik",
            '"dflash" and "mtp" cannot be chained',
        ),
        ({"speculative.draft_min": 4, "speculative.draft_max": 3}, "unknown", "nothing is drafted"),
        ({"kv.v": "q8_0", "attention.flash": "off"}, "unknown", "needs flash attention"),
        ({"kv.v": "q8_0", "attention.flash": False}, "unknown", "needs flash attention"),
        ({**FIT, "memory.n_cpu_moe": 3}, "upstream", "gives up the fit"),
        ({**FIT, "memory.n_cpu_moe": 3}, "ik", "the fork refuses to load"),
        ({**FIT, "memory.cpu_moe": True}, "unknown", "cannot go with `memory.cpu_moe`"),
        ({**FIT, "memory.tensor_overrides": ("a=CPU",)}, "ik", "cannot go with `memory.tensor_overrides`"),
        ({**FIT, "memory.gpu_layers": 10}, "upstream", "cannot go with `memory.gpu_layers`"),
        ({**FIT, "memory.tensor_split": (1.0, 2.0)}, "upstream", "cannot go with `memory.tensor_split`"),
        ({**FIT, "memory.split": "row"}, "upstream", "not implemented"),
        ({"memory.fit_margin": 512}, "ik", "fits only with `memory.fit = true`"),
        ({"context.parallel": 2, "speculative.type": "mtp"}, "ik", "a single slot"),
        ({"speculative.type": "mtp", "kv.k": "q8_0", "speculative.kv_k": "f16"}, "ik", "has no effect"),
        ({"memory.direct_io": True, "memory.mlock": True}, "unknown", "two ways of loading"),
        ({"memory.direct_io": True, "memory.mmap": True}, "unknown", "two ways of loading"),
        ({"memory.direct_io": True, "memory.prefetch": True}, "unknown", "reads past the page cache"),
        ({"memory.cpu_moe": True, "memory.n_cpu_moe": 3}, "unknown", "keep one"),
        ({"batch.ubatch": 4096}, "unknown", "would be cut"),
        ({"cpu.pin": "fast_cores", "cpu.numa": "distribute"}, "unknown", "would be undone"),
        ({"chat.template": "a", "chat.template_file": "/t"}, "unknown", "keep one"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_with_the_reason(settings: Settings, kind: Kind, words: str) -> None:
    [message] = messages(settings, kind)
    assert words in message


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"context.parallel": 2, "speculative.type": "mtp"}, "upstream"),
        ({"context.parallel": 2, "speculative.type": "mtp"}, "unknown"),
        ({"context.parallel": 2, "speculative.type": "none"}, "ik"),
        ({"memory.fit_margin": 512}, "upstream"),
        ({"memory.fit_margin": 512}, "unknown"),
        ({"memory.fit": False, "memory.fit_margin": 512, "memory.n_cpu_moe": 3}, "ik"),
        ({**FIT, "memory.n_cpu_moe": 0, "memory.gpu_layers": "auto"}, "upstream"),
        ({**FIT, "memory.tensor_split": (1.0, 2.0)}, "ik"),
        ({"speculative.type": "none", "speculative.draft_model": "/d"}, "upstream"),
        ({"speculative.type": ("ngram-mod", "mtp"), "speculative.draft_model": "/d"}, "upstream"),
        ({"kv.v": "f16", "attention.flash": "off"}, "upstream"),
        ({"kv.v": "q8_0", "attention.flash": "auto"}, "upstream"),
        ({"batch.size": 4096, "batch.ubatch": 4096}, "upstream"),
        ({"cpu.pin": "fast_cores", "cpu.numa": "numactl"}, "unknown"),
        ({"cpu.pin": "none", "cpu.numa": "distribute"}, "unknown"),
        ({"speculative.type": "mtp", "kv.k": "q8_0", "speculative.kv_k": "q8_0"}, "ik"),
    ],
)
def test_a_combination_that_works_is_left_alone(settings: Settings, kind: Kind) -> None:
    assert messages(settings, kind) == []


@pytest.mark.parametrize(
    ("settings", "recovery", "kind", "words"),
    [
        ({}, Recovery(margins=(512,)), "ik", "a margin has no effect here"),
        (FIT, Recovery(then=("n_cpu_moe:+4",)), "unknown", "places the experts itself"),
        ({"context.size": 4096}, Recovery(then=("context:8192",)), "unknown", "saves nothing"),
        ({"attention.flash": "off"}, Recovery(then=("kv:q4_0",)), "unknown", "needs flash attention"),
    ],
)
def test_a_recovery_that_cannot_help_is_refused(settings: Settings, recovery: Recovery, kind: Kind, words: str) -> None:
    [message] = messages(settings, kind, recovery)
    assert words in message


def test_built_in_engines_have_a_known_dialect_and_others_do_not() -> None:
    assert [engine_kind(name) for name in ("upstream", "embedded", "ik-fork", "mine")] == [
        "upstream", "upstream", "ik", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "kind", "checked"),
    [
        ("upstream", "upstream", True),
        ("ik-fork", "ik", True),
        ("embedded", "upstream", False),  # not named
        ("mine", "ik", False),  # named, and of a kind that its name does not tell
    ],
)
def test_reading_a_profile_checks_the_engines_that_it_names_as_far_as_their_names_tell(
    engine: str, kind: Kind, checked: bool
) -> None:
    profile = Profile("p", "/p", "/m", "upstream", overrides={"ik-fork": EngineOverride(), "mine": EngineOverride()})
    assert checked_when_read(profile, engine, kind) is checked


def test_an_engine_that_the_profile_does_not_name_is_refused_with_every_reason() -> None:
    settings: Settings = {"context.parallel": 2, "speculative.type": "mtp", "memory.fit_margin": 512}
    profile = EngineProfile("p", "ik-fork", "/m", (), settings, Recovery(), ())
    refuse_combinations(profile, "upstream")
    with pytest.raises(UsageError) as caught:
        refuse_combinations(profile, "ik")

    assert len(caught.value.details) == 2
