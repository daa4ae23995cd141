"""One way of drafting in four grammars."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.render import UnsupportedError
from tests.unit.core.dialect.fixture_builds import (
    FORK_SDIST,
    FORK_STAGES,
    UPSTREAM,
    UPSTREAM_BEFORE_MTP,
    UPSTREAM_BEFORE_RENAMING,
    argv,
    notes,
    profile,
    refusal,
    rendered,
)


@pytest.mark.parametrize("on", [UPSTREAM_BEFORE_MTP, UPSTREAM_BEFORE_RENAMING])
def test_a_build_without_mtp_says_what_it_can_draft_with(on: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        rendered(on, profile({"speculative.type": "mtp"}))

    (line,) = caught.value.details
    assert line.startswith(f'speculative.type = "mtp": {on} cannot')
    assert "ngram-map-k" in line
    assert "`draft` with a draft model" in line


def test_both_engines_get_the_same_mtp_defaults() -> None:
    assert " --spec-type draft-mtp --spec-draft-n-max 3 --spec-draft-p-min 0.0 " in argv(
        UPSTREAM, speculative__type="mtp"
    )
    assert " -mtp --draft-max 3 --draft-p-min 0.0 " in argv(FORK_SDIST, speculative__type="mtp")
    assert " --spec-type mtp:n_max=3,p_min=0.0 " in argv(FORK_STAGES, speculative__type="mtp")
    assert "speculative.draft_max is unset: 3 is passed" in notes(UPSTREAM, speculative__type="mtp")


@pytest.mark.parametrize(
    ("on", "words"),
    [
        (UPSTREAM, " --spec-type draft-simple --spec-draft-model /m/d.gguf --spec-draft-n-max 8 "),
        (UPSTREAM_BEFORE_MTP, " --spec-draft-model /m/d.gguf --spec-draft-n-max 8 "),
        (UPSTREAM_BEFORE_RENAMING, " --model-draft /m/d.gguf --draft-max 8 "),
        (FORK_SDIST, " --model-draft /m/d.gguf --draft-max 8 "),
        (FORK_STAGES, " --spec-type draft:n_max=8 --model-draft /m/d.gguf "),
    ],
)
def test_a_draft_model_is_asked_for_in_the_builds_own_way(on: str, words: str) -> None:
    line = argv(
        on, speculative__type="draft", speculative__draft_model="/m/d.gguf", speculative__draft_max=8
    )  # fmt: skip

    assert words in line
    assert line.count("--spec-type") == words.count("--spec-type")


@pytest.mark.parametrize(
    ("on", "words"),
    [
        (UPSTREAM, "--spec-type ngram-map-k --spec-ngram-map-k-size-n 12 --spec-ngram-map-k-size-m 48"),
        (UPSTREAM_BEFORE_RENAMING, "--spec-type ngram-map-k --spec-ngram-size-n 12 --spec-ngram-size-m 48"),
        (FORK_SDIST, "--spec-type ngram-map-k --spec-ngram-size-n 12 --spec-ngram-size-m 48"),
        (FORK_STAGES, "--spec-type ngram-map-k:ngram_size_n=12,ngram_size_m=48"),
    ],
)
def test_ngrams_have_flags_by_type_one_for_all_or_keys_of_a_stage(on: str, words: str) -> None:
    line = argv(on, speculative__type="ngram-map-k", speculative__ngram_n=12, speculative__ngram_m=48)

    assert f" {words} " in line


def test_a_length_that_a_type_does_not_have_upstream_points_to_the_one_it_has() -> None:
    text = refusal(UPSTREAM, speculative__type="ngram-simple", speculative__draft_max=8)

    assert "`speculative.ngram_m`" in text


def test_settings_for_another_type_are_named_and_not_passed() -> None:
    text = notes(UPSTREAM, speculative__type="ngram-mod", speculative__draft_p_min=0.5)

    assert "speculative.draft_p_min = 0.5: not passed" in text
    assert "speculative.draft_max = 3: not passed" in notes(UPSTREAM, speculative__draft_max=3)


def test_mtp_in_the_fork_ignores_the_drafters_cache_types() -> None:
    text = refusal(FORK_SDIST, speculative__type="mtp", kv__k="q8_0", speculative__kv_k="q4_0")

    assert "MTP ignores it and has the type of `kv.k`; nearest here q8_0" in text
    same = notes(FORK_SDIST, speculative__type="mtp", kv__k="q8_0", speculative__kv_k="q8_0")
    assert 'speculative.kv_k = "q8_0": not passed' in same
    assert " --cache-type-k-draft q4_0 " in argv(UPSTREAM, speculative__type="mtp", speculative__kv_k="q4_0")


def test_the_fork_speculates_with_one_slot_only() -> None:
    assert "nearest here 1" in refusal(FORK_STAGES, context__parallel=2, speculative__type="mtp")
    assert " --parallel 2 " in argv(UPSTREAM, context__parallel=2, speculative__type="mtp")
    assert " --parallel 2 " in argv(FORK_STAGES, context__parallel=2, speculative__type="none")
