"""`orch import`: what is written, and what never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.core import exit_codes

SCRIPT = "#!/bin/sh\nexec llama-server -m models/some.gguf -c 4096 -ngl 99 -fa --port 9000 --tools all\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG", "STATE", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "run.sh").write_text(SCRIPT)
    return tmp_path


def profiles(home: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (home / "config").rglob("profiles/*.toml")}


def test_it_writes_a_profile_that_says_where_it_comes_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(home / "run.sh")]) == exit_codes.OK
    [(name, text)] = profiles(home).items()
    assert name == "some.toml"
    assert text.startswith(f"# Imported from {home / 'run.sh'}, line 2.")
    assert f'model = "{home}/models/some.gguf"' in text
    assert "# lost: --tools all" in text
    assert main(["profile", "check", "some"]) == exit_codes.OK
    assert "--tools all" in capsys.readouterr().out


def test_check_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(home / "run.sh"), "--check", "--json"]) == exit_codes.OK
    assert profiles(home) == {}
    [profile] = json.loads(capsys.readouterr().out)["profiles"]
    assert (profile["name"], profile["file"], profile["refusal"]) == ("some", None, None)
    assert {"fate": "kept", "source": "-c 4096", "text": "context.size", "line": 2} in profile["findings"]


def test_a_profile_that_is_there_is_left_alone_without_force(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(home / "run.sh")]) == exit_codes.OK
    [path] = (home / "config").rglob("profiles/some.toml")
    path.write_text("# mine\n" + path.read_text())
    assert main(["import", str(home / "run.sh")]) == exit_codes.USAGE
    assert "some" in capsys.readouterr().err and path.read_text().startswith("# mine")
    assert main(["import", str(home / "run.sh"), "--force"]) == exit_codes.OK
    assert path.read_text().startswith("# Imported")


def test_a_text_without_a_server_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run.sh").write_text("echo hello\n")
    assert main(["import", str(home / "run.sh")]) == exit_codes.USAGE
    assert "no start of a llama-server" in capsys.readouterr().err


def test_variables_can_be_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run.sh").write_text("llama-server -m $MODEL -c ${CTX}\n")
    args = ["import", str(home / "run.sh"), "--json", "--var", "MODEL=/m/x.gguf", "--var", "CTX=2048"]
    assert main(args) == exit_codes.OK
    [profile] = json.loads(capsys.readouterr().out)["profiles"]
    assert (profile["name"], profile["arguments"]) == ("x", ["-m", "/m/x.gguf", "-c", "2048"])
    assert main(["import", str(home / "run.sh"), "--var", "MODEL"]) == exit_codes.USAGE


def test_a_repository_is_the_file_that_is_here(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(home / "llama"))
    (home / "llama").mkdir()
    for name in ("org_Some-GGUF_Some-Q8_0.gguf", "org_Some-GGUF_mmproj-F16.gguf"):
        (home / "llama" / name).touch()

    (home / "run.sh").write_text("llama-server -hf org/Some-GGUF:Q8_0 -c 512\n")
    assert main(["import", str(home / "run.sh"), "--json"]) == exit_codes.OK
    text = json.loads(capsys.readouterr().out)["profiles"][0]["text"]
    assert f'model = "{home}/llama/org_Some-GGUF_Some-Q8_0.gguf"' in text
    assert f'mmproj = "{home}/llama/org_Some-GGUF_mmproj-F16.gguf"' in text


SWAP = """\
models:
  a: {cmd: llama-server -m /m/a.gguf -c 512}
  b: {cmd: llama-server -m /m/b.gguf -c 512}
groups:
  one: {swap: true, members: [a, b]}
hooks: {on_startup: {preload: [a]}}
"""


def test_what_a_source_says_of_all_models_is_added_to_the_configuration(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "swap.yaml").write_text(SWAP)
    config = home / "config" / "orch" / "orch.toml"
    config.parent.mkdir(parents=True)
    config.write_text('# mine\n[residency]\npreload = ["x"]  # kept\n')
    assert main(["import", str(home / "swap.yaml"), "--check"]) == exit_codes.OK
    assert "would be added" in capsys.readouterr().out and "exclusive" not in config.read_text()
    assert main(["import", str(home / "swap.yaml"), "--json"]) == exit_codes.OK
    report = json.loads(capsys.readouterr().out)
    assert report["config_added"] == {"residency.exclusive": [["a", "b"]]}
    assert "residency.preload" in {each["source"] for each in report["findings"] if "left as it is" in each["text"]}
    text = config.read_text()
    assert text.startswith('# mine\n[residency]\npreload = ["x"]  # kept\n') and 'exclusive = [["a", "b"]]' in text


def test_files_beside_the_source_are_followed_and_no_others(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "src"
    folder.mkdir()
    (home / "outside.env").write_text("CTX=1\n")
    (folder / "llm.env").write_text("CTX=2048\nAPI_KEY=sk-abc\n")
    (folder / "start.sh").write_text('. ./llm.env\nexec llama-server -m "$1" -c $CTX --api-key $API_KEY\n')
    (folder / "llm.service").write_text("[Service]\nExecStart=/srv/start.sh /m/x.gguf\n")
    assert main(["import", str(folder / "llm.service"), "--json", "--check"]) == exit_codes.OK
    printed = capsys.readouterr().out
    report = json.loads(printed)
    assert report["profiles"][0]["arguments"] == ["-m", "/m/x.gguf", "-c", "2048", "--api-key", "***"]
    assert {str(folder / "llm.env"), str(folder / "start.sh")} <= {each["source"] for each in report["findings"]}
    assert "sk-abc" not in printed
    (folder / "out.sh").write_text(". ../outside.env\nllama-server -m /m/y.gguf -c $CTX\n")
    assert main(["import", str(folder / "out.sh"), "--json", "--check"]) == exit_codes.OK
    assert json.loads(capsys.readouterr().out)["profiles"][0]["arguments"][-1] == "${CTX}"


def test_a_router_is_its_preset_file_with_its_own_flags_over_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "models.ini").write_text("[*]\nctx-size = 512\n[a]\nmodel = /m/a.gguf\nc = 256\n")
    (home / "run.sh").write_text("llama-server --models-preset ~/x/models.ini --models-max 2 -fa on -c 1024\n")
    assert main(["import", str(home / "run.sh"), "--json", "--check"]) == exit_codes.OK
    [profile] = json.loads(capsys.readouterr().out)["profiles"]
    assert profile["name"] == "a" and profile["arguments"][-4:] == ["-fa", "on", "-c", "1024"]
