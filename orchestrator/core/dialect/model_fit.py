"""What the headers of a model, its projector, drafter and adapters say against a start, before it is tried.

Only what is known to fail is refused; what is merely unusual is left to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.dialect.tensor_types import Q2_0, Q2_0_BLOCK, Q2_0_BLOCK_BYTES, may_load, type_advice, type_name

MAX_VOCABULARY_DIFFERENCE = 128
"""Upstream's limit between a model's vocabulary and its drafter's, tokens."""

_PROJECTOR_TENSORS = ("mm.", "mm_", "resampler.", "v.deepstack.", "a.mm", "adapter.")
"""Beginnings of the names of tensors that lead into the model's own width."""


class HeaderTensor(Protocol):
    """A tensor's description."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def type(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class Header(Protocol):
    """The header of a GGUF file."""

    @property
    def path(self) -> str: ...

    @property
    def kv(self) -> Mapping[str, object]: ...

    @property
    def architecture(self) -> str: ...

    @property
    def tensors(self) -> Sequence[HeaderTensor]: ...

    def number(self, key: str) -> int | None: ...


class Misfit(NamedTuple):
    """Why a start would fail: one sentence, the file and what was found in it, and what to use instead."""

    message: str
    detail: str
    hint: str


def model_misfit(parts: Sequence[Header], kind: Kind) -> Misfit | None:
    """Return the reason why a build of this kind cannot load a model; None when nothing speaks against it."""
    header = parts[0]
    if header.architecture == "clip":
        hint = "set `model` to the language model, and this file as `multimodal.mmproj`"
        return Misfit("the model is a projector", f"{header.path}: architecture clip", hint)

    if header.kv.get("general.type") == "adapter":
        hint = "set `model` to the base model, and this file in `lora.adapters`"
        return Misfit("the model is a LoRA adapter", f"{header.path}: general.type is adapter", hint)

    return _type_misfit(parts, kind) or _layout_misfit(parts)


def projector_misfit(model: Header, projector: Header) -> Misfit | None:
    """Return the reason why a projector does not belong to a model."""
    if projector.architecture != "clip":
        hint = "a projector's file is usually called `mmproj-...gguf`, and is published with its model"
        return Misfit("`multimodal.mmproj` is no projector", f"{projector.path}: {_what(projector)}", hint)

    width = model.number("embedding_length")
    leading = [tensor for tensor in projector.tensors if tensor.name.startswith(_PROJECTOR_TENSORS)]
    widths = {dimension for tensor in leading for dimension in tensor.shape}
    if width is None or not widths or any(each % width == 0 for each in widths):
        return None

    made_for = projector.kv.get("clip.vision.projection_dim") or projector.kv.get("clip.audio.projection_dim")
    found = f"made for a model of width {made_for}" if isinstance(made_for, int) else "made for another width"
    return Misfit(
        "the projector is of another model",
        f"{projector.path}: {found}; {model.path} is {model.architecture} of width {width}",
        "use the projector that was published with the model",
    )


def drafter_misfit(model: Header, drafter: Header) -> Misfit | None:
    """Return the reason why a draft model cannot draft for a model: its tokens are others."""
    ours, theirs = _Vocabulary.of(model), _Vocabulary.of(drafter)
    reason = None
    if ours.model and theirs.model and ours.model != theirs.model:
        reason = f"its tokenizer is {theirs.model}, the model's is {ours.model}"
    elif ours.tokens and theirs.tokens and abs(ours.tokens - theirs.tokens) > MAX_VOCABULARY_DIFFERENCE:
        reason = f"it has {theirs.tokens} tokens, the model has {ours.tokens}"
    else:
        reason = _special_misfit(ours, theirs)

    if reason is None:
        return None

    return Misfit(
        "the draft model has another vocabulary than the model",
        f"{drafter.path}: {reason}",
        "take a small model of the same family, with the same tokenizer, or leave speculative.draft_model out",
    )


def mtp_drafter_misfit(model: Header, drafter: Header) -> Misfit | None:
    """Return the reason why a file of its own cannot draft with MTP for a model.

    It is an assistant (Gemma 4), whose `embedding_length_out` is the model's width, or a model's MTP layers in a file
    apart (Step, Qwen), of the model's own width.
    """
    assistant = drafter.architecture.endswith(("assistant", "-mtp", "_mtp"))
    reads = drafter.number("embedding_length_out" if assistant else "embedding_length")
    width = model.number("embedding_length")
    if not assistant and not drafter.number("nextn_predict_layers"):
        reason = "is no head: it has no MTP layers and is no assistant"
        hint = 'a small model drafts with `speculative.type = "draft"`; for MTP take the head published with this model'
    elif reads is not None and width is not None and reads != width:
        reason = f"is made for a model of width {reads}, and the model's is {width}"
        hint = "take the head that was published with the model"
    else:
        return None

    own = ", or leave speculative.draft_model out: the model has a head of its own"
    return Misfit(
        f"the file that is to draft with MTP {reason}",
        f"{drafter.path}: {_what(drafter)}; {model.path}: {_what(model)}",
        hint + (own if model.number("nextn_predict_layers") else ""),
    )


def adapter_misfit(model: Header, adapter: Header) -> Misfit | None:
    """Return the reason why a LoRA adapter cannot be laid over a model."""
    kind = adapter.kv.get("general.type")
    if kind != "adapter":
        hint = "convert it with `convert_lora_to_gguf.py` of llama.cpp"
        return Misfit("`lora.adapters` names a file that is no adapter", f"{adapter.path}: {_what(adapter)}", hint)

    if adapter.architecture and model.architecture and adapter.architecture != model.architecture:
        return Misfit(
            "the LoRA adapter is of another model",
            f"{adapter.path}: for {adapter.architecture}; {model.path} is {model.architecture}",
            "use an adapter that was trained on this model",
        )

    return None


class _Vocabulary(NamedTuple):
    model: str | None
    tokens: int | None
    ids: dict[str, int]
    adds: dict[str, bool]

    @classmethod
    def of(cls, header: Header) -> _Vocabulary:
        kv = header.kv
        model = kv.get("tokenizer.ggml.model")
        names = ("bos", "eos")
        ids = {name: kv.get(f"tokenizer.ggml.{name}_token_id") for name in names}
        adds = {name: kv.get(f"tokenizer.ggml.add_{name}_token") for name in names}
        return cls(
            model if isinstance(model, str) else None,
            getattr(kv.get("tokenizer.ggml.tokens"), "length", None),
            {name: value for name, value in ids.items() if isinstance(value, int)},
            {name: value for name, value in adds.items() if isinstance(value, bool)},
        )


def _special_misfit(ours: _Vocabulary, theirs: _Vocabulary) -> str | None:
    """Return the difference in the tokens that the engine itself adds: it compares those alone."""
    for name in ("bos", "eos"):
        ours_adds, theirs_adds = ours.adds.get(name), theirs.adds.get(name)
        if ours_adds is None or theirs_adds is None:
            continue

        if ours_adds != theirs_adds:
            return f"it {'adds' if theirs_adds else 'adds no'} {name.upper()} token, unlike the model"

        same = ours.ids.get(name) == theirs.ids.get(name)
        if ours_adds and not same and name in ours.ids and name in theirs.ids:
            return f"its {name.upper()} token is {theirs.ids[name]}, the model's is {ours.ids[name]}"

    return None


def _type_misfit(parts: Iterable[Header], kind: Kind) -> Misfit | None:
    for header in parts:
        for tensor in header.tensors:
            if not may_load(kind, tensor.type):
                named = type_name(tensor.type)
                number = "" if named == f"type {tensor.type}" else f", type {tensor.type}"
                detail = f"{header.path}: tensor `{tensor.name}` is {named}{number}"
                return Misfit("the engine cannot read this quantisation", detail, type_advice(tensor.type, kind))

    return None


def _layout_misfit(parts: Iterable[Header]) -> Misfit | None:
    """Return the misfit of a file whose q2_0 has other blocks than upstream's: another fork uses its number."""
    for header in parts:
        alignment = header.kv.get("general.alignment", 32)
        padding = alignment if isinstance(alignment, int) else 32
        for tensor in header.tensors:
            values = 1
            for dimension in tensor.shape:
                values *= dimension

            needed = values // Q2_0_BLOCK * Q2_0_BLOCK_BYTES
            if tensor.type == Q2_0 and not needed <= tensor.size_bytes < needed + padding:
                found = f"{tensor.size_bytes} bytes, q2_0 takes {needed}"
                return Misfit(
                    "the engine cannot read this quantisation",
                    f"{header.path}: tensor `{tensor.name}` has {found}",
                    "another fork wrote its own q2_0: the file is whole, take another quantisation of the model",
                )

    return None


def _what(header: Header) -> str:
    kind = header.kv.get("general.type")
    return f"{header.architecture or 'no architecture'}{f', a {kind}' if isinstance(kind, str) else ''}"
