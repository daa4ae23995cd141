"""What a profile says to no effect, although it works: a setting that another one, or a default, makes inert."""

from __future__ import annotations

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.facts import DEFAULT_UBATCH, Check, ProfileFacts
from orchestrator.core.profile.profile import EngineProfile

_OF_THE_PROJECTOR = ("offload", "device", "image_min_tokens", "image_max_tokens")


def find_remarks(profile: EngineProfile, kind: Kind) -> tuple[str, ...]:
    """Return what is without effect, or taken back by a default, on an engine of this kind; a sentence each."""
    facts = ProfileFacts(profile, kind)
    return tuple(message for check in _CHECKS if (message := check(facts)) is not None)


def _fit_given_up(facts: ProfileFacts) -> str | None:
    if facts.kind != "upstream" or facts.get("memory.fit") is not None or not facts.placed:
        return None

    names = ", ".join(f"`{path}`" for path in facts.placed)
    return f"this engine fits the model into device memory by default, and gives that up for {names}: no margin is kept"


def _fitted_context(facts: ProfileFacts) -> str | None:
    if facts.get("memory.fit_min_context") is None:
        return None

    if facts.fits is False:
        return "`memory.fit_min_context` has no effect: nothing is fitted"

    size = facts.get("context.size")
    if isinstance(size, int) and size > 0:
        return (
            f"`memory.fit_min_context` has no effect: fitting shrinks a context that is left to it, not {size} tokens"
        )

    return None


def _main_device(facts: ProfileFacts) -> str | None:
    split = facts.get("memory.split")
    if facts.get("memory.main_gpu") is None or facts.kind == "unknown" or split in ("none", "row"):
        return None

    said = f'is "{split}"' if split else 'is "layer" by default'
    return f'`memory.main_gpu` has no effect: `memory.split` {said}; it is for "none" and "row"'


def _projector_settings(facts: ProfileFacts) -> str | None:
    found = [f"multimodal.{key}" for key in _OF_THE_PROJECTOR if facts.get(f"multimodal.{key}") is not None]
    if not found or facts.get("multimodal.mmproj") is not None:
        return None

    names = ", ".join(f"`{path}`" for path in found)
    return f"{names}: no effect without `multimodal.mmproj`"


def _reuse_with_images(facts: ProfileFacts) -> str | None:
    if facts.kind != "upstream" or facts.get("multimodal.mmproj") is None:
        return None

    found = [path for path in ("cache.reuse", "context.shift") if facts.get(path) not in (None, 0, False)]
    names = ", ".join(f"`{path}`" for path in found)
    return f"{names}: the engine turns it off where a projector is loaded" if found else None


def _budget_message(facts: ProfileFacts) -> str | None:
    if facts.get("reasoning.budget_message") is not None and facts.get("reasoning.budget") in (None, -1):
        return "`reasoning.budget_message` has no effect: `reasoning.budget` is unlimited, as by default"

    return None


def _lazy_without_mapping(facts: ProfileFacts) -> str | None:
    if facts.get("memory.lazy") == "on" and facts.get("memory.mmap") is False:
        return '`memory.lazy = "on"` has no effect: it reads from a mapped file, and `memory.mmap` is false'

    return None


def _inputs_of_unknown_length(facts: ProfileFacts) -> str | None:
    unknown = facts.makes_embeddings and facts.slot_context is None and facts.get("server.pooling") != "last"
    if not unknown or facts.get("batch.ubatch") is not None:
        return None

    return (
        f"inputs above {DEFAULT_UBATCH} tokens are answered with an error: `batch.ubatch` is that by default,"
        " and must hold the longest input"
    )


_CHECKS: tuple[Check, ...] = (
    _fit_given_up,
    _fitted_context,
    _main_device,
    _projector_settings,
    _reuse_with_images,
    _budget_message,
    _lazy_without_mapping,
    _inputs_of_unknown_length,
)
