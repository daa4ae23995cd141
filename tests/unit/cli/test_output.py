from __future__ import annotations

import io
import json
import sys

import pytest

from orchestrator.cli import output


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True


class LeftPipe(io.StringIO):
    """A pipe whose reader has gone."""

    def flush(self) -> None:
        raise BrokenPipeError


def narrow(encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Makes stdout one of this encoding that refuses what it lacks."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    return written


def test_json_keeps_the_order_and_the_letters(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_data({"size_mib": 1, "name": "Grüße"})
    assert capsys.readouterr() == ('{\n  "size_mib": 1,\n  "name": "Grüße"\n}\n', "")


def test_a_stream_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_line({"id": 1, "message": "a\nb"})
    output.json_line({"id": 2})
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"id": 1, "message": "a\nb"},
        {"id": 2},
    ]


@pytest.mark.parametrize(
    ("encoding", "value"), [("ascii", "Grüße"), ("utf-8", "bad name \udcff"), ("latin-1", "日本"), ("utf-8", "Grüße")]
)
@pytest.mark.parametrize("write", [output.json_data, output.json_line])
def test_json_is_valid_whatever_the_encoding_and_the_file_names(
    write: object, encoding: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = narrow(encoding, monkeypatch)
    assert callable(write)
    write({"name": value})
    assert json.loads(written.getvalue().decode(encoding)) == {"name": value}


def test_text_that_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = narrow("ascii", monkeypatch)
    output.line("Grüße \udcff")
    assert written.getvalue() == b"Gr\\xfc\\xdfe \\udcff\n"


def test_a_table_in_a_pipe_has_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "PORT"), [("demo", 1), ("longer-name", None)])
    assert capsys.readouterr().out == "demo         1\nlonger-name\n"


def test_a_table_on_a_terminal_has_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.table(("NAME", "PORT"), [("x", 8080)])
    assert terminal.getvalue() == "NAME  PORT\nx     8080\n"


def test_an_empty_table_in_a_pipe_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [])
    assert capsys.readouterr().out == ""


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        output.table(("A", "B"), [("1", "2", "3")])


def test_a_reader_that_left_is_told_apart_from_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", LeftPipe())
    with pytest.raises(output.ReaderGone):
        output.line("nobody reads this")

    assert not issubclass(output.ReaderGone, OSError)


def test_a_closed_stdout_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    output.json_data({"a": 1})
    output.raw("text")
    assert sys.stdout is None
