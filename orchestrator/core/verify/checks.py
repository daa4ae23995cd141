"""Checks of an engine, and the verdict that they add up to. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "wrong", "unverified"]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The smallest request that shows a failure.

    :param argv: of the engine, the program first; `body` goes to `path` by POST
    """

    argv: tuple[str, ...]
    path: str
    body: Mapping[str, object]

    def lines(self) -> tuple[str, str]:
        """Return what starts the engine, and what asks it, as a shell takes them."""
        body = shlex.quote(json.dumps(self.body, ensure_ascii=False))
        return shlex.join(self.argv), f"curl -s http://127.0.0.1:8080{self.path} -d {body}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared.

    :param ok: None when it could not be tested, for the reason in `detail`
    :param bound: what `observed` may differ from `expected` by, or be at most where nothing is expected
    """

    name: str
    ok: bool | None
    observed: float | str | None = None
    expected: float | str | None = None
    bound: float | None = None
    detail: str = ""
    shown_by: Reproduction | None = None

    def as_json(self) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.name,
            "ok": self.ok,
            "observed": self.observed,
            "expected": self.expected,
            "bound": self.bound,
        }
        if self.detail:
            found["detail"] = self.detail

        if self.shown_by is not None:
            found["start"], found["ask"] = self.shown_by.lines()

        return found


def at_most(
    name: str, observed: float, bound: float, *, detail: str = "", shown_by: Reproduction | None = None
) -> Check:
    """Return a check of a number that may not exceed its bound; how to see it again only where it does."""
    ok = observed <= bound
    return Check(name, ok, round(observed, 4), None, bound, detail, None if ok else shown_by)


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """Return `wrong` when a check failed, `right` when all that was tested passed, `unverified` when nothing was."""
    tested = [check.ok for check in checks if check.ok is not None]
    if not tested:
        return "unverified"

    return "right" if all(tested) else "wrong"


def summary(checks: Sequence[Check]) -> str:
    """Return what was tested in a few words: `26 checks passed`, `2 of 26 checks failed: ...`."""
    failed = [check.name for check in checks if check.ok is False]
    tested = sum(check.ok is not None for check in checks)
    left_out = len(checks) - tested
    rest = f"; {left_out} not tested" if left_out else ""
    if failed:
        named = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        return f"{len(failed)} of {tested} checks failed: {named}{rest}"

    return f"{tested} checks passed{rest}"
