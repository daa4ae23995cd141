"""What `orch bench` is asked with: words and options that it does not take are refused, before anything is done."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from orchestrator.cli import main as cli
from orchestrator.cli.operate import bench


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["accept"], "`orch bench accept` takes one PROFILE[@ENGINE], found none"),
        (["accept", "a", "b"], "`orch bench accept` takes one PROFILE[@ENGINE], found `a b`"),
        (["course", "a", "b"], "`orch bench course` takes one PROFILE[@ENGINE] or none, found `a b`"),
        (["depth"], "`orch bench depth` takes one PROFILE[@ENGINE], found none"),
        (["list", "a"], "`orch bench list` takes no word, found `a`"),
        (["upstream"], "`orch bench` takes two targets, found `upstream`"),
        (["course", "--html", "page.html"], "`orch bench course` has no --html"),
        (["course", "--tokens", "5"], "`orch bench course` has no --tokens"),
        (["accept", "a", "--json"], "`orch bench accept` has no --json"),
        (["list", "--markdown"], "`orch bench list` has no --markdown"),
        (["depth", "a", "--clients", "2"], "`orch bench depth` has no --clients"),
        (["a", "b", "--to", "1024"], "a bench of two targets has no --to"),
    ],
)
def test_what_is_not_taken_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["bench", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_action_takes_its_own_options() -> None:
    parser = ArgumentParser()
    bench.add_arguments(parser)
    for words in (
        ["show", "--html", "f", "--json"],
        ["load", "a", "--clients", "2"],
        ["a", "b", "--quick", "--seed", "1"],
    ):
        bench._check_options(parser.parse_args(words))


def test_the_command_that_repeats_a_bench_has_what_is_not_as_usual() -> None:
    parser = ArgumentParser()
    bench.add_arguments(parser)
    words = ["a", "b", "--metric", "turn", "--tokens", "64", "--quick", "--json"]
    assert bench._command(parser.parse_args(words)) == [
        "orch", "bench", "a", "b", "--metric", "turn", "--quick", "--tokens", "64",
    ]  # fmt: skip
    assert bench._command(parser.parse_args(["depth", "a", "--to", "2048"])) == [
        "orch", "bench", "depth", "a", "--to", "2048",
    ]  # fmt: skip
