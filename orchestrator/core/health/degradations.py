"""What an engine said while it loaded that it goes on without, for people. Pure.

Both engines serve on when a device, a drafter or a lock cannot be had, with a green /health. The lines are read in
`core/engine_log/wording.py`; which of them matter depends on what the profile asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.engine_log.activity import EngineActivity
from orchestrator.core.engine_log.events import DegradationKind
from orchestrator.core.profile.settings import Value

_TEXTS: dict[DegradationKind, tuple[str, str]] = {
    "no_device": (
        "no device can be used: the engine computes on the processor",
        "check the driver (`nvidia-smi`, `rocminfo`, `vulkaninfo`), or rebuild: `orch engines build ID`",
    ),
    "layers_ignored": (
        "no device can be used: the engine computes on the processor, whatever `memory.gpu_layers` says",
        "check the driver (`nvidia-smi`, `rocminfo`, `vulkaninfo`), or take a build for your device",
    ),
    "fit_given_up": (
        "the engine gave up fitting the model into device memory: no margin is kept",
        "place it yourself (`memory.gpu_layers`, `memory.n_cpu_moe`), or drop what the fit cannot go with",
    ),
    "flash_attention_off": (
        "flash attention is off: the KV cache takes more memory, and long prompts more time",
        "see which device cannot do it in `orch logs`; `attention.flash` says what is asked for",
    ),
    "mtp_off": (
        "MTP is off: nothing is drafted",
        'take a file with its MTP head and a build that loads it, or set speculative.type = "none"',
    ),
    "draft_vocab": (
        "the draft model's vocabulary is not the model's",
        "take a draft model of the same family: `speculative.draft_model`",
    ),
    "speculation_off": (
        "speculation, where it was asked for, is off: nothing is drafted",
        'take another draft model, or set speculative.type = "none"',
    ),
    "mlock_failed": (
        "the model is not locked in memory: it may be swapped out",
        "raise the limit of locked memory (`ulimit -l`, `LimitMEMLOCK=`), or drop `memory.mlock`",
    ),
    "context_capped": (
        "the context is cut to the one that the model was trained with",
        "set `context.size` to what the model has",
    ),
    "projector_refused": ("the projector was refused: images are not read", "take the projector of this model"),
}

_ON_PROCESSOR: tuple[DegradationKind, ...] = ("layers_ignored", "no_device")
OF_SPECULATION: tuple[DegradationKind, ...] = ("mtp_off", "draft_vocab", "speculation_off")


@dataclass(frozen=True, slots=True)
class Degradation:
    """One thing that an engine goes on without.

    :param evidence: the engine's own line
    :param hint: what a person can do
    """

    kind: DegradationKind
    message: str
    evidence: str
    hint: str


def degradations_of(activity: EngineActivity, settings: Mapping[str, Value] | None) -> tuple[Degradation, ...]:
    """Return what an engine goes on without, as far as it was asked for.

    :param settings: of the profile; None when it is not known, as of a log that somebody pasted
    """
    told = dict(activity.degraded)
    # One back end without a device matters only if no other one has any; the line about the layers says that, too.
    if activity.device_seen or "layers_ignored" in told:
        told.pop("no_device", None)

    return tuple(_degradation(kind, line) for kind, line in told.items() if settings is None or _asked(kind, settings))


def describe_degradations(found: Iterable[Degradation]) -> str:
    """Return them in one line for people; empty when there is none."""
    return "; ".join(f"{each.message} [{each.evidence}]" for each in found)


def _degradation(kind: DegradationKind, line: str) -> Degradation:
    message, hint = _TEXTS[kind]
    return Degradation(kind, message, line, hint)


def _asked(kind: DegradationKind, settings: Mapping[str, Value]) -> bool:
    """Return whether a profile asks for what the engine goes on without."""
    if kind in OF_SPECULATION:
        return settings.get("speculative.type", "none") != "none"

    if kind == "mlock_failed":
        return settings.get("memory.mlock") is True

    if kind in _ON_PROCESSOR:
        return settings.get("memory.gpu_layers") != 0

    if kind == "projector_refused":
        return settings.get("multimodal.mmproj") is not None

    if kind == "flash_attention_off":
        return settings.get("attention.flash") not in (False, "off")

    return True
