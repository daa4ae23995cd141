"""`extra_args` against the flags of a build."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.help_text import read_capabilities
from orchestrator.core.dialect.known_flags import ENGINES_OF, settings_of_flags
from orchestrator.core.dialect.render import UnsupportedError, render
from orchestrator.core.profile.free_tables import FREE_TABLES
from orchestrator.core.profile.keys import HEAD
from orchestrator.core.profile.settings import BY_PATH
from tests.support import FIXTURES
from tests.unit.core.dialect.fixture_builds import (
    BUILDS,
    FORK_SDIST,
    FORK_STAGES,
    UPSTREAM,
    UPSTREAM_BARE_FLASH,
    build,
    profile,
    rendered,
)


def faults(on: str, *extra_args: str) -> list[str]:
    try:
        rendered(on, profile({}, extra_args=extra_args))
    except UnsupportedError as error:
        return list(error.details)

    return []


@pytest.mark.parametrize(
    ("on", "extra_args", "words"),
    [
        (UPSTREAM, ("--merge-qkv",), "the setting `memory.merge_qkv` says it"),
        (UPSTREAM, ("-dio",), "the setting `memory.direct_io` says it"),
        (UPSTREAM, ("--no-mmap",), "the setting `memory.mmap` says it"),
        (UPSTREAM, ("--draft-max", "16"), "the setting `speculative.draft_max` says it"),
        (UPSTREAM, ("--parallel-tool-calls",), "the setting `chat.parallel_tools` says it"),
        (FORK_SDIST, ("--checkpoint-min-step", "128"), "the setting `context.checkpoint_min_step` says it"),
        (FORK_STAGES, ("-mtp",), "the setting `speculative.type` says it"),
        (UPSTREAM, ("--treads-http", "4"), "nearest here `--threads-http`"),
        (UPSTREAM, ("--rope-scal", "2"), "nearest here `--rope-scale`, which the setting `rope.scale` says"),
        (UPSTREAM, ("-prio", "2"), "nearest here `--prio`"),
        (UPSTREAM, ("--smart-expert-reduction", "6,1"), "nearest here `[engine.ik-fork] extra_args`"),
        (FORK_SDIST, ("--poll", "50"), "nearest here `[engine.upstream] extra_args`"),
        (UPSTREAM, ("-ser", "6,1"), "nearest here `[engine.ik-fork] extra_args`"),
        (UPSTREAM, ("--moe-cache", "8"), "nothing comes near it"),
        (UPSTREAM, ("--prio=2",), "nearest here two arguments"),
        (UPSTREAM, ("--swa-full", "true"), "`true` stands where a flag is expected"),
        (UPSTREAM, ("--prio",), "lacks its value"),
        (UPSTREAM, ("-cnv",), "no server reads it"),
        (UPSTREAM_BARE_FLASH, ("--image-min-tokens", "8"), "the setting `multimodal.image_min_tokens` says it"),
    ],
)
def test_what_a_build_would_refuse_is_refused_with_what_comes_nearest(
    on: str, extra_args: tuple[str, ...], words: str
) -> None:
    [fault] = faults(on, *extra_args)
    assert fault.startswith("extra_args = ")
    assert words in fault


@pytest.mark.parametrize(
    ("on", "extra_args"),
    [
        (UPSTREAM, ("--prio", "2", "--poll", "50")),
        (UPSTREAM, ("--threads_http", "4")),
        (UPSTREAM, ("--keep", "-1", "--swa-full")),
        (FORK_SDIST, ("-ger", "-ser", "6,1", "-no-fug")),
        (FORK_SDIST, ("--lora-scaled", "/a.gguf", "0.5", "-ger")),
        (UPSTREAM_BARE_FLASH, ("--lora-scaled", "/a.gguf", "0.5")),
        (UPSTREAM, ("--grammar", "--x")),
    ],
)
def test_what_a_build_takes_is_passed_last(on: str, extra_args: tuple[str, ...]) -> None:
    assert rendered(on, profile({}, extra_args=extra_args)).argv[-len(extra_args) :] == extra_args


def test_every_fault_is_named() -> None:
    assert len(faults(UPSTREAM, "--merge-qkv", "--prio", "2", "--nonsense", "3", "-dio")) == 3


def test_a_flag_that_a_setting_says_is_noted_and_a_repeated_one_warned_of() -> None:
    notes = rendered(UPSTREAM, profile({"sampling.temperature": 1.0}, extra_args=("--temp", "0.5"))).notes
    assert any("`--temp` is said by `sampling.temperature`" in note and "comes last and wins" in note for note in notes)


@pytest.mark.parametrize("on", BUILDS)
def test_every_flag_that_a_build_lists_is_taken(on: str) -> None:
    for flag in build(on).each():
        if not flag.removed:
            assert faults(on, flag.name, *(["1"] if flag.value else [])) == []


def test_a_removed_flag_is_refused() -> None:
    for on in BUILDS:
        for flag in build(on).each():
            if flag.removed:
                [fault] = faults(on, flag.name, *(["1"] if flag.value else []))
                assert "was removed" in fault


def test_the_settings_of_known_flags_exist_and_no_flag_has_both_a_setting_and_none() -> None:
    assert set(settings_of_flags().values()) <= {*BY_PATH, *HEAD, *FREE_TABLES}
    assert not settings_of_flags().keys() & ENGINES_OF.keys()


def test_a_further_forks_cache_type_is_passed_where_its_help_lists_it_and_refused_elsewhere() -> None:
    texts = [(FIXTURES / "help" / f"{UPSTREAM}.{part}.txt").read_text() for part in ("help", "version")]
    third = read_capabilities(texts[0].replace("allowed values: f32,", "allowed values: turbo4, f32,"), texts[1])
    wanted = profile({"kv.k": "turbo4"})
    line = render(wanted, third, build="third", model="/m", host="h", port="1", api_key_file=None).argv
    assert line[line.index("--cache-type-k") + 1] == "turbo4"
    for on in BUILDS:
        with pytest.raises(UnsupportedError) as caught:
            rendered(on, wanted)

        assert "only further forks of upstream have it" in caught.value.details[0]
        assert "nearest here q4_0" in caught.value.details[0]
