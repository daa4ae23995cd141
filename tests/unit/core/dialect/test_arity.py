"""Flags of one name that have another shape, other values or another default in another build."""

from __future__ import annotations

import pytest

from tests.unit.core.dialect.fixture_builds import (
    BUILDS,
    FORK_SDIST,
    FORK_STAGES,
    UPSTREAM,
    UPSTREAM_BARE_FLASH,
    UPSTREAM_BEFORE_RENAMING,
    argv,
    notes,
    profile,
    refusal,
    rendered,
)


def test_fit_takes_a_word_upstream_and_none_in_the_fork() -> None:
    assert " --fit on " in argv(UPSTREAM, memory__fit=True)
    assert " --fit off " in argv(UPSTREAM, memory__fit=False)
    assert " --fit --" in argv(FORK_SDIST, memory__fit=True)
    assert " --fit " not in argv(FORK_SDIST, memory__fit=False)
    assert "memory.fit = false: nothing to pass" in notes(FORK_SDIST, memory__fit=False)
    assert " --fit " not in argv(UPSTREAM)


def test_a_build_older_than_fitting_refuses_to_fit_and_accepts_not_to() -> None:
    assert "place the model by hand" in refusal(UPSTREAM_BARE_FLASH, memory__fit=True)
    assert "memory.fit = false: nothing to pass" in notes(UPSTREAM_BARE_FLASH, memory__fit=False)


@pytest.mark.parametrize("on", [UPSTREAM, UPSTREAM_BEFORE_RENAMING, FORK_SDIST, FORK_STAGES])
def test_flash_attention_takes_a_word_in_newer_builds(on: str) -> None:
    assert " --flash-attn on " in argv(on, attention__flash=True)
    assert " --flash-attn off " in argv(on, attention__flash="off")
    assert " --flash-attn auto " in argv(on, attention__flash="auto")


def test_flash_attention_is_bare_in_old_builds() -> None:
    assert " --flash-attn --" in argv(UPSTREAM_BARE_FLASH, attention__flash=True)
    assert "--flash-attn" not in argv(UPSTREAM_BARE_FLASH, attention__flash=False)
    assert "nothing to pass" in notes(UPSTREAM_BARE_FLASH, attention__flash=False)
    assert "`true` or `false`" in refusal(UPSTREAM_BARE_FLASH, attention__flash="auto")


def test_context_shift_takes_a_word_in_the_fork_and_none_upstream() -> None:
    assert " --context-shift on " in argv(FORK_SDIST, context__shift=True)
    assert " --context-shift off " in argv(FORK_SDIST, context__shift=False)
    assert " --context-shift --" in argv(UPSTREAM, context__shift=True)
    assert " --no-context-shift " in argv(UPSTREAM, context__shift=False)


@pytest.mark.parametrize("on", [UPSTREAM, UPSTREAM_BEFORE_RENAMING, UPSTREAM_BARE_FLASH, FORK_SDIST, FORK_STAGES])
def test_the_page_that_a_build_has_stays_on(on: str) -> None:
    assert "ui" not in argv(on)


def test_log_colours_are_turned_off_only_where_that_takes_a_word() -> None:
    assert " --log-colors off " in argv(UPSTREAM)
    assert "--log-colors" not in argv(UPSTREAM_BARE_FLASH)
    assert "--log-colors" not in argv(FORK_SDIST)


def test_verbosity_4_is_asked_for_only_where_it_means_trace() -> None:
    assert " -lv 4 " in argv(UPSTREAM)
    assert " -lv 4 " in argv(UPSTREAM_BEFORE_RENAMING)
    assert "-lv" not in argv(UPSTREAM_BARE_FLASH)
    assert "--verbosity" not in argv(FORK_STAGES)


def test_the_speculative_type_is_a_word_upstream_and_a_stage_in_the_newer_fork() -> None:
    assert " --spec-type ngram-mod " in argv(UPSTREAM, speculative__type="ngram-mod")
    assert " --spec-type ngram-mod " in argv(FORK_SDIST, speculative__type="ngram-mod")
    assert " --spec-type ngram-mod:n_max=64,ngram_size_n=24 " in argv(
        FORK_STAGES, speculative__type="ngram-mod", speculative__draft_max=64, speculative__ngram_n=24
    )


def test_layers_are_words_upstream_and_numbers_in_the_fork() -> None:
    assert " --n-gpu-layers auto " in argv(UPSTREAM, memory__gpu_layers="auto")
    assert " --n-gpu-layers all " in argv(UPSTREAM_BEFORE_RENAMING, memory__gpu_layers="all")
    assert " --n-gpu-layers 20 " in argv(FORK_SDIST, memory__gpu_layers=20)
    assert " --n-gpu-layers 999 " in argv(FORK_SDIST, memory__gpu_layers="all")
    assert "`all` is written 999" in notes(FORK_SDIST, memory__gpu_layers="all")
    assert " --n-gpu-layers 999 " in argv(FORK_SDIST, memory__gpu_layers="auto")
    assert "older builds of the fork leave every layer in host memory" in notes(FORK_SDIST, memory__gpu_layers="auto")
    assert "a number of layers" in refusal(UPSTREAM_BARE_FLASH, memory__gpu_layers="auto")


@pytest.mark.parametrize("on", BUILDS)
def test_keys_are_given_in_a_file_as_their_lists_differ(on: str) -> None:
    line = rendered(on, profile(), api_key_file="/run/orch/key").argv

    assert "--api-key" not in line
    assert line[line.index("--api-key-file") + 1] == "/run/orch/key"


@pytest.mark.parametrize(
    ("on", "value", "near"),
    [
        (UPSTREAM, "graph", "layer"),
        (UPSTREAM, "attn", "layer"),
        (FORK_SDIST, "row", "layer"),
        (FORK_STAGES, "tensor", "layer"),
        (UPSTREAM_BEFORE_RENAMING, "tensor", "layer"),
    ],
)
def test_a_split_of_the_other_engine_is_refused(on: str, value: str, near: str) -> None:
    assert refusal(on, memory__split=value).endswith(f"nearest here {near}")


def test_the_split_modes_of_each_engine_are_passed() -> None:
    assert " --split-mode row " in argv(UPSTREAM, memory__split="row")
    assert " --split-mode attn " in argv(FORK_STAGES, memory__split="attn")
