"""Models that a build is known not to load, so that it is said before a start that would only fail.

Evidence decides, not the age of a build: the fork reads a qwen35moe file with MTP layers since its `--spec-type` takes
stages.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.dialect.capabilities import Capabilities, Kind
from orchestrator.core.profile.settings import Value

_MTP_TAIL_NEEDS_STAGES = frozenset({"qwen35moe", "qwen35"})
"""Their loaders took the last block for a layer of attention and failed on its missing tensors (seen on b4409)."""


def known_limits(kind: Kind, spec_stages: bool) -> tuple[str, ...]:
    """Return what a build of this kind cannot do although its flags suggest it; one sentence each, for people.

    :param spec_stages: as in `Capabilities`
    """
    if kind == "ik" and not spec_stages:
        return ("it cannot load a qwen35 or qwen35moe file that has MTP layers (it takes `-mtp` for other models)",)

    return ()


def refuse_model(capabilities: Capabilities, architecture: str | None, nextn_predict_layers: int) -> str | None:
    """Return the reason why this build cannot load a file with this header; None when nothing speaks against it.

    :param architecture: `general.architecture`
    :param nextn_predict_layers: `<architecture>.nextn_predict_layers`, 0 where the key is absent
    """
    if capabilities.kind != "ik" or capabilities.spec_stages:
        return None

    if architecture in _MTP_TAIL_NEEDS_STAGES and nextn_predict_layers > 0:
        return (
            f"this build of ik_llama.cpp ({capabilities.version}) cannot load {architecture} with MTP layers: "
            "builds from summer 2026 can, or a file without the MTP layers"
        )

    return None


def refuse_embeddings(settings: Mapping[str, Value], file_pooling: int | None) -> str | None:
    """Return the reason why `/v1/embeddings` would answer every request with an error; None when nothing speaks so.

    :param file_pooling: `<architecture>.pooling_type`; 0 is none, as is a header without the key
    """
    if settings.get("server.embeddings") is not True or settings.get("server.reranking") is True:
        return None

    if "server.pooling" in settings or file_pooling:
        return None

    return (
        'the file names no pooling, so an input would get no embedding of its own: set `server.pooling`, "last" for'
        ' decoders such as Qwen3-Embedding, or what the model\'s card says ("mean", "cls"); "none" is for tokens'
    )
