"""`orch profile` and `orch config` as a user runs them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import FIXTURES, PATIENCE_S


class Orch:
    """Runs `orch` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.profiles = home / "config" / "profiles"
        self.profiles.mkdir(parents=True)

    def __call__(self, *words: str, code: int = 0, environment: dict[str, str] | None = None) -> tuple[str, str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "ORCH_HOME": str(self.home), **(environment or {})}
        command = [sys.executable, "-m", "orchestrator", *words]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, cwd=self.home, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def json(self, *words: str) -> dict[str, object]:
        document: dict[str, object] = json.loads(self(*words, "--json")[0])
        return document


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    return Orch(tmp_path / "home")


def test_the_shipped_profiles_are_listed_and_valid(orch: Orch) -> None:
    out, _ = orch("profile", "list")
    assert "qwen3.6-35b-a3b-12gb  ik-fork   shipped" in out
    out, err = orch("profile", "check")
    assert (out, err.split()[-2:]) == ("", ["no", "problem"])
    assert orch.json("profile", "check")["problems"] == []


def test_show_says_which_file_says_what(orch: Orch) -> None:
    orch("profile", "set", "qwen3.6-35b-a3b-12gb", "memory.fit_margin=1792")
    values = orch.json("profile", "show", "qwen3.6-35b-a3b-12gb")["values"]
    assert isinstance(values, list)
    origins = {entry["key"]: (entry["value"], entry["from"]) for entry in values}
    assert origins["memory.fit_margin"] == (1792, "own")
    assert origins["kv.k"] == ("q8_0", "parent base-qwen3.6-35b-a3b, shipped")
    assert origins["recovery.margins"] == ([1664, 1792, 2048], "own")


def test_set_shows_old_and_new_and_copies_a_shipped_profile_first(orch: Orch) -> None:
    out, err = orch("profile", "set", "demo", "context.size=8192", "kv.k=q8_0", "kv.v=q8_0")
    assert out == 'context.size: 4096 -> 8192\nkv.k: "f16" -> "q8_0"\nkv.v: "f16" -> "q8_0"\n'
    assert "copied to" in err
    assert "# The engine that comes as a Python wheel" in (orch.profiles / "demo.toml").read_text()
    assert "demo                  embedded  yours" in orch("profile", "list")[0]
    changes = orch.json("profile", "set", "demo", "--unset", "context.parallel")["changes"]
    assert changes == [{"key": "context.parallel", "before": 2, "after": None}]


def test_a_bad_value_is_refused_and_nothing_is_written(orch: Orch) -> None:
    out, err = orch("profile", "set", "demo", "context.sise=8192", code=2)
    assert out == ""
    assert "unknown key `context.sise` (did you mean `size`?)" in err
    assert list(orch.profiles.iterdir()) == []
    assert "is not KEY=VALUE" in orch("profile", "set", "demo", "context.size", code=2)[1]
    assert "nothing to set" in orch("profile", "set", "demo", code=2)[1]


def test_check_lists_every_problem_with_its_line_and_ends_with_2(orch: Orch) -> None:
    (orch.home / "bad.toml").write_text("schema = 1\n[context]\nsize = 'x'\nsice = 1\n[kv]\nk = 'q8'\n")
    out, err = orch("profile", "check", "./bad.toml", "demo", code=2)
    path = orch.home / "bad.toml"
    assert [line.split(" ")[0] for line in out.splitlines()] == [f"{path}:3:", f"{path}:4:", f"{path}:6:", f"{path}:"]
    assert err == "2 profiles checked: 4 problems\n"
    out, _ = orch("profile", "check", "./bad.toml", "--json", code=2)
    first = json.loads(out)["problems"][0]
    assert first == {
        "file": str(path),
        "line": 3,
        "key": "context.size",
        "message": "`context.size`: expected an integer, found a string",
        "hint": None,
    }


def test_a_syntax_error_shows_line_and_column(orch: Orch) -> None:
    (orch.home / "bad.toml").write_text("schema = 1\nmodel = = 2\n")
    _, err = orch("profile", "show", "./bad.toml", code=2)
    assert "bad.toml:2: Invalid value at column 9" in err


@pytest.mark.parametrize("verb", ["show", "check", "render"])
@pytest.mark.parametrize("name", ["qwen3.6-35b-a3b-13gb", "../x", "/etc/shadow", "x" * 300, "a\x1b[31mb"])
def test_a_name_that_is_no_profile_ends_with_2_and_no_traceback(orch: Orch, verb: str, name: str) -> None:
    out, err = orch("profile", verb, name, code=2)
    assert "Traceback" not in err
    assert "\x1b" not in out + err
    if name.startswith("qwen"):
        assert "did you mean `qwen3.6-35b-a3b-1" in out + err


HELP = FIXTURES / "help"


@pytest.mark.parametrize(
    ("engine", "recorded", "expected"),
    [
        ("ik-fork", "ik-b4840", ["--fit", "--fit-margin", "1664", "mtp:n_max=3,p_min=0.75"]),
        ("upstream", "upstream-b11434", ["--fit-target", "1664", "draft-mtp", "--spec-draft-n-max", "3", "0.75"]),
    ],
)
def test_the_12_gb_profile_renders_for_both_engines(
    orch: Orch, tmp_path: Path, engine: str, recorded: str, expected: list[str]
) -> None:
    binary = tmp_path / "llama-server"
    # As the real ones do: `FLAG VALUE --version` ends well if the flag is known; the fork knows its old ones no more.
    binary.write_text(
        f"""#!/bin/sh
for last; do :; done
case "$*" in
  --help) cat '{HELP}/{recorded}.help.txt' ;;
  -mtp*|-no-mtp*|--draft*|--multi*) exit 1 ;;
  *) [ "$last" = --version ] && cat '{HELP}/{recorded}.version.txt' >&2 ;;
esac
"""
    )
    binary.chmod(0o755)
    variable = f"ORCH_ENGINE_{engine.upper().replace('-', '_')}"
    words = ("profile", "render", "qwen3.6-35b-a3b-12gb", "--engine", engine)
    out, _ = orch(*words, "--json", environment={variable: str(binary)})
    launch = json.loads(out)
    assert set(launch) >= {"engine", "build", "binary", "argv", "env", "notes"}
    assert (launch["engine"], launch["binary"]) == (engine, str(binary))
    assert set(expected) <= set(launch["argv"])
    assert {"131072", "q8_0", f"{orch.home}/models/Qwen3.6-35B-A3B-IQ4_XS.gguf"} <= set(launch["argv"])
    out, _ = orch(*words, environment={variable: str(binary)})
    assert out.startswith("env -i ")
    assert shlex.split(out)[-len(launch["argv"]) :] == launch["argv"]


def test_a_new_profile_takes_its_model_from_where_the_user_stands(orch: Orch) -> None:
    out, err = orch("profile", "new", "mine", "--model", "m.gguf", "--extends", "qwen3.6-35b-a3b-12gb")
    assert f"warning: there is no file {orch.home / 'm.gguf'}" in err
    assert out == f"{orch.profiles / 'mine.toml'}\n"
    values = orch.json("profile", "show", "mine")["values"]
    assert isinstance(values, list)
    assert {"key": "model", "value": str(orch.home / "m.gguf"), "from": "own", "file": out.strip()} in values
    _, err = orch("profile", "new", "other", "--model", "m.gguf", "--extends", "nope", code=2)
    assert "there is no profile `nope`" in err


def test_a_new_profile_of_a_file_that_no_plan_can_read_says_so_and_has_no_numbers(orch: Orch) -> None:
    (orch.home / "m.gguf").write_bytes(b"GGUF")
    out, err = orch("profile", "new", "mine", "--model", "m.gguf")
    assert "without numbers of the plan" in err
    assert (
        Path(out.strip())
        .read_text()
        .endswith("[memory]\n# the engine leaves in host memory what the device has no room for\nfit = true\n")
    )


@pytest.mark.parametrize("more", [(), ("--extends", "qwen3.6-35b-a3b-12gb")])
def test_a_new_profile_of_something_else_than_a_model_is_refused_with_what_was_found(
    orch: Orch, more: tuple[str, ...]
) -> None:
    (orch.home / "directory.gguf").mkdir()
    (orch.home / "empty.gguf").touch()
    (orch.home / "page.gguf").write_text("<html>")
    for name, found in (
        ("directory", "a directory"),
        ("empty", "an empty file"),
        ("page", "a file that begins with b'<htm'"),
    ):
        out, err = orch("profile", "new", "mine", "--model", f"{name}.gguf", *more, code=2)
        assert (out, err) == (
            "",
            f"error: {orch.home / name}.gguf is no model\n  expected a GGUF file, found {found}\n",
        )

    assert list(orch.profiles.iterdir()) == []


def test_a_name_that_is_taken_is_told_before_anything_of_the_model(orch: Orch) -> None:
    (orch.home / "m.gguf").write_bytes(b"GGUF")
    for model in ("m.gguf", "nope.gguf", "."):
        _, err = orch("profile", "new", "demo", "--model", model, code=2)
        assert err.startswith("error: there is a profile `demo` already")


def test_the_schema_is_printed_as_json(orch: Orch) -> None:
    assert json.loads(orch("profile", "schema")[0])["title"] == "orch profile"


def test_the_configuration_shows_where_each_value_comes_from(orch: Orch) -> None:
    (orch.home / "config" / "orch.toml").write_text("[gateway]\nmax_queued = 5\n")
    out, _ = orch("config", "show", "--json", environment={"ORCH_GATEWAY_PORT": "9000"})
    values = json.loads(out)["values"]
    assert values["gateway.port"] == {"value": 9000, "from": "environment"}
    assert values["gateway.max_queued"] == {"value": 5, "from": "file"}
    assert values["daemon.drain_s"] == {"value": 120.0, "from": "default"}
    _, err = orch("config", "show", code=2, environment={"ORCH_GATEWAY_HOST": "0.0.0.0"})
    assert "can be reached from other machines" in err


def test_a_check_of_the_configuration_lists_every_mistake_with_its_line(orch: Orch) -> None:
    file = orch.home / "config" / "orch.toml"
    assert orch("config", "check") == ("", f"{file}: nothing is wrong\n")
    file.write_text("[residency]\npreload = ['demo', 'nobody']\n")
    out, err = orch("config", "check", code=2)
    assert out == (f"{file}:2: `residency.preload[1]`: there is no profile `nobody` (`orch profile list` shows them)\n")
    assert err == f"{file}: one problem\n"
    file.write_text("[gateway]\nport = 'x'\n[residency]\nmax = -1\n")
    document = json.loads(orch("config", "check", "--json", code=2)[0])
    assert [(each["line"], each["key"]) for each in document["problems"]] == [(2, "gateway.port"), (4, "residency.max")]


def test_the_paths_are_below_orch_home(orch: Orch) -> None:
    places = orch.json("config", "path")
    assert places["config_file"] == str(orch.home / "config" / "orch.toml")
    assert places["profiles"] == str(orch.profiles)


def test_check_says_what_is_without_effect_and_what_one_build_cannot_express(orch: Orch) -> None:
    text = "schema = 1\nmodel = 'm.gguf'\nextra_args = ['--no-such-flag']\n[memory]\ncpu_moe = true\n"
    (orch.home / "odd.toml").write_text(text)
    out, err = orch("profile", "check", "./odd.toml")
    assert out == ""
    assert "gives that up for `memory.cpu_moe`" in err
    document = json.loads(orch("profile", "check", "./odd.toml", "--json")[0])
    assert [each["file"] for each in document["remarks"]] == [str(orch.home / "odd.toml")]

    program = orch.home / "llama-server"
    program.write_text(f"#!/bin/sh\ncat {FIXTURES}/help/upstream-b11434.$(echo $1 | tr -d -).txt\n")
    program.chmod(0o755)
    out, _ = orch("profile", "check", "./odd.toml", "--engine", str(program), code=2)
    assert "it has no flag `--no-such-flag`" in out

    at_hand = {"ORCH_ENGINE_UPSTREAM": str(program)}
    out, _ = orch("profile", "check", "./odd.toml", code=2, environment=at_hand)
    assert "it has no flag `--no-such-flag`" in out
