"""`orch engines` and `orch profile render`, run as a person runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import PATIENCE_S, ROOT
from tests.unit.engines.engine_scripts import FORK_NEW, UPSTREAM, engine, program

Orch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "ORCH_HOME": str(tmp_path / "orch"), **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return run


def test_probe_prints_the_contract(orch: Orch, tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", UPSTREAM)
    done = orch("engines", "probe", str(path), "--json")
    assert done.returncode == 0, done.stderr

    answer = json.loads(done.stdout)
    assert (answer["kind"], answer["commit"]) == ("upstream", None)
    assert answer["version"] == "0.6.0-dev (build 0, commit unknown)"
    size = answer["flags"]["--ctx-size"]
    assert {key: size[key] for key in ("aliases", "value", "choices", "removed")} == {
        "aliases": ["-c"],
        "value": True,
        "choices": None,
        "removed": False,
    }
    assert answer["flags"]["--draft-max"]["removed"] is True
    assert answer["flags"]["--fit"]["choices"] == ["on", "off"]


def test_probe_of_the_fork_says_ik(orch: Orch, tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", FORK_NEW)
    answer = json.loads(orch("engines", "probe", str(path), "--json").stdout)
    assert (answer["kind"], answer["version"], answer["commit"]) == ("ik", "4840 (8337e4cd3)", "8337e4cd3")
    assert answer["flags"]["--fit"]["value"] is False


def test_probe_for_people_has_a_line_for_each_flag(orch: Orch, tmp_path: Path) -> None:
    done = orch("engines", "probe", str(engine(tmp_path / "llama-server", UPSTREAM)))
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["--flash-attn"].split() == ["--flash-attn", "-fa", "on|off|auto"]
    assert lines["--draft-max"].split()[-1] == "removed"


def test_probe_of_something_else_fails_and_says_why(orch: Orch, tmp_path: Path) -> None:
    done = orch("engines", "probe", str(program(tmp_path / "a", "echo hello; exit 3")), "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ended with exit code 3" in done.stderr and "hello" in done.stderr


def test_what_is_added_is_listed_until_it_is_removed(orch: Orch, tmp_path: Path) -> None:
    path = engine(tmp_path / "llama-server", FORK_NEW)
    assert orch("engines", "add", "nightly", str(path)).returncode == 0

    listed = json.loads(orch("engines", "list", "--json").stdout)
    row = next(row for row in listed if row["id"] == "nightly")
    assert (row["kind"], row["path"], row["source"], row["found"]) == ("ik", str(path), "added", True)

    assert orch("engines", "remove", "nightly").returncode == 0
    assert all(row["id"] != "nightly" for row in json.loads(orch("engines", "list", "--json").stdout))


def test_list_shows_where_each_engine_was_found_and_which_is_not_there(orch: Orch, tmp_path: Path) -> None:
    fork = engine(tmp_path / "llama.cpp/build/bin/llama-server", FORK_NEW)
    nightly = program(tmp_path / "broken", "exit 1")
    done = orch("engines", "list", ORCH_ENGINE_NIGHTLY=str(nightly))
    assert done.returncode == 0, done.stderr

    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert str(fork) in rows["ik-fork"] and re.search(r"usual place +no$", rows["ik-fork"])
    assert re.search(r"unusable +-$", rows["nightly"])
    assert f"{nightly} cannot be used as an engine" in done.stderr


def test_list_does_not_run_a_program_twice(orch: Orch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = engine(tmp_path / "inner", UPSTREAM)
    program(tmp_path / "llama.cpp/build/bin/llama-server", f"echo run >> {log}", f'exec {inner} "$@"')
    orch("engines", "list")
    runs = log.read_text()
    orch("engines", "list")
    assert log.read_text() == runs


def test_a_bad_name_is_a_usage_error(orch: Orch, tmp_path: Path) -> None:
    done = orch("engines", "add", "../up", str(engine(tmp_path / "llama-server", UPSTREAM)))
    assert done.returncode == 2
    assert not (tmp_path / "orch/data/engines.toml").exists()


@pytest.mark.parametrize(("recorded", "engine_id"), [(UPSTREAM, "upstream"), (FORK_NEW, "ik-fork")])
def test_a_profile_is_rendered_in_the_words_of_the_engine(
    orch: Orch, tmp_path: Path, recorded: str, engine_id: str
) -> None:
    path = engine(tmp_path / "llama-server", recorded)
    profile = tmp_path / "small.toml"
    profile.write_text(
        f'schema = 1\nmodel = "/models/small.gguf"\nengine = "{engine_id}"\n\n[memory]\nfit = true\nfit_margin = 512\n'
    )
    variable = "ORCH_ENGINE_" + engine_id.upper().replace("-", "_")
    done = orch("profile", "render", str(profile), "--json", **{variable: str(path), "LLAMA_ARG_HOST": "0.0.0.0"})
    assert done.returncode == 0, done.stderr

    launch = json.loads(done.stdout)
    words = launch["argv"]
    assert (launch["engine"], launch["binary"], words[0]) == (engine_id, str(path), str(path))
    assert words[words.index("--model") + 1] == "/models/small.gguf"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    margin = "--fit-target" if recorded == UPSTREAM else "--fit-margin"
    assert words[words.index(margin) + 1] == "512"
    assert launch["env"]["GGML_NO_BACKTRACE"] == "1"
    assert "LLAMA_ARG_HOST" not in launch["env"]


def test_the_embedded_engine_is_an_upstream_engine(orch: Orch) -> None:
    from orchestrator.engines.probe_cache import EMBEDDED_SCRIPT, embedded_version

    if embedded_version() is None:
        pytest.skip("the extra `embedded` is not installed")

    assert os.path.exists(os.path.join(os.path.dirname(sys.executable), EMBEDDED_SCRIPT))
    done = orch("engines", "probe", "embedded", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["kind"], answer["source"]) == ("upstream", "package xllamacpp")
    assert answer["flags"]["--ctx-size"]["value"] is True
