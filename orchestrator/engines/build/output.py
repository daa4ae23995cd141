"""Reads the output of ninja and compilers: the progress of a build, and its first error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
_ERROR = re.compile(
    r"(?:fatal )?error[: ]|undefined reference|No space left on device|Killed|CMake Error|cannot find -l|not found",
    re.IGNORECASE,
)
_KILLED = re.compile(
    r"Killed signal terminated program|internal compiler error: Killed|^Killed\b|signal 9|virtual memory exhausted",
    re.M,
)
_MAX_LINES = 6
_MIN_STEPS = 5
"""Fewer say nothing about the rest."""


class Progress(NamedTuple):
    """The progress of a build.

    :param left_s: an estimate; None while there is too little to go by
    """

    done: int
    total: int
    elapsed_s: float
    left_s: float | None


def step_of(line: str) -> tuple[int, int] | None:
    """Return the steps done and their total, from a line of ninja's."""
    match = _STEP.match(line)
    return (int(match[1]), int(match[2])) if match else None


def progress(done: int, total: int, elapsed_s: float) -> Progress:
    """Return the progress with an estimate by the mean of the steps so far: their sizes differ, so it is coarse."""
    left_s = elapsed_s / done * (total - done) if done >= _MIN_STEPS else None
    return Progress(done, total, elapsed_s, left_s)


def first_error(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the lines around the first error; empty where nothing looks like one."""
    failed: str | None = None
    found: list[str] = []
    for line in lines:
        text = line.rstrip()
        if found:
            if step_of(text) or len(found) >= _MAX_LINES:
                break

            found.append(text)
        elif text.startswith("FAILED: "):
            failed = failed or text
        elif _ERROR.search(text) and not text.startswith(("-- ", "[")) and "Wno-error" not in text:
            found = [text]

    if not found:
        return (failed,) if failed else ()

    return (*((failed,) if failed else ()), *(text for text in found if text))


def exhausted_resource(text: str) -> str | None:
    """Return `memory` or `disk` where a failed build's output says that it ran out of it."""
    if "No space left on device" in text:
        return "disk"

    return "memory" if _KILLED.search(text) else None
