"""Load modes, margins and placement."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.render import UnsupportedError
from orchestrator.core.profile.settings import Value
from tests.unit.core.dialect.fixture_builds import (
    FORK_SDIST,
    FORK_STAGES,
    UPSTREAM,
    UPSTREAM_BEFORE_RENAMING,
    UPSTREAM_BOTH_LOAD_FLAGS,
    argv,
    notes,
    profile,
    refusal,
    rendered,
)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"memory__mmap": True}, "mmap"),
        ({"memory__mmap": False}, "none"),
        ({"memory__mlock": True}, "mmap+mlock"),
        ({"memory__mmap": True, "memory__mlock": True}, "mmap+mlock"),
        ({"memory__mmap": False, "memory__mlock": True}, "mlock"),
        ({"memory__direct_io": True}, "dio"),
        ({"memory__direct_io": True, "memory__mmap": False}, "dio"),
    ],
)
@pytest.mark.parametrize("on", [UPSTREAM, UPSTREAM_BOTH_LOAD_FLAGS])
def test_the_load_mode_is_one_word_where_there_is_one(on: str, settings: dict[str, Value], word: str) -> None:
    line = argv(on, **settings)

    assert f" --load-mode {word} " in line
    assert "--mlock" not in line


def test_load_modes_that_exclude_one_another_are_refused() -> None:
    text = refusal(UPSTREAM, memory__direct_io=True, memory__mmap=True)

    assert [line.partition(" = ")[0] for line in text.splitlines()] == ["memory.mmap", "memory.direct_io"]


def test_a_load_mode_that_is_the_default_leaves_a_note() -> None:
    assert "--load-mode" not in argv(UPSTREAM, memory__mlock=False)
    assert "memory.mlock = false: nothing to pass" in notes(UPSTREAM, memory__mlock=False)


def test_builds_without_a_load_mode_have_flags_of_their_own() -> None:
    assert " --no-mmap --mlock " in argv(FORK_SDIST, memory__mmap=False, memory__mlock=True)
    assert " --direct-io " in argv(UPSTREAM_BEFORE_RENAMING, memory__direct_io=True)
    assert "`memory.mmap = false` reads the file" in refusal(FORK_SDIST, memory__direct_io=True)
    assert "memory.mmap = true: nothing to pass" in notes(FORK_SDIST, memory__mmap=True)


def test_a_margin_for_each_device_is_a_list_upstream_and_pairs_in_the_newer_fork() -> None:
    assert " --fit-target 512,1024 " in argv(UPSTREAM, memory__fit=True, memory__fit_margin=(512, 1024))
    assert " --gpu-fit-margin 0,512,1,1024 " in argv(FORK_STAGES, memory__fit=True, memory__fit_margin=(512, 1024))
    assert "one number" in refusal(FORK_SDIST, memory__fit=True, memory__fit_margin=(512, 1024))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("memory.cpu_moe", True),
        ("memory.n_cpu_moe", 8),
        ("memory.tensor_overrides", ("exps=CPU",)),
        ("memory.gpu_layers", 20),
    ],
)
def test_the_fork_does_not_fit_what_is_placed_by_hand(setting: str, value: Value) -> None:
    settings: dict[str, Value] = {"memory.fit": True, setting: value}

    with pytest.raises(UnsupportedError) as caught:
        rendered(FORK_SDIST, profile(settings))

    (line,) = caught.value.details
    assert line.startswith(f"memory.fit = true: {FORK_SDIST} cannot: its fit places the model itself")
    assert f"does not go with `{setting}`; drop one of the two" in line
    assert "--fit" in rendered(UPSTREAM, profile(settings)).argv
