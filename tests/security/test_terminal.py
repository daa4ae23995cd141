"""What others wrote is shown, and commands no terminal: logs, causes, names out of a model file."""

from __future__ import annotations

import logging
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import GgufError, read_gguf
from orchestrator.cli import diagnostics, output
from orchestrator.cli.operate import render_status
from orchestrator.core.errors import OrchError
from orchestrator.core.terminal import neutralise, neutralise_lines
from orchestrator.daemon.process.own_log import PlainFormatter
from tests.support import Home, new_home

HOSTILE = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;title\x07",
    "a title that ST ends": "\x1b]2;title\x1b\\",
    "the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "a device control string": "\x1bP1$r\x1b\\",
    "a reset": "\x1bc",
    "a sequence that does not end": "\x1b[é",
    "a C1 sequence": "\x9b31m",
    "a C1 title": "\x9d0;title\x9c",
    "a NUL and a bell": "\0\a",
    "a return to the margin": "good\rbad",
    "steps back": "good\b\b\b\bbad",
    "text turned round": "\u202egood",
    "another line": "good\u2028error: bad",
    "delete": "a\x7f",
}
COMMANDS = frozenset(map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x2028, 0x202E)))


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.mark.parametrize("name", HOSTILE)
def test_no_command_survives_and_the_words_do(name: str) -> None:
    shown = neutralise_lines(f"before {HOSTILE[name]} after\nnext")
    assert not COMMANDS & set(shown)
    assert shown.startswith("before ") and shown.endswith(" after\nnext")
    assert "\n" not in neutralise("a\nb")


@pytest.mark.parametrize("name", HOSTILE)
def test_the_streams_of_the_command_line_are_clean(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE[name]
    output.line(hostile)
    output.table(("a",), [(hostile,)])
    diagnostics.note(hostile)
    diagnostics.warn(hostile)
    diagnostics.report(OrchError(hostile, details=(hostile,), hint=hostile))
    out, err = capsys.readouterr()
    assert not COMMANDS & set(out + err)
    assert len(out.splitlines()) == 2


def test_the_status_shows_a_hostile_cause_as_text(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "".join(HOSTILE.values())
    attempt = {
        "number": 1, "started": "", "margin_mib": 1, "steps": [hostile], "outcome": "bad_model", "cause": hostile,
        "evidence": hostile, "next": hostile,
    }  # fmt: skip
    status = {
        "state": "failed", "profile": "demo", "engine": "embedded", "cause": hostile, "build": hostile, "pid": None,
        "since": "", "margin_mib": None, "stale": [], "attempts": [attempt], "gpus": [], "notice": hostile,
        "switching": False,
        "gateway": {"url": "http://127.0.0.1:1", "queued": 0, "in_flight": 0, "abandoned": 0},
        "speed": {"decode_tok_s": None, "prompt_tok_s": None, "draft_acceptance": None},
    }  # fmt: skip
    for line in render_status.lines(status):  # type: ignore[arg-type]  # the parts that are shown
        output.line(line)

    shown = capsys.readouterr().out
    assert shown.count("red") == 6
    assert not COMMANDS & set(shown)


def test_logs_and_explanations_of_hostile_logs_are_clean(home: Home) -> None:
    hostile = "\n".join(HOSTILE.values())
    log = home.write("state/logs/engine.log", f"{hostile}\nerror: invalid argument: --\x1b]0;x\x07foo\x9b2J\n")
    home.write("state/logs/daemon.log", hostile)
    for words in (("logs",), ("logs", "--daemon"), ("explain", log), ("explain", log, "--json")):
        done = home.orch(*words)
        assert not COMMANDS & set(done.stdout + done.stderr), words
        assert done.stdout


@pytest.mark.parametrize("name", HOSTILE)
def test_names_out_of_a_model_file_are_quoted_as_text(tmp_path: Path, name: str) -> None:
    key = HOSTILE[name].encode() + b"k" * 5000
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IB", 0, 1)
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + pair + pair)
    with pytest.raises(GgufError) as caught:
        read_gguf(str(path))

    [detail] = caught.value.details
    assert detail.isprintable()
    assert len(detail) < 1000


@pytest.mark.parametrize("name", HOSTILE)
def test_the_daemons_own_log_has_one_clean_line_for_each_message(name: str) -> None:
    hostile = f"{HOSTILE[name]}\n12:00:00 ERROR forged"
    try:
        raise ValueError(hostile)
    except ValueError:
        failure = sys.exc_info()

    formatter = PlainFormatter("%(levelname)s %(message)s")
    plain = formatter.format(logging.LogRecord("n", logging.INFO, "", 0, "cannot read %s", (hostile,), None))
    assert not {"\n", *COMMANDS} & set(plain)
    with_traceback = formatter.format(logging.LogRecord("n", logging.ERROR, "", 0, "%s", (hostile,), failure))
    assert not COMMANDS & set(with_traceback)
    assert "Traceback" in with_traceback
