"""The headers of a profile's files are read before anything is started: `profile check` and `up --dry-run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.engines.known.model import write_known_model
from tests.unit.engines.engine_scripts import UPSTREAM, engine
from tests.unit.engines.test_model_check import retype


def orch(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ORCH_HOME": str(home), "NO_COLOR": "1"}
    env["ORCH_ENGINE_UPSTREAM"] = str(home / "llama-server")
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    engine(tmp_path / "llama-server", UPSTREAM)
    write_known_model(str(tmp_path / "m.gguf"), "llama")
    profiles = tmp_path / "config" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "small.toml").write_text(f'schema = 1\nmodel = "{tmp_path}/m.gguf"\nengine = "upstream"\n')
    return tmp_path


def test_a_dry_run_shows_the_command_line_and_starts_nothing(home: Path) -> None:
    done = orch(home, "up", "small", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert str(home / "m.gguf") in done.stdout and "nothing speaks against a start" in done.stderr
    assert not (home / "run" / "control.sock").exists()
    assert orch(home, "status").returncode != 0
    values = json.loads(orch(home, "up", "small", "--dry-run", "--json").stdout)
    assert (values["profile"], values["engine"]) == ("small", "upstream") and values["argv"]


@pytest.mark.parametrize("words", [("up", "small", "--dry-run"), ("up", "small"), ("profile", "check", "small")])
def test_a_quantisation_of_the_other_engine_is_said_with_what_to_run(home: Path, words: tuple[str, ...]) -> None:
    retype(home / "m.gguf", "output.weight", 144)
    done = orch(home, *words)
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert "tensor `output.weight` is iq4_ks, type 144" in said
    assert "`orch up small --engine ik-fork`" in said
    assert "download" not in said


@pytest.mark.parametrize("engine_name", ["mine", "elsewhere"])
def test_an_engine_that_the_user_added_is_asked_what_it_is(home: Path, engine_name: str) -> None:
    retype(home / "m.gguf", "output.weight", 144)
    assert orch(home, "engines", "add", "mine", str(home / "llama-server")).returncode == 0
    profile = home / "config" / "profiles" / "small.toml"
    profile.write_text(profile.read_text().replace('"upstream"', f'"{engine_name}"'))
    done = orch(home, "profile", "check", "small")
    said = "tensor `output.weight` is iq4_ks, type 144" in done.stdout + done.stderr
    assert (done.returncode, said) == ((2, True) if engine_name == "mine" else (0, False))


@pytest.mark.parametrize("words", [("up", "small", "--dry-run"), ("profile", "check", "small")])
def test_a_file_that_is_cut_short_is_to_be_downloaded_again(home: Path, words: tuple[str, ...]) -> None:
    (home / "m.gguf").write_bytes((home / "m.gguf").read_bytes()[:-64])
    said = orch(home, *words)
    assert said.returncode != 0
    assert "bytes are missing" in said.stdout + said.stderr and "download the file again" in said.stdout + said.stderr


def test_a_profile_can_be_checked_before_its_model_is_there(home: Path) -> None:
    (home / "m.gguf").unlink()
    assert orch(home, "profile", "check", "small").returncode == 0
    assert orch(home, "up", "small", "--dry-run").returncode == 2


def test_a_dry_run_needs_a_name(home: Path) -> None:
    assert orch(home, "up", "--dry-run").returncode == 2
