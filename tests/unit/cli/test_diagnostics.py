from __future__ import annotations

import io
import sys

import pytest

from orchestrator.cli import diagnostics
from orchestrator.core.errors import TimedOutError, UsageError


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True


def watched_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """No fixture: pytest puts its own stderr in place between the fixtures and the test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_a_report_returns_the_exit_code_of_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnostics.report(TimedOutError("too late")) == 4
    assert capsys.readouterr().err == "error: too late\n"


def test_an_error_says_what_then_where_then_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    diagnostics.report(UsageError("no", details=("a.toml:3: 7, allowed 1 to 5", "b"), hint="run `orch up`"))
    assert capsys.readouterr() == ("", "error: no\n  a.toml:3: 7, allowed 1 to 5\n  b\n\nhint: run `orch up`\n")


def test_a_warning_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    diagnostics.warn("old")
    assert capsys.readouterr().err == "warning: old\n"


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    diagnostics.warn("old")
    assert terminal.getvalue() == "\x1b[1;33mwarning\x1b[0m: old\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_declined(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    monkeypatch.setenv(name, value)
    diagnostics.warn("old")
    assert terminal.getvalue() == "warning: old\n"


def test_an_empty_no_color_declines_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "")
    diagnostics.warn("old")
    assert "\x1b[" in terminal.getvalue()


def test_progress_replaces_its_own_line_and_gives_way_to_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    diagnostics.progress("10 %")
    diagnostics.progress("20 %")
    diagnostics.note("done")
    assert terminal.getvalue() == "\r\x1b[2K10 %\r\x1b[2K20 %\r\x1b[2Kdone\n"


def test_progress_that_was_cleared_is_not_cleared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    diagnostics.progress("10 %")
    diagnostics.clear_progress()
    diagnostics.clear_progress()
    assert terminal.getvalue() == "\r\x1b[2K10 %\r\x1b[2K"


def test_progress_is_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    diagnostics.progress("10 %")
    diagnostics.clear_progress()
    assert capsys.readouterr() == ("", "")


def test_progress_is_silent_on_a_terminal_without_cursor_control(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched_stderr(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    diagnostics.progress("10 %")
    assert terminal.getvalue() == ""


def test_a_closed_stderr_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert diagnostics.report(TimedOutError("too late", hint="wait")) == 4
