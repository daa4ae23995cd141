"""A log's lines and an exit status to a diagnosis, as `orch explain` comes to it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.engine_log.wrappers import parse_pasted_log
from orchestrator.core.failure import diagnosis
from orchestrator.core.failure.diagnosis import Diagnosis, ExitStatus


def diagnose(lines: Sequence[str], exit: ExitStatus | int | None, *, alive: bool | None = None) -> Diagnosis:
    return diagnosis.diagnose(parse_pasted_log(lines), exit, alive=alive)
