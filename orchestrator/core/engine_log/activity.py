"""The figures that an engine's log has told so far. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.engine_log.events import (
    AttentionCacheTold,
    BufferAllocated,
    ContextBegan,
    DegradationKind,
    Degraded,
    DeviceFree,
    DeviceSeen,
    DraftsCounted,
    FitSawFree,
    LogRecord,
    PlacedByHand,
    PromptBatchRead,
    PromptProgress,
)
from orchestrator.core.engine_log.fitted_layers import FittedLayers
from orchestrator.core.engine_log.loaded_memory import LoadedMemory

MAX_QUOTED = 500
KEPT_TASKS = 64
"""Tasks whose progress is remembered: more than an engine has slots."""


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """Sums and newest values since the engine's start.

    :param prompt_batches: batches of prompts that were read
    :param drafts: tokens that were drafted, of which `drafts_accepted` were right
    :param prompt_shares: task to how much of its prompt was read, 0 to 1; the newest tasks last
    :param free_mib: device to MiB that it had free when the engine began; what is printed later is of a fit
    :param degraded: what the engine goes on without to the line that says so, its first words to that effect
    :param device_seen: it found a device that it can use
    :param memory: the buffers that it made
    :param fit_free_mib: what its fit took to be free on all devices, the first time
    :param fitted: where its fit put the layers
    """

    prompt_batches: int = 0
    drafts: int = 0
    prompt_shares: Mapping[int, float] = field(default_factory=dict)
    free_mib: Mapping[str, int] = field(default_factory=dict)
    degraded: Mapping[DegradationKind, str] = field(default_factory=dict)
    device_seen: bool = False
    memory: LoadedMemory = LoadedMemory()
    fit_free_mib: int | None = None
    drafts_accepted: int = 0
    fitted: FittedLayers = FittedLayers()


def add_records(activity: EngineActivity, records: Iterable[LogRecord]) -> EngineActivity:
    """The figures after these records, too."""
    prompt_batches, drafts, accepted = activity.prompt_batches, activity.drafts, activity.drafts_accepted
    shares, free_mib = dict(activity.prompt_shares), dict(activity.free_mib)
    degraded, device_seen = dict(activity.degraded), activity.device_seen
    memory, fit_free_mib, fitted = activity.memory, activity.fit_free_mib, activity.fitted
    for record in records:
        for event in record.events:
            fitted = fitted.after(event)
            match event:
                case PromptBatchRead():
                    prompt_batches += 1
                case PromptProgress(task, share):
                    shares.pop(task, None)
                    shares[task] = share
                case DraftsCounted(generated, right):
                    drafts, accepted = drafts + generated, accepted + right
                case DeviceFree(device, free):
                    free_mib.setdefault(device, free)
                case BufferAllocated(buffer, buffer_kind, mib):
                    memory = memory.with_buffer(buffer, buffer_kind, mib)
                case AttentionCacheTold(mib):
                    memory = memory.with_attention_cache(mib)
                case FitSawFree(free) if fit_free_mib is None:
                    fit_free_mib = free
                case ContextBegan():
                    memory = memory.with_context()
                case DeviceSeen():
                    device_seen = True
                case Degraded(kind, mended=False) if not _placed_by_hand(record):
                    degraded.setdefault(kind, record.text.strip()[:MAX_QUOTED])
                case Degraded(kind, mended=True):
                    degraded.pop(kind, None)
                case _:
                    pass

    newest = dict(list(shares.items())[-KEPT_TASKS:])
    return EngineActivity(
        prompt_batches, drafts, newest, free_mib, degraded, device_seen, memory, fit_free_mib, accepted, fitted
    )


def _placed_by_hand(record: LogRecord) -> bool:
    """Return whether the profile itself placed the model: that no fit is made then is as it was asked for."""
    return PlacedByHand() in record.events
