"""`orch explain` as a program: where it reads from, what it prints, what it survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.operate.explain import HEAD_BYTES, TAIL_BYTES, read_log
from orchestrator.core.engine_log.parser import GAP
from tests.support import FIXTURES, PATIENCE_S

LOGS = FIXTURES / "logs"
OOM_LOG = LOGS / "oom-weights-upstream.log"


def explain(*words: str, home: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs `orch explain`; without `stdin` it gets `/dev/null`, as services do."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "explain", *words],
        env={**os.environ, "ORCH_HOME": str(home), "NO_COLOR": "1"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        **source,
    )


def test_json_has_the_fields_that_others_rely_on(tmp_path: Path) -> None:
    found = json.loads(explain(str(OOM_LOG), "--exit-code", "1", "--json", home=tmp_path).stdout)

    assert list(found) == [
        "class",
        "phase",
        "device",
        "requested_mib",
        "evidence",
        "action",
        "message",
        "hint",
        "degraded",
    ]
    assert (found["class"], found["phase"], found["device"]) == ("device_oom", "load", "CUDA0")
    assert (found["requested_mib"], found["action"]) == (19187.0, "retry_margin")
    assert "cudaMalloc failed" in found["evidence"]


def test_people_read_what_happened_and_what_comes_next(tmp_path: Path) -> None:
    done = explain(str(OOM_LOG), home=tmp_path)
    text = done.stdout.decode()

    assert done.returncode == 0
    for part in ("device_oom: CUDA0 ran out of memory", "the log says:", "what orch does:", "what you can do:"):
        assert part in text


@pytest.mark.parametrize("words", [("-",), ()])
def test_a_pipe_is_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = explain(*words, "--json", home=tmp_path, stdin=OOM_LOG.read_bytes())

    assert json.loads(done.stdout)["class"] == "device_oom"


def test_a_kill_is_told_by_the_exit_code(tmp_path: Path) -> None:
    done = explain(str(LOGS / "healthy-ik.log"), "--exit-code", "-9", "--json", home=tmp_path)

    assert json.loads(done.stdout)["class"] == "killed"


def test_without_a_file_the_newest_engine_log_is_explained(tmp_path: Path) -> None:
    logs = tmp_path / "state/logs"
    logs.mkdir(parents=True)
    (logs / "old.log").write_bytes((LOGS / "healthy-ik.log").read_bytes())
    (logs / "new.log").write_bytes(OOM_LOG.read_bytes())
    (logs / "newer.txt").write_text("not a log")
    os.utime(logs / "old.log", (1, 1))
    done = explain(home=tmp_path)

    assert b"device_oom" in done.stdout
    assert b"new.log" in done.stderr


def test_without_any_log_there_is_a_hint(tmp_path: Path) -> None:
    done = explain(home=tmp_path)

    assert done.returncode == 2
    assert b"no engine log" in done.stderr
    assert b"hint: " in done.stderr
    assert done.stdout == b""


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = explain(str(tmp_path / "nope.log"), home=tmp_path)

    assert done.returncode == 2
    assert b"No such file" in done.stderr


def test_garbage_and_terminal_sequences_reach_nobody(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(bytes(range(256)) * 400 + b"\n\x1b]0;title\x07error: invalid argument: --x\x1b[2J\n")
    done = explain(str(log), "--exit-code", "1", home=tmp_path)

    assert b"bad_flag" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


def test_of_a_huge_file_the_beginning_and_the_end_are_read(tmp_path: Path) -> None:
    log = tmp_path / "huge.log"
    with log.open("wb") as file:
        file.write(b"first\n")
        file.truncate(1 << 32)  # a hole: four gigabytes that take no room
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast")

    with log.open("rb") as file:
        lines = read_log(file)

    assert lines[0] == "first"
    assert lines[-1] == "last"
    assert GAP in lines
    assert sum(map(len, lines)) <= HEAD_BYTES + TAIL_BYTES


def test_a_long_pipe_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    filler = b"0.00.000.000 I srv  update_slots: nothing to tell\n" * 400_000
    done = explain("--json", home=tmp_path, stdin=filler + OOM_LOG.read_bytes())

    assert json.loads(done.stdout)["class"] == "device_oom"


@pytest.mark.parametrize("name", sorted(path.stem for path in LOGS.glob("*.log")))
def test_each_shipped_log_is_explained_by_its_name(tmp_path: Path, name: str) -> None:
    done = explain(str(LOGS / f"{name}.log"), "--json", home=tmp_path)
    expected = {"healthy": "ok", "oom": "device_oom", "missing": "missing_file"}[name.partition("-")[0]]

    assert json.loads(done.stdout)["class"] == expected
