from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore, shipped_directory
from orchestrator.adapters.paths import find_paths
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import ProblemsError
from orchestrator.core.profile.profile import Recovery

HEAD = "schema = 1\nmodel = 'm.gguf'\n"


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    (tmp_path / "shipped").mkdir()
    store = ProfileStore(find_paths({"ORCH_HOME": str(tmp_path)}), str(tmp_path / "shipped"))
    os.makedirs(store.directory)
    return store


def write(store: ProfileStore, name: str, text: str, *, shipped: bool = False) -> str:
    path = Path(store.shipped if shipped else store.directory) / f"{name}.toml"
    path.write_text(text)
    return str(path)


def problems_of(store: ProfileStore, name: str) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        store.resolve(name)

    return [str(problem) for problem in caught.value.problems]


def test_the_users_profile_comes_before_a_shipped_one_of_the_same_name(store: ProfileStore) -> None:
    write(store, "a", HEAD + "description = 'shipped'", shipped=True)
    write(store, "b", HEAD, shipped=True)
    write(store, "a", HEAD + "description = 'mine'")
    assert store.names() == ["a", "b"]
    assert store.load("a").description == "mine"


def test_the_model_is_relative_to_the_file_that_names_it(store: ProfileStore, tmp_path: Path) -> None:
    write(store, "base-a", "schema = 1\nmodel = '../m.gguf'", shipped=True)
    write(store, "b", "schema = 1\nextends = 'base-a'")
    write(store, "c", "schema = 1\nmodel = '~/m.gguf'")
    assert store.load("b").model == str(tmp_path / "m.gguf")
    assert store.load("c").model == os.path.expanduser("~/m.gguf")


def test_a_file_is_named_by_a_path(store: ProfileStore, tmp_path: Path) -> None:
    file = tmp_path / "My File.toml"
    file.write_text(HEAD)
    profile = store.load(str(file))
    assert (profile.name, profile.model) == ("my-file", str(tmp_path / "m.gguf"))


def test_problems_of_a_parent_are_reported_in_its_file_beside_the_childs(store: ProfileStore) -> None:
    parent = write(store, "base-a", "schema = 1\n[memory]\nfit_margn = 1\n")
    child = write(store, "b", "schema = 1\nmodel = 'm'\nextends = 'base-a'\n\n[context]\nsize = 'x'\n")
    assert problems_of(store, "b") == [
        f"{child}:6: `context.size`: expected an integer, found a string",
        f"{parent}:3: unknown key `memory.fit_margn` (did you mean `fit_margin`?)",
    ]


def test_a_combination_is_reported_where_it_is_written(store: ProfileStore) -> None:
    parent = write(store, "base-a", "schema = 1\n[context]\nparallel = 4\n")
    write(store, "b", HEAD + "engine = 'ik-fork'\nextends = 'base-a'\n[speculative]\ntype = 'mtp'\n")
    [problem] = problems_of(store, "b")
    assert problem.startswith(f"{parent}:3: `context.parallel = 4`: the fork speculates with a single slot")


def test_a_misspelt_key_is_not_also_reported_as_missing(store: ProfileStore) -> None:
    write(
        store,
        "a",
        HEAD + "engine = 'ik-fork'\n[memory]\nfitt = true\nfit_margin = 512\nmlock = true\ndirect_io = true\n",
    )
    first, second = problems_of(store, "a")
    assert "unknown key `memory.fitt`" in first
    assert "two ways of loading" in second


def test_a_combination_that_only_an_overridden_engine_refuses_is_found(store: ProfileStore) -> None:
    write(store, "a", HEAD + "[engine.ik-fork.speculative]\ntype = 'mtp'\n[context]\nparallel = 2\n")
    assert len(problems_of(store, "a")) == 1


def test_extends_in_a_circle_is_refused(store: ProfileStore) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        write(store, name, f"schema = 1\nextends = '{parent}'\n")

    [problem] = problems_of(store, "a")
    assert problem.endswith("c.toml:2: `extends` goes in a circle: a -> b -> c -> a")


def test_a_missing_parent_is_named_with_the_nearest_one(store: ProfileStore) -> None:
    write(store, "base-one", "schema = 1\n")
    child = write(store, "b", "schema = 1\nmodel = 'm'\nextends = 'base-oen'\n")
    assert problems_of(store, "b") == [
        f"{child}:3: `extends`: there is no profile `base-oen` (did you mean `base-one`?)"
    ]


def test_only_a_base_may_lack_a_model_and_it_cannot_be_started(store: ProfileStore) -> None:
    write(store, "base-a", "schema = 1\n")
    path = write(store, "b", "schema = 1\nextends = 'base-a'\n")
    assert problems_of(store, "b") == [f"{path}: `model` is missing (only a profile named `base-...` may lack it)"]
    with pytest.raises(UsageError, match="no model: it is there to be extended"):
        store.load("base-a")


def test_an_unknown_profile_gets_the_nearest_name(store: ProfileStore) -> None:
    write(store, "qwen", HEAD)
    with pytest.raises(UsageError) as caught:
        store.load("qwne")

    assert caught.value.hint == "did you mean `qwen`?"


@pytest.mark.parametrize(
    "name", ["..", "a..b", "A", "a\0b", "a b", "", "-a", ".hidden", "x" * 65, "x" * 300, "%2e%2e", "a\n"]
)
def test_a_hostile_name_is_refused(store: ProfileStore, name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a profile") as caught:
        store.load(name)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "/a\0b", "/" + "x" * 300, "/dev/zero"])
def test_a_hostile_path_is_refused_as_a_file_that_is_no_profile(store: ProfileStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.load(name)


def test_a_link_out_of_the_directory_is_refused_and_one_within_is_not(store: ProfileStore, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text(HEAD)
    os.symlink(tmp_path / "secret.toml", os.path.join(store.directory, "out.toml"))
    write(store, "a", HEAD)
    os.symlink("a.toml", os.path.join(store.directory, "in.toml"))
    with pytest.raises(UsageError, match="is a link out of the profile directory"):
        store.load("out")

    assert store.load("in").name == "in"


def test_a_fifo_does_not_hang_the_reader(store: ProfileStore) -> None:
    os.mkfifo(os.path.join(store.directory, "pipe.toml"))
    [problem] = problems_of(store, "pipe")
    assert problem.endswith("pipe.toml is not a regular file")


def test_text_that_is_not_utf_8_or_too_long_is_refused(store: ProfileStore) -> None:
    Path(write(store, "a", "")).write_bytes(b"schema = 1\nmodel = '\xff'\n")
    Path(write(store, "b", "")).write_bytes(b"#" * 1024 * 1024 + b"\n")
    assert "a.toml:2: not UTF-8" in problems_of(store, "a")[0]
    assert "b.toml is too long" in problems_of(store, "b")[0]


def test_loading_all_gives_the_good_ones_and_what_is_wrong_with_the_rest(store: ProfileStore) -> None:
    write(store, "base-a", "schema = 1\nx = 1\n")
    write(store, "bad", "schema = 1\nmodel = 'm'\nextends = 'base-a'\n")
    write(store, "good", HEAD + "aliases = ['g', 'other']\n")
    other = write(store, "other", HEAD + "aliases = ['o',\n'g']\n")
    write(store, "Bad Name", HEAD)
    profiles, problems = store.load_all()
    assert [profile.name for profile in profiles] == ["good", "other"]
    found = [str(problem) for problem in problems]
    assert len(found) == 4  # the parent's problem once, though two profiles show it
    assert "the file's name" in found[0]
    assert "unknown key `x`" in found[1]
    assert "`aliases`: `other` already means the profile `other`" in found[2]
    assert found[3].startswith(f"{other}:3: `aliases`: `g` already means the profile `good`")


def test_a_client_finds_a_profile_by_name_before_alias(store: ProfileStore) -> None:
    write(store, "a", HEAD + "aliases = ['x', 'b']\n")
    write(store, "b", HEAD)
    found = {name: store.find_by_model_name(name) for name in ("a", "x", "b", "no")}
    assert {name: profile.name if profile else None for name, profile in found.items()} == {
        "a": "a",
        "x": "a",
        "b": "b",
        "no": None,
    }


def test_what_orch_ships_is_valid_and_complete() -> None:
    store = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"}), shipped_directory())
    profiles, problems = store.load_all()
    assert problems == ()
    assert {profile.name for profile in profiles} == {
        "demo",
        *(f"qwen3.6-35b-a3b-{size}gb" for size in (8, 12, 16, 24)),
        *(f"qwen3.6-27b-{size}gb" for size in (12, 16, 24)),
    }
    for profile in profiles:
        assert profile.settings["speculative.type"] == "mtp", profile.name
        assert profile.description, profile.name


def test_the_12_gb_profile_says_what_it_promises() -> None:
    profile = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"}), shipped_directory()).load("qwen3.6-35b-a3b-12gb")
    assert profile.engine == "ik-fork"
    assert profile.recovery == Recovery((1664, 1792, 2048), ("kv:q4_0", "context:65536"), 6)
    assert profile.settings == {
        "context.size": 131072,
        "context.parallel": 1,
        "kv.k": "q8_0",
        "kv.v": "q8_0",
        "memory.fit": True,
        "memory.fit_margin": 1664,
        "speculative.type": "mtp",
        "speculative.draft_max": 3,
        "speculative.draft_p_min": 0.75,
    }


@pytest.mark.parametrize(("name", "mtp_kv_bytes"), [("8gb", 1088), ("12gb", 1088), ("16gb", 1088), ("24gb", 1088)])
def test_the_margins_of_the_mixture_are_the_ones_computed(name: str, mtp_kv_bytes: int) -> None:
    profile = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"}), shipped_directory()).load(
        f"qwen3.6-35b-a3b-{name}"
    )
    size = profile.settings["context.size"]
    assert isinstance(size, int)
    needed = 1024 + 501 + size * mtp_kv_bytes / 2**20
    assert profile.settings["memory.fit_margin"] == -(-needed // 64) * 64
    assert profile.recovery.margins[0] == profile.settings["memory.fit_margin"]
