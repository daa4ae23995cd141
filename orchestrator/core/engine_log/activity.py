"""The figures that an engine's log has told so far. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.engine_log.events import (
    DeviceFree,
    DraftsCounted,
    LogRecord,
    PromptBatchRead,
    PromptProgress,
)

KEPT_TASKS = 64
"""Tasks whose progress is remembered: more than an engine has slots."""


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """Sums and newest values since the engine's start.

    :param prompt_batches: batches of prompts that were read
    :param drafts: tokens that were drafted
    :param prompt_shares: task to how much of its prompt was read, 0 to 1; the newest tasks last
    :param free_mib: device to MiB that it had free when the engine began; what is printed later is of a fit
    """

    prompt_batches: int = 0
    drafts: int = 0
    prompt_shares: Mapping[int, float] = field(default_factory=dict)
    free_mib: Mapping[str, int] = field(default_factory=dict)


def add_records(activity: EngineActivity, records: Iterable[LogRecord]) -> EngineActivity:
    """The figures after these records, too."""
    prompt_batches, drafts = activity.prompt_batches, activity.drafts
    shares, free_mib = dict(activity.prompt_shares), dict(activity.free_mib)
    for record in records:
        for event in record.events:
            match event:
                case PromptBatchRead():
                    prompt_batches += 1
                case PromptProgress(task, share):
                    shares.pop(task, None)
                    shares[task] = share
                case DraftsCounted(generated):
                    drafts += generated
                case DeviceFree(device, free):
                    free_mib.setdefault(device, free)
                case _:
                    pass

    return EngineActivity(prompt_batches, drafts, dict(list(shares.items())[-KEPT_TASKS:]), free_mib)
