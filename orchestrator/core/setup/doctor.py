"""The findings of `orch doctor`, and the judgement of numbers and versions. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "problem"]

FULL_MIB = 100
"""With less room than this, state and logs can no longer be written, MiB."""

TIGHT_MIB = 2048
"""With less room than this, no engine can be built, MiB."""

_VERSION = re.compile(r"\d+(?:\.\d+)*")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*((?:[(<>=!~][^;]*?)?)\s*(?:;\s*(.*))?")
_CLAUSE = re.compile(r"(>=|<=|==|<|>|!=|~=)\s*(\S+)")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    :param what: the check: `python`, `gateway`, ...
    :param text: what was found, one line
    :param fix: what to do about it, one line; None when there is nothing to do
    """

    level: Level
    what: str
    text: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a distribution's Requires-Dist (PEP 508), as far as orch's own lines go."""

    name: str
    clauses: tuple[tuple[str, str], ...]
    marker: str

    def allows(self, version: str) -> bool:
        """Return whether a version will do; one that is no plain number counts by the numbers that it begins with."""
        found = _numbers(version)
        return all(_satisfies(found, operator, _numbers(wanted)) for operator, wanted in self.clauses)

    @property
    def rule(self) -> str:
        return ", ".join(f"{operator}{version}" for operator, version in self.clauses)


def parse_requirement(line: str) -> Requirement | None:
    """Return the requirement that a line states; None when it states none."""
    match = _REQUIREMENT.fullmatch(line)
    if match is None:
        return None

    clauses = [_CLAUSE.fullmatch(each.strip()) for each in match[2].strip("()").split(",") if each.strip()]
    return Requirement(match[1], tuple((each[1], each[2]) for each in clauses if each is not None), match[3] or "")


def judge_room(what: str, path: str, free_mib: int) -> CheckResult:
    """Return the finding on the free disk space where something of orch's lies."""
    text = f"{path}: {free_mib} MiB free"
    if free_mib < FULL_MIB:
        return CheckResult("problem", what, text, "make room: nothing can be written there soon")

    if free_mib < TIGHT_MIB:
        return CheckResult("warning", what, text, "make room before you build or download anything")

    return CheckResult("ok", what, text)


def _numbers(version: str) -> tuple[int, ...]:
    match = _VERSION.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _satisfies(found: tuple[int, ...], operator: str, wanted: tuple[int, ...]) -> bool:
    width = max(len(found), len(wanted))
    one = found + (0,) * (width - len(found))
    other = wanted + (0,) * (width - len(wanted))
    match operator:
        case ">=":
            return one >= other
        case "<=":
            return one <= other
        case "<":
            return one < other
        case ">":
            return one > other
        case "==":
            return one == other
        case "!=":
            return one != other
        case _:  # ~=: at least that, and the same but for the last number
            return one >= other and found[: len(wanted) - 1] == wanted[:-1]
