"""`orch explain`: the reason why an engine ended, from any engine's log."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, BinaryIO

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.failure.diagnosis import Diagnosis
    from orchestrator.core.health.degradations import Degradation

HELP = "say why an engine failed, from its log"

EXAMPLES = """\
  orch explain                             the last engine that orch started
  orch explain server.log --exit-code -9   any log of either engine; -9 is SIGKILL, as Python gives it
  journalctl -u llama-server | orch explain
  orch explain server.log --json"""

HEAD_BYTES = 256 * 1024
TAIL_BYTES = 4 * 1024 * 1024
"""The beginning and the end of a log are read, of a file of any size: they tell how a start began and ended."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the log; `-` or a pipe reads standard input (default: the last engine)"
    )
    parser.add_argument(
        "--exit-code", type=int, metavar="N", help="how the process ended: a code, or minus the signal (-9: SIGKILL)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from orchestrator.core.engine_log.activity import EngineActivity, add_records
    from orchestrator.core.engine_log.wrappers import parse_pasted_log
    from orchestrator.core.failure.diagnosis import diagnose
    from orchestrator.core.failure.facts import newest_start
    from orchestrator.core.health.degradations import degradations_of

    if args.file == "-" or (args.file is None and _is_piped()):
        lines = read_log(sys.stdin.buffer)
    else:
        name = args.file if args.file is not None else _last_log()
        try:
            with open(name, "rb") as file:
                lines = read_log(file)
        except OSError as error:
            raise UsageError(
                "cannot read the log", details=(f"{name}: {error.strerror}",), hint="run `orch explain --help`"
            ) from error

        if args.file is None and not args.json:
            diagnostics.note(name)

    records = parse_pasted_log(lines)
    diagnosis = diagnose(records, args.exit_code)
    degradations = degradations_of(add_records(EngineActivity(), newest_start(records)), None)
    if args.json:
        output.json_data({**_as_json(diagnosis), "degraded": [_degradation_as_json(each) for each in degradations]})
    else:
        _show(diagnosis)
        for each in degradations:
            if each.evidence != diagnosis.evidence:
                _show_degradation(each)

    return exit_codes.OK


def read_log(file: BinaryIO) -> list[str]:
    """Return the lines of the first 256 KiB and of the last 4 MiB, with a gap marker where more lies between."""
    from orchestrator.core.engine_log.parser import GAP

    head = _read_all(file, HEAD_BYTES)
    tail = bytearray()
    skipped = 0
    if file.seekable():
        # Jump rather than read: logs grow to many gigabytes.
        size = file.seek(0, os.SEEK_END)
        start = max(len(head), size - TAIL_BYTES)
        skipped = start - len(head)
        file.seek(start)
        tail += _read_all(file, TAIL_BYTES)
    else:
        while block := file.read(1 << 16):
            tail += block
            if len(tail) > 2 * TAIL_BYTES:
                skipped += len(tail) - TAIL_BYTES
                del tail[:-TAIL_BYTES]

        skipped += max(0, len(tail) - TAIL_BYTES)
        del tail[:-TAIL_BYTES]

    if not skipped:
        return _lines(head + bytes(tail))

    # What was cut in two on either side of the gap is no line.
    return [*_lines(head)[:-1], GAP, *_lines(bytes(tail))[1:]]


def _read_all(file: BinaryIO, count: int) -> bytes:
    """Read up to `count` bytes: a pipe gives them in pieces."""
    parts = []
    while count > 0 and (block := file.read(count)):
        parts.append(block)
        count -= len(block)

    return b"".join(parts)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", errors="replace").split("\n")


def _is_piped() -> bool:
    """Return whether stdin is a pipe, a socket or a file: no terminal, nor `/dev/null`, as in services and cron."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False  # closed, or replaced by something that is no file

    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def _last_log() -> str:
    from orchestrator.adapters.paths import find_paths

    logs = find_paths().logs
    try:
        with os.scandir(logs) as entries:
            found = [(entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.endswith(".log")]
    except FileNotFoundError:
        found = []

    if not found:
        raise UsageError(
            "there is no engine log to explain yet",
            details=(f"{logs}: no *.log",),
            hint="name a log: `orch explain FILE`, or start an engine: `orch up PROFILE`",
        )

    return max(found)[1]


def _as_json(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "class": diagnosis.failure_class,
        "phase": diagnosis.phase,
        "device": diagnosis.device,
        "requested_mib": diagnosis.requested_mib,
        "evidence": diagnosis.evidence,
        "action": diagnosis.action,
        "message": diagnosis.message,
        "hint": diagnosis.hint,
    }


def _degradation_as_json(degradation: Degradation) -> dict[str, object]:
    return {
        "kind": degradation.kind,
        "message": degradation.message,
        "evidence": degradation.evidence,
        "hint": degradation.hint,
    }


def _show_degradation(degradation: Degradation) -> None:
    output.line(f"{degradation.kind}: {degradation.message}")
    output.line(f"  the log says:    {degradation.evidence}")
    output.line(f"  what you can do: {degradation.hint}")


def _show(diagnosis: Diagnosis) -> None:
    from orchestrator.core.failure.reactions import response_text

    output.line(f"{diagnosis.failure_class}: {diagnosis.message}")
    if diagnosis.evidence:
        output.line(f"  the log says:    {diagnosis.evidence}")

    output.line(f"  what orch does:  {response_text(diagnosis.failure_class, diagnosis.action, diagnosis.phase)}")
    if diagnosis.hint:
        output.line(f"  what you can do: {diagnosis.hint}")
