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


def refuse_mtp_drafter(
    *,
    target_width: int | None,
    architecture: str,
    nextn_predict_layers: int,
    width: int | None,
    backbone_width: int | None,
) -> str | None:
    """Return the reason why a file cannot draft with MTP for a target; None when nothing speaks against it.

    A head of its own is an assistant (Gemma 4), whose `embedding_length_out` is the target's width, or a model's MTP
    layers in a file apart (Step, Qwen), of the target's own width.

    :param target_width: the target's `embedding_length`; None where its header does not say
    :param width: the drafter's `embedding_length`
    :param backbone_width: the drafter's `embedding_length_out`
    """
    assistant = architecture.endswith(("assistant", "-mtp", "_mtp"))
    if not assistant and nextn_predict_layers == 0:
        return (
            f"it is a {architecture or 'model without an architecture'} without MTP layers: MTP drafts with an"
            ' assistant or with MTP layers; a small model of its own drafts with `speculative.type = "draft"`'
        )

    reads = backbone_width if assistant else width
    if reads is not None and target_width is not None and reads != target_width:
        return f"it is made for a model of width {reads}, and the model's is {target_width}: take this model's drafter"

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
