"""`orch engines outdated`: a repository and a package index that move on, and ones that do not answer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.cli.main import main
from orchestrator.engines.build import git as build_git
from tests.installed_builds import install_build
from tests.integration.engine_source import commit_all, write_source
from tests.integration.test_build_index import Index, index  # noqa: F401
from tests.unit.engines.engine_scripts import UPSTREAM, engine

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed here")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A home of its own; git may read repositories on this disk."""
    for function in (build_git.resolve_branch, build_git.fetch):
        assert function.__kwdefaults__ is not None
        monkeypatch.setitem(function.__kwdefaults__, "protocols", ("file",))

    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "orch"))
    return find_paths({"ORCH_HOME": str(tmp_path / "orch")})


def built_from(paths: Paths, tmp_path: Path, name: str, source: dict[str, object]) -> None:
    program = engine(tmp_path / "llama-server", UPSTREAM)
    install_build(paths, name, "b1-cpu-12", program, current=True, source=source, built_at="2026-01-01T00:00:00Z")


def outdated(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    assert main(["engines", "outdated", *words, "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_commits_since_a_build_are_told_with_those_that_matter(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source")
    old = commit_all(source, "the first")
    built_from(paths, tmp_path, "upstream", {"kind": "git", "url": f"file://{source}", "commit": old, "branch": None})
    [same], _ = outdated(capsys)
    assert (same["outdated"], same["behind"], same["newest"]) == (False, 0, old)

    for number, subject in enumerate(("docs : a word", "server : a slot", "CUDA: faster MTP")):
        (source / "bench.c").write_text(f"int main(void) {{ return {number + 1}; }}\n")
        new = commit_all(source, subject)

    # The repository of a real build has the old commit.
    build_git.fetch(os.path.join(paths.cache, "build", "upstream", "repository.git"), f"file://{source}", old)
    [found], _ = outdated(capsys, "upstream")
    assert (found["outdated"], found["behind"], found["newest"]) == (True, 3, new)
    assert [(each["subject"], each["topics"]) for each in found["commits"]] == [
        ("CUDA: faster MTP", ["speculative", "cuda"]),
        ("server : a slot", ["server"]),
        ("docs : a word", []),
    ]
    assert main(["engines", "outdated"]) == 0
    shown = capsys.readouterr()
    assert "3 commits behind" in shown.out and "server : a slot" in shown.out and "docs : a word" not in shown.out
    assert "`orch engines update upstream` builds the newest" in shown.err


def test_newer_versions_of_a_package_are_told(
    paths: Paths,
    tmp_path: Path,
    index: Index,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    for version in ("0.1.5", "0.1.10", "0.1.9"):
        index.put(version, b"")

    source: dict[str, object] = {"kind": "pypi", "package": "ik-llama-cpp-python", "version": "0.1.5"}
    built_from(paths, tmp_path, "ik-fork", source)
    [found], _ = outdated(capsys)
    assert (found["outdated"], found["newest"], found["versions"]) == (True, "0.1.10", ["0.1.10", "0.1.9"])
    assert found["age_days"] > 0


def test_a_checkout_that_moved_on_is_told(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path / "source")
    old = commit_all(source, "the first")
    built_from(paths, tmp_path, "upstream", {"kind": "path", "path": str(source), "commit": old, "changed": False})
    assert outdated(capsys)[0][0]["outdated"] is False
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    [found], _ = outdated(capsys)
    assert (found["outdated"], found["newest"]) == (True, f"{old}-changed")


def test_a_source_that_does_not_answer_is_said_and_no_answer(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    built_from(paths, tmp_path, "ik-fork", {"kind": "pypi", "package": "ik-llama-cpp-python", "version": "0.1.5"})
    missing = f"file://{tmp_path}/nowhere"
    built_from(paths, tmp_path, "upstream", {"kind": "git", "url": missing, "commit": "a" * 40, "branch": None})
    found, _ = outdated(capsys, code=1)
    assert [each["outdated"] for each in found] == [None, None]
    assert "`git ls-remote` failed" in found[0]["problem"]["message"]
    assert "the package index cannot be reached: 127.0.0.1" in found[1]["problem"]["message"]
    assert main(["engines", "outdated"]) == 1
    assert "it is not known what is newer: the package index cannot be reached" in capsys.readouterr().err


def test_without_a_build_there_is_nothing_to_compare_with(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = outdated(capsys)
    assert found == []
    assert "no build of orch's own" in err
    assert main(["engines", "outdated", "nope"]) == 2
