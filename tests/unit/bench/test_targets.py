"""What the words of a command line stand for, and profiles that are there for a bench alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.config.trial_profiles import sweep_trial_profiles
from orchestrator.adapters.paths import Paths
from orchestrator.bench.targets import BenchTarget, bench_profiles, parse_target
from orchestrator.core.errors import OrchError, UsageError
from tests.unit.engines.engine_scripts import paths_below


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = paths_below(tmp_path)
    os.makedirs(paths.profiles)
    text = 'schema = 1\nmodel = "/m.gguf"\nengine = "ik-fork"\n[context]\nsize = 4096\n[engine.upstream.context]\n'
    Path(paths.profiles, "mine.toml").write_text(text.replace('engine = "ik-fork"\n', "") + "size = 8192\n")
    return paths


@pytest.mark.parametrize(
    ("text", "base", "engine", "settings"),
    [
        ("mine", "mine", "upstream", ()),
        ("mine@ik-fork", "mine", "ik-fork", ()),
        ("ik-fork", "mine", "ik-fork", ()),
        ("mine@upstream@b1-cpu-12", "mine", "upstream@b1-cpu-12", ()),
        ("upstream@b1-cpu-12", "mine", "upstream@b1-cpu-12", ()),
        ("mine@upstream@b1+kv.k=q8_0", "mine", "upstream@b1", (("kv.k", "q8_0"),)),
        ("mine@upstream+context.size=2048", "mine", "upstream", (("context.size", "2048"),)),
        ("mine+kv.k=q8_0,kv.v=q8_0", "mine", "upstream", (("kv.k", "q8_0"), ("kv.v", "q8_0"))),
        (
            'mine+recovery.margins=[1,2],kv.k="q8_0"',
            "mine",
            "upstream",
            (("recovery.margins", "[1,2]"), ("kv.k", '"q8_0"')),
        ),
    ],
)
def test_a_target_is_an_engine_a_profile_or_both_with_settings(
    paths: Paths, text: str, base: str, engine: str, settings: tuple[tuple[str, str], ...]
) -> None:
    assert parse_target(paths, text, ("mine", "upstream")) == BenchTarget(text, base, engine, settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mien", "neither an engine nor a profile"),
        ("mien@upstream", "there is no profile `mien`"),
        ("mine+", "settings are expected after"),
        ("mine+context.size", "is no setting"),
        ("mine+context.size=", "is no setting"),
        ("mine+=3", "is no setting"),
        ("mine+kv.k=[1", "settings are expected after"),
    ],
)
def test_what_is_no_target_is_refused(paths: Paths, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("[", r"\[")):
        parse_target(paths, text, ("mine", "upstream"))


def test_an_engine_alone_needs_a_profile_that_runs_or_ran(paths: Paths) -> None:
    with pytest.raises(UsageError, match="no profile runs or ran"):
        parse_target(paths, "ik-fork", None)


def test_settings_are_in_force_also_where_the_profile_says_another_thing_for_this_engine(paths: Paths) -> None:
    target = parse_target(paths, "mine@upstream+context.size=2048,kv.k=q8_0", None)
    store = ProfileStore(paths)
    with bench_profiles(paths, [target]):
        settings = store.load(target.profile).for_engine("upstream").settings
        assert (settings["context.size"], settings["kv.k"]) == (2048, "q8_0")
        assert store.load("mine").for_engine("upstream").settings["context.size"] == 8192

    assert os.listdir(paths.profiles) == ["mine.toml"]


def test_settings_over_one_build_of_an_engine_are_in_force(paths: Paths) -> None:
    target = parse_target(paths, "mine@upstream@b1+context.size=2048", None)
    with bench_profiles(paths, [target]):
        settings = ProfileStore(paths).load(target.profile).for_engine(target.engine).settings
        assert settings["context.size"] == 2048


def test_a_profile_of_a_block_around_stays_when_the_inner_one_ends(paths: Paths) -> None:
    target = parse_target(paths, "mine+context.size=2048", None)
    with bench_profiles(paths, [target]):
        with bench_profiles(paths, [target]):
            pass

        assert ProfileStore(paths).load(target.profile).for_engine("upstream").settings["context.size"] == 2048

    assert os.listdir(paths.profiles) == ["mine.toml"]


@pytest.mark.parametrize("setting", ["context.size=many", "context.sise=1024", "kv.k=q9"])
def test_a_wrong_setting_leaves_no_profile(paths: Paths, setting: str) -> None:
    target = parse_target(paths, f"mine+{setting}", None)
    with pytest.raises(OrchError), bench_profiles(paths, [target]):
        raise AssertionError

    assert os.listdir(paths.profiles) == ["mine.toml"]


def test_what_a_killed_bench_left_is_removed_and_a_users_profile_of_such_a_name_is_not(paths: Paths) -> None:
    target = parse_target(paths, "mine+context.size=2048", None)
    with bench_profiles(paths, [target]):
        left = Path(paths.profiles, f"{target.profile}.toml")
        text = left.read_text()

    left.write_text(text)
    Path(paths.profiles, "bench-0123456789ab.toml").write_text('schema = 1\nextends = "mine"\n')
    assert sweep_trial_profiles(paths) == [target.profile]
    assert sorted(os.listdir(paths.profiles)) == ["bench-0123456789ab.toml", "mine.toml"]
