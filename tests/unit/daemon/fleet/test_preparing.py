from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.paths import Paths, make_directories
from orchestrator.core.errors import UsageError
from orchestrator.daemon.fleet.preparing import MissingModelError, Preparer
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine, EngineRegistry
from tests.unit.engines.engine_scripts import UPSTREAM, engine, paths_below

PROFILE = """
schema = 1
model = "{model}"

[memory]
gpu_layers = 1

[engine.upstream.memory]
gpu_layers = 2
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A home with one profile, whose engine upstream, found by its variable, is a program that answers as one."""
    found = paths_below(tmp_path)
    make_directories(found)
    os.makedirs(found.profiles, exist_ok=True)
    monkeypatch.setenv("ORCH_ENGINE_UPSTREAM", str(engine(tmp_path / "llama-server", UPSTREAM)))
    (tmp_path / "m.gguf").touch()
    write_known_model(str(tmp_path / "m.gguf"), "llama")
    Path(found.profiles, "p.toml").write_text(PROFILE.format(model=tmp_path / "m.gguf"))
    return found


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were looked up, in their order."""
    names: list[str] = []
    resolve = EngineRegistry.resolve

    def counted(self: EngineRegistry, id_or_path: str) -> Engine:
        names.append(id_or_path)
        return resolve(self, id_or_path)

    monkeypatch.setattr(EngineRegistry, "resolve", counted)
    return names


def test_a_start_looks_up_its_engine_once_and_renders_the_one_that_it_checked(
    paths: Paths, looked_up: list[str]
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    resolved = preparer.resolve("p", None)
    assert looked_up == ["upstream"]

    looked_up.clear()
    launch = preparer.prepare("i-1", resolved.target, None)
    assert looked_up == ["upstream"]
    assert launch.rendered.argv[0] == resolved.argv[0] == launch.rendered.binary
    assert launch.model_bytes == resolved.model_bytes == os.path.getsize(resolved.model_path)


def test_an_engine_given_by_its_path_is_started_with_what_the_profile_says_for_its_kind(
    paths: Paths, tmp_path: Path
) -> None:
    preparer = Preparer(paths, GpuReader(()))
    resolved = preparer.resolve("p", str(tmp_path / "llama-server"))
    launch = preparer.prepare("i-1", resolved.target, None)
    assert launch.profile.settings["memory.gpu_layers"] == 2
    assert launch.written == launch.profile
    assert preparer.changes(launch) == ()


def test_what_the_text_says_differently_since_is_named(paths: Paths, tmp_path: Path) -> None:
    preparer = Preparer(paths, GpuReader(()))
    launch = preparer.prepare("i-1", preparer.resolve("p", None).target, None)
    file = Path(paths.profiles, "p.toml")
    file.write_text(file.read_text().replace("gpu_layers = 2", "gpu_layers = 3"))
    assert preparer.changes(launch) == ("memory.gpu_layers",)


def test_the_key_of_a_launch_is_its_own_and_goes_with_it(paths: Paths) -> None:
    preparer = Preparer(paths, GpuReader(()))
    launch = preparer.prepare("i-1", preparer.resolve("p", None).target, None)
    assert Path(launch.key_file).read_text() == launch.api_key
    assert os.stat(launch.key_file).st_mode & 0o777 == 0o600

    preparer.forget(launch)
    preparer.forget(launch)
    assert not os.path.exists(launch.key_file)


def test_a_model_that_does_not_exist_is_refused_before_anything_is_made(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").unlink()
    preparer = Preparer(paths, GpuReader(()))
    with pytest.raises(MissingModelError) as caught:
        preparer.resolve("p", None)

    assert caught.value.details == (str(tmp_path / "m.gguf"),)
    assert not os.path.exists(os.path.join(paths.runtime, "keys"))


def test_an_engine_alone_is_a_target_while_a_profile_runs(paths: Paths) -> None:
    preparer = Preparer(paths, GpuReader(()))
    running = preparer.resolve_text("p", None).target
    assert preparer.resolve_text("upstream", running).target == running
    with pytest.raises(UsageError, match="no profile runs"):
        preparer.resolve_text("upstream", None)
