"""Runs the checks of `orch doctor`: all at once, each for itself, and none for longer than a person waits.

A check that fails, or does not end, is a finding like any other; what the others found is shown all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.core.setup.doctor import CheckResult

LIMIT_S = 1.8
"""For all checks together; a driver in trouble can hang whoever asks it."""


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """The installation and environment that the checks examine, and the tools that they may run."""

    paths: Paths
    environment: Mapping[str, str]
    tools: Tools


Check = Callable[[DoctorContext], Iterable[CheckResult]]


def examine(context: DoctorContext, checks: Mapping[str, Check], limit_s: float = LIMIT_S) -> tuple[CheckResult, ...]:
    """Run the checks, and return their findings in the order of the checks.

    :param checks: by name, which is the `what` of a finding about the check itself
    """
    answers: dict[str, Future[tuple[CheckResult, ...]]] = {}
    for name, check in checks.items():
        answers[name] = Future()
        # Daemon threads: one that hangs in a driver must not keep the process from ending.
        threading.Thread(target=_answer, args=(check, context, answers[name]), name=name, daemon=True).start()

    deadline = time.monotonic() + limit_s
    findings: list[CheckResult] = []
    for name, answer in answers.items():
        try:
            error = answer.exception(max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            findings.append(
                CheckResult("warning", name, f"no answer within {limit_s:g} s; the rest went on without it")
            )
            continue

        if error is None:
            findings += answer.result()
        else:
            findings.append(CheckResult("warning", name, f"this check failed: {type(error).__name__}: {error}"))

    return tuple(findings)


def _answer(check: Check, context: DoctorContext, answer: Future[tuple[CheckResult, ...]]) -> None:
    try:
        answer.set_result(tuple(check(context)))
    except Exception as error:  # noqa: BLE001 whatever goes wrong in one check is a finding, and the others go on
        answer.set_exception(error)
