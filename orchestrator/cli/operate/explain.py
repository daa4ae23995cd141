"""`orch explain`: the reason why an engine ended, from any engine's log."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.bench.mtp_gain import MtpFinding
    from orchestrator.core.engine_log.events import LogRecord
    from orchestrator.core.engine_log.marks import LoggedStart
    from orchestrator.core.failure.diagnosis import Diagnosis
    from orchestrator.core.health.degradations import Degradation

HELP = "say why an engine failed, from its log"

EXAMPLES = """\
  orch explain                             the last start that failed here, as the daemon judged it
  orch explain server.log --exit-code -9   any log of either engine; -9 is SIGKILL, as Python gives it
  journalctl -u llama-server | orch explain
  orch explain server.log --json"""

HEAD_BYTES = 256 * 1024
TAIL_BYTES = 4 * 1024 * 1024
"""The beginning and the end of a log are read, of a file of any size: they tell how a start began and ended."""

MARKED_BYTES = 64 * 1024 * 1024
"""The end of orch's own log is searched for the marks of its starts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the log; `-` or a pipe reads standard input (default: the last engine)"
    )
    parser.add_argument(
        "--exit-code", type=int, metavar="N", help="how the process ended: a code, or minus the signal (-9: SIGKILL)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if args.file == "-" or (args.file is None and _is_piped()):
        return _explain_lines(read_log(sys.stdin.buffer), args)

    name = args.file if args.file is not None else _engine_log()
    try:
        with open(name, "rb") as file:
            starts = _marked_starts(file)
            if not starts and args.file is None and os.path.exists(f"{name}.1"):
                with open(f"{name}.1", "rb") as rotated:  # the log was begun anew after the last start
                    starts = _marked_starts(rotated)

            lines = [] if starts else read_log(file)
    except OSError as error:
        raise UsageError(
            "cannot read the log", details=(f"{name}: {error.strerror}",), hint="run `orch explain --help`"
        ) from error

    if starts:
        return _explain_start(starts, args)

    if args.file is None and not args.json:
        diagnostics.note(name)

    return _explain_lines(lines, args)


def _explain_lines(lines: list[str], args: argparse.Namespace) -> int:
    from orchestrator.core.engine_log.wrappers import parse_pasted_log
    from orchestrator.core.failure.diagnosis import diagnose

    records = parse_pasted_log(lines)
    _print(_Explanation(diagnose(records, args.exit_code), _degraded(records)), args.json)
    return exit_codes.OK


def _explain_start(starts: list[LoggedStart], args: argparse.Namespace) -> int:
    """Explain the start that the marks in orch's own log lead to: by what the daemon concluded, else by its lines."""
    from orchestrator.core.engine_log.marks import start_to_explain
    from orchestrator.core.engine_log.parser import GAP, parse_log
    from orchestrator.core.failure.diagnosis import diagnose

    start = start_to_explain(starts)
    assert start is not None
    lines = [*start.head, *((GAP,) if start.left_out else ()), *start.tail]
    judged = start.judged
    records = parse_log(lines)
    if judged is not None and args.exit_code is None:
        found = _as_diagnosis(judged)
    else:
        found = diagnose(records, args.exit_code)

    if not args.json:
        if start is not starts[-1]:
            diagnostics.note(f"since then: {_name(starts[-1])}, started {starts[-1].began.get('time')}")

        diagnostics.note(f"{_name(start)}, started {start.began.get('time')}")

    last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    measured = _measured(start) if args.file is None else []
    _print(_Explanation(found, _degraded(records), start, last_line, measured), args.json)
    return exit_codes.OK


def _name(start: LoggedStart) -> str:
    began = start.began
    build = f" ({began['build']})" if began.get("build") else ""
    return f"{began.get('profile')}@{began.get('engine')}{build}, attempt {began.get('attempt')}"


def _as_diagnosis(judged: Mapping[str, Any]) -> Diagnosis:
    from orchestrator.core.failure.diagnosis import Diagnosis

    return Diagnosis(
        failure_class=judged.get("class", "engine_bug"),
        phase=judged.get("phase", "none"),
        device=judged.get("device"),
        requested_mib=judged.get("requested_mib"),
        evidence=str(judged.get("evidence") or ""),
        action=judged.get("action", "restart"),
        message=str(judged.get("message", "")),
        hint=judged.get("hint"),
    )


def _marked_starts(file: BinaryIO) -> list[LoggedStart]:
    """Return the starts that orch's own marks tell of; none for any other log. Leaves the file at its beginning."""
    from orchestrator.core.engine_log.marks import read_starts

    if not file.seekable():
        return []

    file.seek(max(0, file.seek(0, os.SEEK_END) - MARKED_BYTES))
    starts = read_starts(line.decode("utf-8", errors="replace").rstrip("\r\n") for line in file)
    file.seek(0)
    return starts


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


def _engine_log() -> str:
    from orchestrator.adapters.paths import find_paths

    logs = find_paths().logs
    path = os.path.join(logs, "engine.log")
    if os.path.exists(path):
        return path

    try:
        with os.scandir(logs) as entries:
            others = [entry for entry in entries if entry.name.endswith(".log") and entry.name != "daemon.log"]
            found = [(entry.stat().st_mtime_ns, entry.path) for entry in others]
    except FileNotFoundError:
        found = []

    if found:
        return max(found)[1]

    raise UsageError(
        "there is no engine log to explain yet",
        details=(f"{path}: it does not exist",),
        hint="name a log: `orch explain FILE`, or start an engine: `orch up PROFILE`",
    )


@dataclass(frozen=True)
class _Explanation:
    """What is printed: the diagnosis and, where the log is orch's own, the start that it is of.

    :param measured: what benches say against its settings
    """

    diagnosis: Diagnosis
    degraded: list[Degradation]
    start: LoggedStart | None = None
    last_line: str = ""
    measured: Sequence[MtpFinding] = ()

    def as_json(self) -> dict[str, object]:
        from orchestrator.core.failure.reactions import response_to

        found = self.diagnosis
        values: dict[str, object] = {
            "class": found.failure_class,
            "phase": found.phase,
            "device": found.device,
            "requested_mib": found.requested_mib,
            "evidence": found.evidence,
            "action": found.action,
            "message": found.message,
            "hint": found.hint,
        }
        if self.start is not None:
            began, exited, judged = self.start.began, self.start.exited or {}, self.start.judged or {}
            values |= {key: began.get(key) for key in ("profile", "engine", "build", "attempt")}
            values["response"] = response_to(found.failure_class, found.action, found.phase)
            values |= {"started": began.get("time"), "exit": exited.get("status"), "next": judged.get("next")}
            values["measured"] = [asdict(each) for each in self.measured]

        return values | {"degraded": [_degradation_as_json(each) for each in self.degraded]}

    def lines(self) -> list[str]:
        from orchestrator.core.failure.reactions import response_text

        found, start = self.diagnosis, self.start
        lines = [f"{found.failure_class}: {found.message}"]
        exited = start.exited if start is not None else None
        judged = start.judged if start is not None else None
        if found.evidence:
            lines.append(f"  the log says:    {found.evidence}")
        elif judged is not None:
            last = f"; its last line: {self.last_line[:300]}" if self.last_line else ""
            lines.append(f"  the log says:    nothing of the reason{last}")

        if exited is not None:
            lines.append(f"  how it ended:    {exited.get('status')}")
        elif start is not None and judged is None:
            lines.append("  how it ended:    no end was seen: it runs, or it ended together with the daemon")

        lines.append(f"  what orch does:  {response_text(found.failure_class, found.action, found.phase)}")
        if judged is not None and judged.get("next"):
            lines.append(f"  what orch did:   {judged['next']}")

        if found.hint:
            lines.append(f"  what you can do: {found.hint}")

        return lines


def _degraded(records: list[LogRecord]) -> list[Degradation]:
    """Return what the last start in a log does without."""
    from orchestrator.core.engine_log.activity import EngineActivity, add_records
    from orchestrator.core.failure.facts import newest_start
    from orchestrator.core.health.degradations import degradations_of

    return list(degradations_of(add_records(EngineActivity(), newest_start(records)), None))


def _measured(start: LoggedStart) -> list[MtpFinding]:
    """Return what benches measured against the profile of a start, as it is now; nothing where that is not known."""
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.bench.mtp_gain import mtp_findings
    from orchestrator.core.errors import OrchError
    from orchestrator.core.profile.speculation import drafts_with_mtp
    from orchestrator.engines.mtp_measured import measured_for
    from orchestrator.engines.registry import EngineRegistry

    paths, name = find_paths(), str(start.began.get("profile"))
    try:
        engine = EngineRegistry(paths).resolve(str(start.began.get("engine")))
        profile = ProfileStore(paths).load(name).for_engine(engine.id)
        found = measured_for(paths, profile, engine) if drafts_with_mtp(profile.settings) else None
    except (OSError, OrchError):  # the log outlives profiles, engines and models
        return []

    return list(mtp_findings(found, name)) if found is not None else []


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


def _print(explanation: _Explanation, as_json: bool) -> None:
    if as_json:
        output.json_data(explanation.as_json())
        return

    for line in explanation.lines():
        output.line(line)

    for each in explanation.degraded:
        if explanation.diagnosis.failure_class == "bad_model":
            break  # the fit failed for the same reason

        if each.evidence != explanation.diagnosis.evidence:
            _show_degradation(each)

    for finding in explanation.measured:
        output.line(f"{finding.kind}: {finding.message}")
        output.line(f"  what you can do: {finding.hint}")
