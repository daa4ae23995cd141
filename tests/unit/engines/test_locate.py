"""Engines are found where the user said, then where orch put them, then where people have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.engines.locate import EngineMissingError, FoundProgram, locate, usual_places, variable_of
from orchestrator.engines.probe import NotAnEngineError
from tests.unit.engines.engine_scripts import FORK_NEW, FORK_OLD, UPSTREAM, engine, paths_below, program


def located(tmp_path: Path, name: str, *, added: Path | None = None, **env: Path | str) -> FoundProgram:
    given = {"HOME": str(tmp_path), "PATH": "", **{key: str(value) for key, value in env.items()}}
    return locate(name, paths_below(tmp_path), given, added=str(added) if added else None)[0]


def require_empty_system_places() -> None:
    taken = [place for place in usual_places({"HOME": "/nonexistent"}) if os.path.exists(f"{place}/llama-server")]
    if taken:
        pytest.skip(f"this machine has an engine of its own in {taken[0]}")


def test_the_variable_is_the_name_in_capitals() -> None:
    assert variable_of("ik-fork") == "ORCH_ENGINE_IK_FORK"
    assert variable_of("my.build-2") == "ORCH_ENGINE_MY_BUILD_2"


def test_an_added_program_comes_before_everything_else(tmp_path: Path) -> None:
    added = engine(tmp_path / "added", UPSTREAM)
    other = engine(tmp_path / "other", UPSTREAM)
    assert located(tmp_path, "upstream", added=added, ORCH_ENGINE_UPSTREAM=other) == (str(added), "added")


def test_the_variable_comes_before_an_installed_build(tmp_path: Path) -> None:
    engine(tmp_path / "orch/data/engines/upstream/current/bin/llama-server", UPSTREAM)
    other = engine(tmp_path / "other", UPSTREAM)
    assert located(tmp_path, "upstream", ORCH_ENGINE_UPSTREAM=other) == (str(other), "ORCH_ENGINE_UPSTREAM")


def test_the_variable_may_use_the_home_directory(tmp_path: Path) -> None:
    path = engine(tmp_path / "mine", UPSTREAM)
    assert located(tmp_path, "upstream", ORCH_ENGINE_UPSTREAM="~/mine").path == str(path)


@pytest.mark.parametrize("inside", ["current/bin/llama-server", "current/llama-server"])
def test_an_installed_build_comes_before_the_path(tmp_path: Path, inside: str) -> None:
    installed = engine(tmp_path / "orch/data/engines/upstream" / inside, UPSTREAM)
    engine(tmp_path / "bin" / "llama-server", UPSTREAM)
    assert located(tmp_path, "upstream", PATH=tmp_path / "bin") == (str(installed), "installed")


def test_the_path_comes_before_the_usual_places(tmp_path: Path) -> None:
    engine(tmp_path / "llama.cpp/build/bin/llama-server", UPSTREAM)
    path = engine(tmp_path / "bin" / "llama-server", UPSTREAM)
    assert located(tmp_path, "upstream", PATH=tmp_path / "bin") == (str(path), "PATH")


@pytest.mark.parametrize("checkout", ["llama.cpp", "ik_llama.cpp", "src/llama.cpp", "src/ik_llama.cpp"])
def test_a_checkout_in_the_home_directory_is_a_usual_place(tmp_path: Path, checkout: str) -> None:
    path = engine(tmp_path / checkout / "build/bin/llama-server", UPSTREAM)
    assert located(tmp_path, "upstream") == (str(path), "usual place")


def test_the_fork_in_a_directory_called_llama_cpp_is_the_fork(tmp_path: Path) -> None:
    fork = engine(tmp_path / "llama.cpp/build/bin/llama-server", FORK_OLD)
    upstream = engine(tmp_path / "ik_llama.cpp/build/bin/llama-server", UPSTREAM)
    assert located(tmp_path, "ik-fork").path == str(fork)
    assert located(tmp_path, "upstream").path == str(upstream)


def test_every_directory_of_the_path_is_looked_at(tmp_path: Path) -> None:
    engine(tmp_path / "one/llama-server", UPSTREAM)
    fork = engine(tmp_path / "two/llama-server", FORK_NEW)
    assert located(tmp_path, "ik-fork", PATH=f"{tmp_path}/one:{tmp_path}/two").path == str(fork)


def test_a_relative_entry_of_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_empty_system_places()
    engine(tmp_path / "here/llama-server", UPSTREAM)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EngineMissingError):
        located(tmp_path, "upstream", PATH=".:")


def test_a_broken_program_on_the_path_does_not_hide_a_good_one(tmp_path: Path) -> None:
    program(tmp_path / "one/llama-server", "exit 127")
    good = engine(tmp_path / "two/llama-server", UPSTREAM)
    assert located(tmp_path, "upstream", PATH=f"{tmp_path}/one:{tmp_path}/two").path == str(good)


def test_a_named_program_that_is_broken_is_an_error_not_passed_over(tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", "exit 1")
    engine(tmp_path / "bin/llama-server", UPSTREAM)
    with pytest.raises(NotAnEngineError, match="broken cannot be used"):
        located(tmp_path, "upstream", ORCH_ENGINE_UPSTREAM=broken, PATH=tmp_path / "bin")


def test_a_named_program_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    fork = engine(tmp_path / "llama-server", FORK_NEW)
    with pytest.raises(NotAnEngineError) as caught:
        located(tmp_path, "upstream", ORCH_ENGINE_UPSTREAM=fork)

    assert "is to be upstream llama.cpp" in caught.value.message and "is ik_llama.cpp" in caught.value.message
    assert caught.value.details == ("the path comes from: ORCH_ENGINE_UPSTREAM",)


def test_a_name_of_the_users_own_takes_either_kind(tmp_path: Path) -> None:
    fork = engine(tmp_path / "llama-server", FORK_NEW)
    assert located(tmp_path, "nightly", ORCH_ENGINE_NIGHTLY=fork).path == str(fork)


def test_an_engine_that_is_nowhere_lists_where_it_was_looked_for(tmp_path: Path) -> None:
    require_empty_system_places()
    fork = engine(tmp_path / "bin/llama-server", FORK_NEW)
    with pytest.raises(EngineMissingError) as caught:
        located(tmp_path, "upstream", PATH=fork.parent)

    text = "\n".join(caught.value.details)
    assert "ORCH_ENGINE_UPSTREAM is not set" in text
    assert str(fork.parent) in text
    assert f"{tmp_path}/llama.cpp/build/bin" in text
    assert f"{fork} is ik_llama.cpp" in text
    assert caught.value.hint is not None and "orch engines add upstream PATH" in caught.value.hint


def test_one_program_under_two_names_is_probed_once(tmp_path: Path) -> None:
    require_empty_system_places()
    fork = engine(tmp_path / "bin/llama-server", FORK_NEW)
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp/llama-server").symlink_to(fork)
    with pytest.raises(EngineMissingError) as caught:
        located(tmp_path, "upstream", PATH=fork.parent)

    assert sum("is ik_llama.cpp" in line for line in caught.value.details) == 1
