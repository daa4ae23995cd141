"""From benches that are kept to marks: one for each target, of a bench that nothing disturbed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.bench.estimator import LOOKS
from orchestrator.core.bench.records import BenchSpec
from orchestrator.core.course.marks import MachineNames, SpeedMark, circumstances_of
from orchestrator.core.identities import build_name
from orchestrator.core.profile.profile import engine_of

DISTURBED = frozenset({"throttled", "drift", "clock", "cache_hits", "short_answers", "wrong"})
"""Conditions of a bench with which its figures say nothing of another day's."""


def marks_of_bench(number: int, started_s: float, spec: BenchSpec, result: Mapping[str, Any]) -> Iterator[SpeedMark]:
    """Yield the marks of a bench of two targets, also of a tuning's confirmation and of a gate.

    There are none of a quick one, whose few blocks have no verdict either.

    :param started_s: Unix time
    :param result: its report; none of an older orch, which has no interval for each target
    """
    if result["blocks"] < LOOKS[0].blocks or DISTURBED & {each["kind"] for each in result["conditions"]}:
        return

    for side in (result["a"], result["b"]):
        if side.get("decode_low") is None or side.get("ms_per_step") is None:
            continue

        yield SpeedMark(
            when_s=started_s,
            profile=side["profile"],
            engine=engine_of(side["engine"]),
            kind=f"{spec.workload.name}, {spec.tokens} tokens ({spec.workload.digest[:6]})",
            circumstances=circumstances_of(
                build_name(side["build"], side["sha256"]), side["model"], side["model_bytes"], side["argv"],
                machine_of(spec.machine),
            ),
            answers=side["requests"],
            decode_tok_s=side["decode_tok_s"],
            low_tok_s=side["decode_low"],
            high_tok_s=side["decode_high"],
            step_ms=side["ms_per_step"],
            prompt_tok_s=side["prompt_tok_s"],
            bench=number,
            trial=bool(side["settings"]) or "@" in side["engine"],
        )  # fmt: skip


def machine_of(described: Mapping[str, Any]) -> MachineNames:
    """Return the machine that a bench was made on, as it is kept."""
    return MachineNames(
        processor=described["processor"],
        cpus=described["cpus"],
        devices=tuple(each.rpartition(", ")[0] for each in described["devices"]),
        driver=described["driver"],
        kernel=described["system"],
    )


def in_use(marks: Sequence[SpeedMark]) -> list[SpeedMark]:
    """Return the marks without trials of what the profile did not run with afterwards.

    A build that a gate has refused, settings that were never written into the profile, and an older build that was
    benched once more are no news of it. A tuning's confirmed settings are, once they have been applied.

    :param marks: of one profile and engine
    """
    used = [mark for mark in marks if not mark.trial]

    def was_used(trial: SpeedMark) -> bool:
        return any(each.when_s >= trial.when_s and _what_runs(each) == _what_runs(trial) for each in used)

    return [mark for mark in marks if not mark.trial or was_used(mark)]


def _what_runs(mark: SpeedMark) -> tuple[str, str, Mapping[str, str]]:
    on = mark.circumstances
    return on.build, on.model, on.settings
