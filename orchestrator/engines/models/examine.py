"""A model looked at closer: headers say what it is, whether it is whole, and whether what lies beside it is its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from orchestrator.adapters.gguf.reader import GgufHeader
from orchestrator.adapters.gguf.splits import has_mtp, read_splits
from orchestrator.core.dialect.model_fit import (
    Misfit,
    drafter_misfit,
    model_misfit,
    mtp_drafter_misfit,
    projector_misfit,
)
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.geometry import GeometryError, geometry_of
from orchestrator.core.setup.found_models import FoundModel
from orchestrator.core.setup.pulls import draft_type

Kind = Literal["chat", "embedding", "reranker"]

_RANK = 4
"""`LLAMA_POOLING_TYPE_RANK`."""


@dataclass(frozen=True)
class Examined:
    """A model that an engine could load, as far as its headers tell.

    :param parts: headers of all of its files
    :param projector: that fits it
    :param drafter: that fits it
    :param draft: how tokens are drafted for it: the profile's `speculative.type`, empty for not at all
    :param notes: why something that lies beside it is not used
    """

    model: FoundModel
    parts: tuple[GgufHeader, ...]
    kind: Kind
    projector: str | None
    drafter: str | None
    draft: str
    notes: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.parts[0].path

    @property
    def has_template(self) -> bool:
        """Return whether the file says how chats are written; one that does not continues texts, and answers badly."""
        return isinstance(self.parts[0].kv.get("tokenizer.chat_template"), str)


def examine(model: FoundModel) -> Examined:
    """Return what a model's headers say.

    :raises OrchError: when it is not whole, or nothing that answers
    """
    if model.missing:
        count = len(model.files) + len(model.missing)
        raise OrchError(
            f"{model.path}: {len(model.missing)} of the model's {count} parts are missing", details=model.missing[:4]
        )

    if model.problem is not None:
        raise OrchError(f"{model.path}: {model.problem}")

    parts = read_splits(model.path)
    misfit = model_misfit(parts, "ik")  # the fork reads every type that any engine does
    if misfit is not None:
        raise OrchError(f"{model.path}: {misfit.message}", details=(misfit.detail,), hint=misfit.hint)

    _check_form(parts)
    _check_answers(parts)
    notes: list[str] = []
    projector = _projector(model, parts[0], notes)
    drafter, draft = _drafter(model, parts, notes)
    return Examined(model, parts, _kind(parts[0]), projector, drafter, draft, tuple(notes))


_OLLAMA_ONLY = frozenset({"gptoss", "mllama", "qwen25vl"})
"""Architectures as Ollama's own converter calls them: llama.cpp has other names and other tensors for these models."""


def _check_form(parts: tuple[GgufHeader, ...]) -> None:
    """Check that a file is in the form that llama.cpp's converter gives: Ollama's puts projectors into models."""
    header = parts[0]
    own = header.architecture in _OLLAMA_ONLY
    if own or any(tensor.name.startswith(("v.", "mm.")) for part in parts for tensor in part.tensors):
        what = f"architecture {header.architecture}" if own else "the projector is in the model's file"
        raise OrchError(
            f"{header.path}: it is in a form that only Ollama reads",
            details=(what,),
            hint="`orch pull hf:ORG/REPO` fetches the model as llama.cpp has it",
        )


def _check_answers(parts: tuple[GgufHeader, ...]) -> None:
    header = parts[0]
    if not any(part.tensors for part in parts):
        raise OrchError(f"{header.path}: it has a vocabulary and no weights")

    try:
        geometry_of(parts)
    except GeometryError as error:
        raise OrchError(f"{header.path}: {error.message}", details=error.details) from error

    if not isinstance(header.kv.get("tokenizer.ggml.model"), str):
        what = header.architecture or "without an architecture"
        raise OrchError(f"{header.path}: it has no vocabulary ({what}): it makes no text")


def _kind(header: GgufHeader) -> Kind:
    """Return what a model is for. A pooling is in the header of those that measure texts, and of no others."""
    pooling = header.number("pooling_type")
    if pooling == _RANK:
        return "reranker"

    measures = pooling or "bert" in header.architecture or "embed" in header.architecture
    return "embedding" if measures else "chat"


def _projector(model: FoundModel, header: GgufHeader, notes: list[str]) -> str | None:
    if model.projector is not None:
        return _fitting(model.projector, lambda other: _said(projector_misfit(header, other)), notes)

    fits = [
        path
        for path in model.unnamed
        if _fitting(path, lambda other: _said(projector_misfit(header, other)), []) is not None
    ]
    if len(fits) > 1:
        notes.append(f"{len(fits)} projectors lie beside it, and their names do not say whose they are: none is used")

    return fits[0] if len(fits) == 1 else None


def _drafter(model: FoundModel, parts: tuple[GgufHeader, ...], notes: list[str]) -> tuple[str | None, str]:
    header, own = parts[0], "mtp" if has_mtp(parts) else ""
    if model.drafter is None:
        return None, own

    way = draft_type(model.drafter)

    def misfit(other: GgufHeader) -> str | None:
        nonlocal way
        if other.nextn_predict_layers or other.architecture.endswith("assistant"):
            way = "mtp"

        if way == "mtp":
            return _said(mtp_drafter_misfit(header, other))

        return _said(drafter_misfit(header, other)) if way == "draft" else None

    drafter = _fitting(model.drafter, misfit, notes)
    return drafter, way if drafter is not None else own


def _fitting(path: str, misfit: Callable[[GgufHeader], str | None], notes: list[str]) -> str | None:
    try:
        said = misfit(read_splits(path)[0])
    except OrchError as error:
        said = error.message.removeprefix(f"{path}: ")

    if said is not None:
        notes.append(f"{os.path.basename(path)}, which lies beside it, is not used: {said}")

    return path if said is None else None


def _said(misfit: Misfit | None) -> str | None:
    return None if misfit is None else misfit.message
