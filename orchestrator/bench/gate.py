"""The gate of a new build: verification, then a paired bench against the current build, kept as it goes.

It decides and makes nothing current. Whatever ends it, the current build is as it was, and what was running runs again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.adapters.store.gates import GateRecord, GateStore
from orchestrator.adapters.store.history import KEPT_S, read_requests
from orchestrator.adapters.store.state_file import load_state
from orchestrator.adapters.store.verifications import VerificationStore, build_key
from orchestrator.bench.running import BenchTargetFailed
from orchestrator.bench.session import BenchShell, begin_pair, read_pair, resume_pair
from orchestrator.core.bench.blocks import BenchPlan, estimator_blocks, sides_of
from orchestrator.core.bench.estimator import LOOKS
from orchestrator.core.bench.figures import Metric
from orchestrator.core.bench.gate import judge_speed
from orchestrator.core.bench.workloads import SEED, TOKENS, WORKLOADS
from orchestrator.core.errors import AlreadyRunningError, OrchError, UsageError
from orchestrator.core.profile.profile import engine_of
from orchestrator.core.setup.build_gate import (
    BuildSpeed,
    BuildTruth,
    DoesNotServe,
    GateDecision,
    NotCompared,
    decide,
    judge_truth,
)
from orchestrator.engines.build.installs import Install
from orchestrator.engines.registry import EngineRegistry
from orchestrator.engines.verify.verifier import Verifier

FIRST_SEED = next(seed for seed in count(SEED) if sides_of(seed, 0)[0] == "a")
"""The current build is started first: a profile that does not run at all is then no fault of the new one."""

WORKLOAD = WORKLOADS["chat"]
METRIC: Metric = "turn"
"""The time of a whole answer: a build that reads prompts more slowly is slower, too."""

OpenShell = Callable[[BenchStore], AbstractContextManager[BenchShell]]


@dataclass(frozen=True, slots=True)
class BuildGate:
    """Judges builds of engines.

    :param tolerate_slower: share of the current build's rate
    :param verify: whether `orch verify` is part of it
    :param open_shell: what the bench runs in
    :param say: shows one line of progress
    :param tokens: length of each answer of the bench
    """

    paths: Paths
    tolerate_slower: float
    verify: bool
    open_shell: OpenShell
    say: Callable[[str], None]
    tokens: int = TOKENS

    def run(self, new: Install, current: Install) -> GateRecord:
        """Judge a build against the current one, and keep what came out.

        What keeps it from being measured (another bench, a daemon that ends) leaves it `undecided`.

        :raises AlreadyRunningError: when another gate runs
        """
        store = GateStore(self.paths.gates_file)
        with store.lock():
            return self._run(store, new, current)

    def _run(self, store: GateStore, new: Install, current: Install) -> GateRecord:
        profile = last_profile(self.paths, new.engine)
        record = GateRecord(new.engine, new.build, current.build, "running", profile=profile)
        store.record(record)
        try:
            truth = self._truth(new, current)
            speed: BuildSpeed | NotCompared | DoesNotServe = NotCompared("no profile has run on this engine")
            if truth.accepted and profile is not None:
                speed, bench = self._speed(profile, new, current)
                record = replace(record, bench=bench)

            decision = decide(truth, speed, self.tolerate_slower)
            record = replace(record, state="accepted" if decision.accepted else "refused", reason=decision.reason)
        except OrchError as error:
            reason = "; ".join((f"it could not be judged: {error.message}", *error.details))
            record = replace(record, state="undecided", reason=reason)
        except BaseException:
            store.record(replace(record, state="interrupted", reason="it was broken off"))
            raise

        store.record(record)
        return record

    def _truth(self, new: Install, current: Install) -> GateDecision:
        if not self.verify:
            return judge_truth(None, None)

        found = self._verified(new)
        # What the current build fails matters only beside a failure of the new one.
        before = (self._known(current) or self._verified(current)) if found.verdict == "wrong" else None
        return judge_truth(found, before)

    def _verified(self, install: Install) -> BuildTruth:
        engine = EngineRegistry(self.paths).resolve(f"{install.engine}@{install.build}")
        report = Verifier(self.paths, self.say).known_truth(engine)
        return BuildTruth(report.verdict, report.summary, tuple(report.failed))

    def _known(self, install: Install) -> BuildTruth | None:
        engine = EngineRegistry(self.paths).resolve(f"{install.engine}@{install.build}")
        found = VerificationStore(self.paths.verifications_file).find(build_key(engine.sha256, engine.path))
        if found is None or found.verdict not in ("right", "wrong"):
            return None

        return BuildTruth("right" if found.verdict == "right" else "wrong", found.summary, found.failed)

    def _speed(
        self, profile: str, new: Install, current: Install
    ) -> tuple[BuildSpeed | NotCompared | DoesNotServe, int | None]:
        texts = (f"{profile}@{current.engine}@{current.build}", f"{profile}@{new.engine}@{new.build}")
        store = BenchStore(self.paths.bench_file)
        try:
            with contextlib.ExitStack() as stack:
                try:
                    shell = stack.enter_context(self.open_shell(store))
                except AlreadyRunningError:
                    raise
                except OrchError as error:
                    return NotCompared(f"no daemon could be started: {error.message}"), None

                shell = replace(shell, resume=f"orch engines update {new.engine}")
                return self._compared(shell, texts, profile, current)
        except BenchTargetFailed as failed:
            reason = "; ".join((failed.message, *failed.details))
            if failed.side == "b":
                return DoesNotServe(profile, reason), None

            return NotCompared(f"`{profile}` does not run on the current build either: {reason}"), None
        finally:
            store.close()

    def _compared(
        self, shell: BenchShell, texts: tuple[str, str], profile: str, current: Install
    ) -> tuple[BuildSpeed | NotCompared, int | None]:
        most = LOOKS[-1].blocks
        plan = BenchPlan(FIRST_SEED, METRIC, tuple(each.name for each in WORKLOAD.prompts), most, self.tolerate_slower)
        try:
            shell.parse(texts)
        except OrchError as error:  # the profile is wrong by now, or its model is gone
            return NotCompared(f"`{profile}` cannot be started: {error.message}"), None

        report = None
        if (run := _broken_off(shell.store, texts, plan)) is not None:
            shell.note(f"going on with bench {run}, which was broken off")
            # What it compares has changed, or cannot be started now: which of them that is, a new one finds out.
            with contextlib.suppress(UsageError, BenchTargetFailed):
                report = resume_pair(shell, run)

        report = report or begin_pair(
            shell, texts, plan, WORKLOAD, self.tokens, ["orch", "bench", *texts, "--metric", METRIC]
        )
        spec, progress = read_pair(shell.store, shell.store.find(report["id"]))
        says = judge_speed(estimator_blocks(spec.plan, progress.measured), self.tolerate_slower, most)
        speed = BuildSpeed(
            says, report["ratio"], report["low"], report["high"], report["blocks"], profile, current.build
        )
        return speed, report["id"]


def _broken_off(store: BenchStore, texts: tuple[str, str], plan: BenchPlan) -> int | None:
    """Return the newest bench of these two builds, if it has measured something and did not come to its end."""
    kept = next((each for each in store.runs() if each.kind == "pair" and each.title == " ".join(texts)), None)
    if kept is None or kept.state == "done":
        return None

    spec, progress = read_pair(store, kept)
    return kept.id if spec.plan == plan and progress.measured else None


def last_profile(paths: Paths, engine: str) -> str | None:
    """Return the profile that ran on an engine last, of those that there are; None where none did."""
    names = set(ProfileStore(paths).names())
    return next((name for name in _profiles_used(paths, engine) if name in names), None)


def _profiles_used(paths: Paths, engine: str) -> list[str]:
    """Return the profiles that ran on an engine, the last one first: by the daemon's state, and by the history."""
    state, _ = load_state(paths.state_file)
    fleet = state.get("fleet")
    remembered = [state.get("last"), *(fleet if isinstance(fleet, list) else ())]
    found = [
        str(each["profile"])
        for each in remembered
        if isinstance(each, dict) and each.get("profile") and engine_of(str(each.get("engine"))) == engine
    ]
    with contextlib.suppress(OrchError):
        rows = read_requests(paths.history_file, time.time() - KEPT_S)
        found += [row.profile for row in reversed(rows) if row.profile and engine_of(row.engine or "") == engine]

    return found
