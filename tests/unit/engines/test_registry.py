"""Names for engines: built in, added, or in a variable; kept in a file that people may read."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.errors import UsageError
from orchestrator.engines.locate import EngineMissingError
from orchestrator.engines.probe import NotAnEngineError
from orchestrator.engines.registry import EngineRegistry, build_label
from tests.installed_builds import install_build
from tests.unit.engines.engine_scripts import FORK_NEW, UPSTREAM, engine, paths_below, program


def registry(tmp_path: Path, **env: str) -> EngineRegistry:
    return EngineRegistry(paths_below(tmp_path), {"HOME": str(tmp_path), "PATH": "", **env})


def test_the_built_in_names_are_always_there(tmp_path: Path) -> None:
    assert registry(tmp_path).ids() == ("upstream", "ik-fork", "embedded")


def test_an_added_engine_is_found_by_its_name_afterwards(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", FORK_NEW)
    added = registry(tmp_path).add("nightly", str(path))

    assert registry(tmp_path).resolve("nightly") == added
    assert registry(tmp_path).ids()[-1] == "nightly"
    assert (added.path, added.source, added.build) == (str(path), "added", "b4840 (8337e4cd3)")


def test_the_file_says_path_content_and_time(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    added = registry(tmp_path).add("nightly", str(path))
    document = tomllib.loads((tmp_path / "orch/data/engines.toml").read_text())

    assert set(document) == {"nightly"}
    assert document["nightly"]["path"] == str(path)
    assert document["nightly"]["sha256"] == added.sha256
    assert document["nightly"]["added"].endswith("Z")


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    monkeypatch.chdir(tmp_path)
    assert registry(tmp_path).add("nightly", "llama-server").path == str(path)


def test_comments_in_the_file_are_kept(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    registry(tmp_path).add("one", str(path))
    file = tmp_path / "orch/data/engines.toml"
    file.write_text("# mine\n" + file.read_text())
    registry(tmp_path).add("two", str(path))
    registry(tmp_path).remove("one")

    assert file.read_text().startswith("# mine\n")
    assert registry(tmp_path).ids() == ("upstream", "ik-fork", "embedded", "two")


def test_adding_again_replaces(tmp_path: Path) -> None:
    first, second = engine(tmp_path / "one", UPSTREAM), engine(tmp_path / "two", FORK_NEW)
    registry(tmp_path).add("nightly", str(first))
    registry(tmp_path).add("nightly", str(second))
    assert registry(tmp_path).resolve("nightly").path == str(second)


def test_a_program_that_is_no_engine_is_not_added(tmp_path: Path) -> None:
    with pytest.raises(NotAnEngineError):
        registry(tmp_path).add("nightly", str(program(tmp_path / "a", "exit 0")))

    assert not (tmp_path / "orch/data/engines.toml").exists()


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a/b", "a..b", "a b", ".hidden", "a" * 65, "ä"])
def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        registry(tmp_path).add(name, str(engine(tmp_path / "a", UPSTREAM)))


def test_a_built_in_name_takes_only_its_own_kind(tmp_path: Path) -> None:
    fork = engine(tmp_path / "llama-server", FORK_NEW)
    with pytest.raises(NotAnEngineError, match="by its help it is `ik-fork`"):
        registry(tmp_path).add("upstream", str(fork))

    assert registry(tmp_path).add("ik-fork", str(fork)).id == "ik-fork"
    assert registry(tmp_path).resolve("ik-fork").source == "added"


def test_a_removed_engine_is_forgotten_and_its_program_stays(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    registry(tmp_path).add("nightly", str(path))
    registry(tmp_path).remove("nightly")

    assert "nightly" not in registry(tmp_path).ids()
    assert path.exists()


def test_removing_what_was_never_added_names_the_nearest(tmp_path: Path) -> None:
    registry(tmp_path).add("nightly", str(engine(tmp_path / "llama-server", UPSTREAM)))
    with pytest.raises(UsageError) as caught:
        registry(tmp_path).remove("nigthly")

    assert caught.value.hint == "did you mean `nightly`?"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        registry(tmp_path).resolve("upstrem")

    assert caught.value.details == ("known: upstream, ik-fork, embedded",)
    assert caught.value.hint == "did you mean `upstream`?"


def test_a_variable_alone_makes_a_name(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", FORK_NEW)
    there = registry(tmp_path, ORCH_ENGINE_MY_FORK=str(path))
    assert there.ids()[-1] == "my-fork"
    assert there.resolve("my-fork").source == "ORCH_ENGINE_MY_FORK"


def test_a_path_is_an_engine_with_the_built_in_name_of_its_kind(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", FORK_NEW)
    found = registry(tmp_path).resolve(str(path))
    assert (found.id, found.source, found.path) == ("ik-fork", "path", str(path))


def test_a_program_built_anew_since_it_was_added_is_used_and_marked(tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    assert not registry(tmp_path).add("nightly", str(path)).changed
    engine(path, FORK_NEW)

    found = registry(tmp_path).resolve("nightly")
    assert found.changed
    assert found.capabilities.kind == "ik"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nightly = 3\n", "engines.toml:1"),
        ("[nightly]\nadded = 'x'\n", "absolute `path`"),
        ("[nightly]\npath = 'relative'\n", "absolute `path`"),
        ("[nightly\n", "engines.toml:1"),
    ],
)
def test_a_file_with_mistakes_is_refused_with_the_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "orch/data/engines.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        registry(tmp_path).ids()

    assert expected in caught.value.details[0]
    assert file.read_text() == text


def test_the_file_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    registry(tmp_path).add("nightly", str(engine(tmp_path / "llama-server", UPSTREAM)))
    assert os.stat(tmp_path / "orch/data").st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("version", "number", "commit", "label"),
    [
        ("0.6.0-dev (build 11434, commit 1234567)", 11434, "1234567", "b11434 (1234567)"),
        ("4840 (unknown)", 4840, None, "b4840"),
        ("1 (79e0b68)", None, "79e0b68", "commit 79e0b68"),
        ("0.6.0-dev (build 0, commit unknown)", None, None, "0.6.0-dev sha256:abcdef01"),
        ("0 (sdist)", None, None, "sha256:abcdef01"),
        ("unknown", None, None, "sha256:abcdef01"),
    ],
)
def test_builds_that_do_not_know_their_number_are_told_apart_by_content(
    version: str, number: int | None, commit: str | None, label: str
) -> None:
    assert build_label(Capabilities("upstream", version, number, commit, {}), "abcdef0123456789") == label


def test_a_build_that_is_not_current_has_a_name_of_its_own(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    old = install_build(paths, "upstream", "b1", engine(tmp_path / "one", UPSTREAM), current=True)
    new = install_build(paths, "upstream", "b2", engine(tmp_path / "two", UPSTREAM, version="version: 2 (abc)"))
    found = registry(tmp_path).resolve("upstream@b2")

    assert (found.id, found.path, found.source) == ("upstream", new.server, "installed")
    assert registry(tmp_path).place("upstream@b2") == new.server
    assert registry(tmp_path).resolve("upstream").build != found.build
    assert registry(tmp_path).resolve("upstream@b1").sha256 == registry(tmp_path).resolve("upstream").sha256
    assert "upstream@b2" not in registry(tmp_path).ids()
    assert old.current


@pytest.mark.parametrize("name", ["upstream@b3", "upstream@", "upstream@..", "..@b1", "@b1"])
def test_what_is_not_installed_is_no_build(tmp_path: Path, name: str) -> None:
    install_build(paths_below(tmp_path), "upstream", "b1", engine(tmp_path / "one", UPSTREAM), current=True)
    with pytest.raises(EngineMissingError, match="no installed build"):
        registry(tmp_path).resolve(name)
