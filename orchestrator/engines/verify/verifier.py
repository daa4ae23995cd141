"""Verifies targets one after the other, and keeps what came out."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.core.verify.agreement import bounds_of
from orchestrator.core.verify.checks import Check, Verdict, summary, verdict_of
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import Engine
from orchestrator.engines.verify.known_truth import check_known_truth
from orchestrator.engines.verify.own_model import Candidate, check_own_model, pair_check
from orchestrator.engines.verify.trial import Subject

TESTED = "tested: this build on this machine, as the checks say; other models, types and devices are not"


@dataclass(frozen=True, slots=True)
class Report:
    """What was tested of one target, and what that says.

    :param remarks: sentences for people: what was not tested, and which side is wrong
    """

    target: str
    build: str
    checks: Sequence[Check]
    seconds: float
    remarks: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.checks)

    @property
    def summary(self) -> str:
        return summary(self.checks)

    @property
    def failed(self) -> list[str]:
        return [check.name for check in self.checks if check.ok is False]

    def as_json(self) -> dict[str, object]:
        return {
            "target": self.target,
            "build": self.build,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 1),
            "checks": [check.as_json() for check in self.checks],
            "remarks": list(self.remarks),
        }


class Verifier:
    """Runs engines for trials. Blocking.

    :param say: takes what is tried next
    """

    def __init__(self, paths: Paths, say: Callable[[str], None]) -> None:
        self._paths = paths
        self._say = say
        self._store = VerificationStore(paths.verifications_file)

    def known_truth(self, engine: Engine, *, full: bool = False) -> Report:
        """Verify a build on models whose answers are known."""
        began = time.monotonic()
        subject = Subject(engine.path, engine.capabilities, self._paths)

        def say(text: str) -> None:
            self._say(f"{engine.id} {engine.build}: {text} ({time.monotonic() - began:.0f} s)")

        directory = os.path.join(self._paths.cache, "verify")
        os.makedirs(directory, exist_ok=True)
        checks = asyncio.run(check_known_truth(subject, directory, full=full, say=say))
        report = Report(engine.id, engine.build, checks, time.monotonic() - began, (TESTED,))
        key = build_key(engine.sha256, engine.path)
        self._store.record(key, report.verdict, "known truth", report.summary, report.failed)
        return report

    def own_model(self, candidate: Candidate, other: Candidate | None) -> Report:
        """Verify an engine on the user's model against itself, and against another one if there is one."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="orch-verify-") as directory:
            checks, reading = asyncio.run(check_own_model(candidate, self._paths, directory, self._say))
            if other is None:
                return self._kept(candidate, Report(str(candidate), candidate.engine.build, checks,
                                                    time.monotonic() - began, (TESTED,)))  # fmt: skip

            others, other_reading = asyncio.run(check_own_model(other, self._paths, directory, self._say))

        remarks = [TESTED]
        bounds = bounds_of((*candidate.kv_types, *other.kv_types))
        pair = pair_check(str(other), reading, other_reading, bounds)
        if pair.ok is False:
            remarks += self._who_is_wrong((candidate, checks), (other, others))

        return Report(f"{candidate} against {other}", f"{candidate.engine.build}, {other.engine.build}",
                      [*checks, pair], time.monotonic() - began, remarks)  # fmt: skip

    def _kept(self, candidate: Candidate, report: Report) -> Report:
        chosen = candidate.profile.for_engine(candidate.engine.id)
        path = model_file(self._paths, candidate.profile.model).path
        build = build_key(candidate.engine.sha256, candidate.engine.path)
        key = model_key(build, path, chosen)
        self._store.record(key, report.verdict, "own model", report.summary)
        return report

    def _who_is_wrong(self, *sides: tuple[Candidate, list[Check]]) -> list[str]:
        """Return which side contradicts itself or the known truth."""
        found: list[str] = []
        for candidate, checks in sides:
            if any(check.ok is False for check in checks):
                found.append(f"{candidate} contradicts itself: {summary(checks)}")

            known = self._store.find(build_key(candidate.engine.sha256, candidate.engine.path))
            verdict = known.verdict if known is not None else self.known_truth(candidate.engine).verdict
            if verdict == "wrong":
                found.append(f"{candidate.engine.id} contradicts the known truth: `orch verify {candidate.engine.id}`")

        return found or ["neither side contradicts the known truth: which one is right cannot be told from this"]
