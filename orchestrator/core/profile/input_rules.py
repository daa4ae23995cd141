"""Combinations that cannot work in what is read and written: inputs of embeddings, positions, images, adapters."""

from __future__ import annotations

from orchestrator.core.profile.facts import DEFAULT_UBATCH, Check, ProfileFacts
from orchestrator.core.profile.speculation import DRAFTERS


def _input_above_ubatch(facts: ProfileFacts) -> str | None:
    # With `last` the engine may cut an input into batches; with all others it must see it whole.
    if not facts.makes_embeddings or facts.get("server.pooling") == "last":
        return None

    longest, ubatch = facts.slot_context, facts.get("batch.ubatch")
    held = ubatch if isinstance(ubatch, int) else DEFAULT_UBATCH
    if longest is None or longest <= held:
        return None

    said = f"`batch.ubatch` ({held})" if isinstance(ubatch, int) else f"`batch.ubatch` ({held} when it is not set)"
    return (
        f"{said} must hold the longest input, as an embedding or a score is made of it in one piece: a slot takes"
        f" {longest} tokens, and the engine answers longer inputs than {held} with an error; set"
        f" `batch.ubatch = {_fitting_ubatch(facts, longest)}` and `batch.size` no smaller, or a smaller `context.size`"
    )


def _fitting_ubatch(facts: ProfileFacts, least: int) -> int:
    """Return the smallest micro-batch that keeps both rules, tokens."""
    parallel = facts.get("context.parallel")
    least = max(least, facts.slot_context or 0)
    by_mean = facts.on("server.embeddings") and facts.get("server.pooling") in (None, "mean")
    return -(-least // parallel) * parallel if by_mean and isinstance(parallel, int) else least


def _ubatch_not_shared_evenly(facts: ProfileFacts) -> str | None:
    if not facts.on("server.embeddings") or facts.get("server.pooling") not in (None, "mean"):
        return None

    parallel, ubatch = facts.get("context.parallel"), facts.get("batch.ubatch")
    held = ubatch if isinstance(ubatch, int) else DEFAULT_UBATCH
    if not isinstance(parallel, int) or held % parallel == 0:
        return None

    pooled = "with mean pooling" if facts.get("server.pooling") else "where the model pools by mean (its file says)"
    return (
        f"`batch.ubatch` ({held}) is no multiple of `context.parallel` ({parallel}): {pooled} the engine stops at its"
        f" start; set `batch.ubatch = {_fitting_ubatch(facts, held)}`"
        + ("" if facts.get("server.pooling") else ", or say what it is with `server.pooling`")
    )


def _pooling_without_embeddings(facts: ProfileFacts) -> str | None:
    if facts.get("server.pooling") is not None and not facts.makes_embeddings:
        return "`server.pooling` has no effect: neither `server.embeddings` nor `server.reranking` is on"

    return None


def _pooling_of_reranking(facts: ProfileFacts) -> str | None:
    if facts.on("server.reranking") and facts.get("server.pooling") not in (None, "rank"):
        return f'`server.reranking` needs `server.pooling = "rank"`, found "{facts.get("server.pooling")}"'

    return None


def _two_rope_factors(facts: ProfileFacts) -> str | None:
    if facts.get("rope.scale") is not None and facts.get("rope.freq_scale") not in (None, 0, 0.0):
        return "`rope.scale` and `rope.freq_scale` say one thing, each as the other's inverse: keep one"

    return None


def _yarn_without_yarn(facts: ProfileFacts) -> str | None:
    scaling = facts.get("rope.scaling")
    given = next((path for path in facts.profile.settings if path.startswith("rope.yarn_")), None)
    path = given or ("rope.original_context" if facts.get("rope.original_context") else None)
    if scaling not in (None, "yarn") and path is not None:
        return f'`{path}` is for YaRN, and `rope.scaling` is "{scaling}"'

    return None


def _scales_of_adapters(facts: ProfileFacts) -> str | None:
    files, scales = facts.get("lora.adapters"), facts.get("lora.scales")
    if isinstance(scales, tuple) and not isinstance(files, tuple):
        return "`lora.scales` has no effect: there is no `lora.adapters`"

    if isinstance(scales, tuple) and isinstance(files, tuple) and len(files) != len(scales):
        return f"`lora.scales` has {len(scales)} and `lora.adapters` {len(files)} elements: one scale for each adapter"

    return None


def _image_bounds(facts: ProfileFacts) -> str | None:
    low, high = facts.get("multimodal.image_min_tokens"), facts.get("multimodal.image_max_tokens")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        return f"`multimodal.image_min_tokens` ({low}) is greater than `multimodal.image_max_tokens` ({high})"

    return None


def _projector_nowhere(facts: ProfileFacts) -> str | None:
    device = facts.get("multimodal.device")
    if device not in (None, "none") and facts.get("multimodal.offload") is False:
        return f'`multimodal.device = "{device}"` and `multimodal.offload = false` contradict each other: keep one'

    return None


def _chain_of_types(facts: ProfileFacts) -> str | None:
    if len(facts.types) > 1 and "none" in facts.types:
        return '`speculative.type`: "none" stands alone, not in a chain'

    double = next((kind for kind in facts.types if facts.types.count(kind) > 1), None)
    if double is not None:
        return f'`speculative.type`: "{double}" is there twice'

    # Both engines have one context for drafts and one file for it; n-grams need neither.
    drafters = [kind for kind in facts.types if kind in DRAFTERS]
    if len(drafters) > 1:
        names = " and ".join(f'"{kind}"' for kind in drafters)
        return f"`speculative.type`: {names} cannot be chained, an engine has one drafter; n-grams may stand before it"

    return None


INPUT_RULES: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("batch.ubatch", "context.size", "server.embeddings", "server.reranking"), _input_above_ubatch),
    (("batch.ubatch", "context.parallel"), _ubatch_not_shared_evenly),
    (("server.pooling",), _pooling_without_embeddings),
    (("server.pooling", "server.reranking"), _pooling_of_reranking),
    (("rope.freq_scale", "rope.scale"), _two_rope_factors),
    (("rope.scaling",), _yarn_without_yarn),
    (("lora.scales", "lora.adapters"), _scales_of_adapters),
    (("multimodal.image_min_tokens", "multimodal.image_max_tokens"), _image_bounds),
    (("multimodal.device", "multimodal.offload"), _projector_nowhere),
    (("speculative.type",), _chain_of_types),
)
