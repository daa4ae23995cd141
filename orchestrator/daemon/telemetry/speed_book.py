"""Keeps how fast this machine decodes, from answers that had an engine to themselves: what `orch plan` forecasts by."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import anyio.to_thread

from orchestrator.adapters.store.speeds import SpeedStore
from orchestrator.core.errors import OrchError
from orchestrator.core.health.slowdown import StepSample, had_machine_to_itself
from orchestrator.core.identities import device_name
from orchestrator.core.plan.speed.forecast import SpeedKey, device_key
from orchestrator.core.plan.speed.samples import LEAST_ANSWERS, AnswerSpeed, placed, samples_of
from orchestrator.daemon.fleet.engine_run import EngineRun

_log = logging.getLogger(__name__)

KEPT_ANSWERS = 64


class SpeedBook:
    """Collects the answers of the instances that run, and writes them down now and then."""

    def __init__(self, path: str) -> None:
        self._store = SpeedStore(path)
        self._answers: dict[str, deque[AnswerSpeed]] = {}
        self._runs: dict[str, EngineRun] = {}
        self._seen: dict[str, int] = {}
        self._due: set[str] = set()

    def note(self, run: EngineRun, step: StepSample) -> None:
        """Add an answer; one that shared the engine or the machine is left out."""
        if not had_machine_to_itself(step):
            return

        instance = run.launch.instance
        answers = self._answers.setdefault(instance, deque(maxlen=KEPT_ANSWERS))
        answers.append(
            AnswerSpeed(
                step.step_ms, step.depth, step.width, step.tokens_per_step, step.prompt_tokens, step.prompt_ms or 0.0
            )
        )
        self._runs[instance] = run
        self._seen[instance] = seen = self._seen.get(instance, 0) + 1
        # The fifth, the tenth, the twentieth: a write for each would be no use.
        if seen >= LEAST_ANSWERS and (seen // LEAST_ANSWERS).bit_count() == 1 and seen % LEAST_ANSWERS == 0:
            self._due.add(instance)

    async def save_due(self, serving: Collection[str]) -> None:
        """Write what is due, and forget the instances that have ended. Best effort."""
        while self._due:
            instance = self._due.pop()
            run, answers = self._runs[instance], tuple(self._answers[instance])
            try:
                await anyio.to_thread.run_sync(self._save, run, answers)
            except (OSError, OrchError) as error:
                _log.warning("the speed of %s could not be kept: %s", run.launch.target, error)

        for instance in self._answers.keys() - set(serving):
            for kept in (self._answers, self._runs, self._seen):
                kept.pop(instance, None)

    def _save(self, run: EngineRun, answers: Sequence[AnswerSpeed]) -> None:
        found = run.read_back
        if found is None:
            return  # where the engine has put the layers is not known

        plan, start = found.plan, found.start
        shape = placed(plan.geometry, start.shape, start.host.get("weights", 0)) if plan.fitted else start.shape
        names = [device_name(each) for each in run.launch.margin_key.devices[: len(start.devices)]]
        if len(names) != len(start.devices):
            return  # a device that no driver tells of

        key = SpeedKey(plan.build.kind, run.launch.rendered.build, device_key(names), plan.geometry.architecture,
                       plan.geometry.tensor_types)  # fmt: skip
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for sample in samples_of(answers, key, plan.geometry, shape, plan.build, now):
            self._store.record(sample)
