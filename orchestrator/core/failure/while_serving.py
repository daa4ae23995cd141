"""Device memory that ran out under an engine that lives on.

Upstream catches a failed decode: every request under way ends with an error, /health stays good, and the back end may
be of no use from then on. The engine's own log is the only place that says why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.failure.advice import describe
from orchestrator.core.failure.diagnosis import Diagnosis, diagnose
from orchestrator.core.failure.lines import read_lines
from orchestrator.core.failure.signatures import BAD_WORDS

_ANSWERED = re.compile(r"(?:prompt eval time|(?:generation )?eval time|total time) *=|done request: POST \S+ \S+ 200")
"""What is printed of a request that went well. Its slot's release is not: a failed request ends with that, too."""


def memory_ran_out(lines: Sequence[str], new: int) -> Diagnosis | None:
    """The first failure for want of device memory after which no request was answered.

    :param lines: what the engine printed; the older ones tell which of the newer are clients' text
    :param new: how many of them, from the end, were printed since it was looked at last, while it served
    """
    looked_at = len(lines) - new
    if not any(_failure_in(text) for text in lines[looked_at:]):  # to read them all takes a hundred times as long
        return None

    failed: Diagnosis | None = None
    for line in read_lines(lines):
        if line.number < looked_at:
            continue

        if any(map(_ANSWERED.match, line.texts)):
            failed = None
        elif failed is None and (found := _failure_in(line.raw)):
            failed = _while_serving(found, lines[: line.number + 1])

    return failed


def _failure_in(text: str) -> Diagnosis | None:
    if not any(map(text.lower().__contains__, BAD_WORDS)):
        return None

    found = diagnose([text], None)
    return found if found.failure_class == "device_oom" else None


def _while_serving(found: Diagnosis, lines: Sequence[str]) -> Diagnosis:
    """A failure read from one line, with what the lines up to it tell: whether a margin can help."""
    whole = diagnose(lines, None)
    action = whole.action if whole.failure_class == "device_oom" else found.action
    message, hint = describe(
        "device_oom", "runtime", action, device=found.device, requested_mib=found.requested_mib, ended=None
    )
    return replace(found, phase="runtime", action=action, message=message, hint=hint)
