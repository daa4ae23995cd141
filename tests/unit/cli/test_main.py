from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest

from orchestrator import __version__
from orchestrator.cli import main as cli
from orchestrator.core.errors import OrchError

AddVerb = Callable[[Callable[[], int]], None]


@pytest.fixture
def add_verb(monkeypatch: pytest.MonkeyPatch) -> AddVerb:
    """Adds the command `orch act`, with a nested one, that does what the test says."""

    def add(act: Callable[[], int]) -> None:
        module = ModuleType(cli.module_of("act"))
        vars(module).update(HELP="acts", EXAMPLES="  orch act", add_arguments=arguments, run=lambda args: act())
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.VERBS, "act", "acts")

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")
        nested = parser.add_subparsers(dest="nested").add_parser("deep")
        nested.add_argument("--engine", metavar="ID")

    return add


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["help", "help"]])
def test_without_a_command_every_command_is_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out and text in out for verb, text in cli.VERBS.items())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_data(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([option]) == 0
    assert capsys.readouterr() == (f"orch {__version__}\n", "")


def test_an_unknown_command_is_an_error_of_usage_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["swich"]) == 2
    assert capsys.readouterr() == ("", "error: unknown command `swich`\n\nhint: did you mean `switch`?\n")


def test_a_command_like_no_other_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["xyzzy"]) == 2
    assert "run `orch --help`" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["act", "--jsn"], ["act", "--js"]])
def test_an_unknown_or_shortened_option_is_refused_with_the_nearest_one(
    words: list[str], add_verb: AddVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    add_verb(lambda: 0)
    assert cli.main(words) == 2
    assert "did you mean `--json`?" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--engin=x", "--enginee=x", "--eng=x"])
def test_options_of_a_nested_command_are_not_shortened_either(
    option: str, add_verb: AddVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    add_verb(lambda: 0)
    assert cli.main(["act", "deep", option]) == 2
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_a_missing_value_points_to_the_help_of_that_very_command(
    add_verb: AddVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    add_verb(lambda: 0)
    assert cli.main(["act", "deep", "--engine"]) == 2
    err = capsys.readouterr().err
    assert "argument --engine: expected one argument" in err
    assert "run `orch act deep --help`" in err


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_exit_code_is_that_of_the_command(code: int, add_verb: AddVerb) -> None:
    add_verb(lambda: code)
    assert cli.main(["act"]) == code


def test_an_interrupt_is_no_traceback(add_verb: AddVerb, capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> int:
        raise KeyboardInterrupt

    add_verb(act)
    assert cli.main(["act"]) == 130
    assert capsys.readouterr() == ("", "")


def test_what_a_command_raises_is_shown_whole(add_verb: AddVerb, capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> int:
        raise OrchError("it failed", details=("there: 3, allowed 2",), hint="run `orch act`")

    add_verb(act)
    assert cli.main(["act"]) == 1
    assert capsys.readouterr().err == "error: it failed\n  there: 3, allowed 2\n\nhint: run `orch act`\n"


def test_a_file_of_somebody_else_is_named_without_a_traceback(
    add_verb: AddVerb, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/orch.toml")

    add_verb(act)
    assert cli.main(["act"]) == 1
    assert capsys.readouterr().err == "error: Permission denied\n  /etc/orch.toml\n"


def test_a_connection_that_broke_is_a_failure_and_not_a_reader_that_left(add_verb: AddVerb) -> None:
    def act() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    add_verb(act)
    assert cli.main(["act"]) == 1


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_overview_says_what_the_command_says_of_itself(verb: str) -> None:
    assert cli.VERBS[verb] == import_module(cli.module_of(verb)).HELP


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_command_has_help_with_a_few_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])

    assert ended.value.code == 0
    out = capsys.readouterr().out
    examples = out.partition("examples:\n")[2].strip().splitlines()
    assert 2 <= len(examples) <= 5
    assert all(f"orch {verb}" in example for example in examples)


@pytest.mark.parametrize(
    ("verb", "action"), [(verb, nested.prog) for verb in cli.VERBS for nested in cli.build_parser(verb).nested()]
)
def test_every_action_of_a_command_has_help_with_a_few_examples(
    verb: str, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*action.split()[1:], "--help"])

    assert ended.value.code == 0
    examples = capsys.readouterr().out.partition("\nexamples:\n")[2].strip().splitlines()
    assert 2 <= len(examples) <= 5
    assert all(f"orch {verb}" in example for example in examples)
    if action in ("orch vram reclaim", "orch profile new", "orch engines watch"):
        assert all(action in example for example in examples)


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    endless = "from orchestrator.cli import main, output\n"
    endless += "def endless(words):\n    while True: output.line('x' * 1000)\n"
    endless += "main._dispatch = endless\nraise SystemExit(main.main([]))\n"
    with subprocess.Popen(
        [sys.executable, "-c", endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x" * 1000 + "\n"
        process.stdout.close()
        assert process.stderr.read() == ""

    assert process.returncode == 0


@pytest.mark.parametrize(
    ("redirection", "code"),
    [("--help >&-", 0), ("--help >/dev/full", 1), ("bogus 2>&-", 2), ("bogus 2>&1 >&- | exec true", 2)],
)
def test_streams_that_are_closed_or_full_do_not_hide_the_exit_code(redirection: str, code: int) -> None:
    script = f"set -o pipefail; {sys.executable} -m orchestrator {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
