"""What of a model's header decides its memory: sizes of its layers, its tensors by layer, its caches and states."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from orchestrator.core.dialect.model_fit import Header, HeaderTensor
from orchestrator.core.dialect.tensor_types import TENSOR_TYPES, type_name
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.memory.architectures import (
    MEASURED,
    RecurrentState,
    count_of,
    gated_attention,
    latent_attention,
    layers_without_cache,
    per_layer,
    recurrent_layers,
    recurrent_state,
    unplanned_cache,
    window_layers,
)

P = ParamSpec("P")
T = TypeVar("T")

MAX_SIZE = 1 << 20
"""More blocks, or a wider model, is a header that lies."""

ALIGNMENT = 128
"""Bytes to which a device's allocator rounds a tensor."""

MAIN_SHARE = 0.1

_ROW = 512
"""Values to which a device completes quantised rows (`MATRIX_ROW_PADDING` of the CUDA back end; RPC asks it)."""

_LAYER = re.compile(r"blk\.(\d+)\.(.*)")
_EXPERTS = re.compile(r"ffn_(?:up|down|gate|gate_up)_(?:ch|)exps")
"""What `--n-cpu-moe` places: `common.h` of both engines, biases included."""

_INPUTS = ("token_embd.", "token_types", "position_embd", "per_layer_token_embd", "masked_embd")
"""Beginnings of tensors that are read by rows and stay on the host."""

_SHARED = "rope_"
"""Tensors of which each device with layers has a copy."""

_FIRST = ("token_embd_norm", "per_layer_", "hrm.")
"""Tensors that are placed with the first layer; except where the norm is another one's wrong name."""

_DENSE_FFN = re.compile(r"ffn_(?:up|down|gate|gate_up)\.")


class GeometryError(OrchError):
    """Raised when a header does not say what a plan needs; says which key."""


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """One block of the model.

    :param gated: whether a dense feed-forward network has a gate beside what goes up, also as one tensor
    :param weights_bytes: of all its tensors, each rounded up to the allocator's alignment
    :param weights_padding: what a device adds: it completes quantised rows to 512 values
    :param expert_bytes: the part of it that `--n-cpu-moe` places
    :param ffn_bytes: the part of it that is a dense feed-forward network
    :param expert_tensors: bytes of each tensor of experts, without biases
    :param largest_bytes: its largest tensor
    """

    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    feed_forward: int
    gated: bool
    window: bool
    recurrent: bool
    weights_bytes: int
    weights_padding: int
    expert_bytes: int
    expert_padding: int
    ffn_bytes: int
    ffn_padding: int
    expert_tensors: tuple[int, ...]
    expert_bias_bytes: int
    tensors: tuple[int, ...]

    @property
    def expert_biases(self) -> bool:
        return self.expert_bias_bytes > 0

    @property
    def attends(self) -> bool:
        return not self.recurrent and self.kv_heads > 0

    @property
    def key_width(self) -> int:
        return self.key_length * self.kv_heads

    @property
    def value_width(self) -> int:
        return self.value_length * self.kv_heads


@dataclass(frozen=True, eq=False)
class Geometry:
    """A model, as far as its memory goes; compared by identity, so that it is quickly told from others.

    :param layers: all blocks, those of MTP last
    :param mtp_blocks: how many of the layers are for MTP
    :param window: tokens of the sliding window, 0 without
    :param layer_inputs: values of a token's own inputs of all layers together
    :param state: what a recurrent layer keeps; None without such layers
    :param input_bytes: token embeddings and what else stays on the host
    :param output_bytes: the output layer's tensors; with tied embeddings, their copy is one of them
    :param tied_bytes: that copy, which the host does not need; 0 where the output has weights of its own
    :param measured: whether the compute buffers of this architecture were compared with upstream's
    :param gaps: what no rule covers: cache, state, types of tensors
    :param tensor_types: those that hold a tenth of the weights or more, sorted
    """

    architecture: str
    name: str
    layers: tuple[LayerGeometry, ...]
    mtp_blocks: int
    embedding: int
    vocabulary: int
    trained_context: int
    experts: int
    experts_used: int
    expert_feed_forward: int
    window: int
    layer_inputs: int
    state: RecurrentState | None
    gated_attention: bool
    input_bytes: int
    output_bytes: int
    output_padding: int
    tied_bytes: int
    shared_bytes: int
    measured: bool
    gaps: tuple[str, ...] = ()
    unknown_types: tuple[int, ...] = ()
    tensor_types: tuple[str, ...] = ()

    @property
    def block_count(self) -> int:
        """All blocks, those of MTP included: what `--gpu-layers` counts upstream."""
        return len(self.layers)

    @property
    def tied(self) -> bool:
        return self.tied_bytes > 0

    @property
    def latent(self) -> bool:
        """True where values are part of the cached keys; which of them the fork keeps depends on its flags."""
        return any(layer.attends and not layer.value_width for layer in self.layers)

    @property
    def state_values(self) -> int:
        """32-bit values that a recurrent layer keeps for each sequence."""
        return self.state.values if self.state else 0

    @property
    def trunk(self) -> tuple[LayerGeometry, ...]:
        """The blocks without those of MTP."""
        return self.layers[: len(self.layers) - self.mtp_blocks]

    @property
    def mtp(self) -> tuple[LayerGeometry, ...]:
        return self.layers[len(self.layers) - self.mtp_blocks :]

    @cached_property
    def kept(self) -> dict[object, object]:
        """What was computed of this model and is asked for again while its plans are made (`kept_of_geometry`)."""
        return {}

    @cached_property
    def expert_layers(self) -> tuple[int, ...]:
        """Indices of the blocks with experts, those of MTP left out."""
        return tuple(index for index, layer in enumerate(self.trunk) if layer.expert_bytes)

    @cached_property
    def attention_groups(self) -> tuple[tuple[bool, int, int, int], ...]:
        """Attention layers of the trunk that are alike: window, key width, value width, how many."""
        found: dict[tuple[bool, int, int], int] = defaultdict(int)
        for layer in self.trunk:
            if layer.attends:
                found[layer.window, layer.key_width, layer.value_width] += 1

        return tuple((*key, count) for key, count in found.items())


def kept_of_geometry(
    work: Callable[Concatenate[Geometry, P], T],
) -> Callable[Concatenate[Geometry, P], T]:
    """Return a function of a geometry that keeps its results with that, so as long as it lives and no longer."""

    @wraps(work)
    def asked(geometry: Geometry, /, *args: P.args, **named: P.kwargs) -> T:
        key = (work, args, tuple(named.items()))
        kept = cast("dict[object, T]", geometry.kept)
        if key not in kept:
            kept[key] = work(geometry, *args, **named)

        return kept[key]

    return asked


def geometry_of(parts: Sequence[Header]) -> Geometry:
    """Return the geometry of a model in one file or several.

    :raises GeometryError: when a key is missing without which nothing can be said
    """
    header = parts[0]
    tensors = [tensor for part in parts for tensor in part.tensors]
    count, embedding = _needed(header, "block_count"), _needed(header, "embedding_length")
    by_layer, rest = _sorted(tensors, count, misnamed=header.architecture.startswith("lfm2"))
    told = count_of(header, "nextn_predict_layers") or 0
    mtp = told if told < count else 0
    heads = per_layer(header, "attention.head_count", count) or [0] * count
    kv_heads = per_layer(header, "attention.head_count_kv", count) or heads
    feed_forward = per_layer(header, "feed_forward_length", count) or [0] * count
    most = max(heads)
    key_length = count_of(header, "attention.key_length") or (embedding // most if most else 0)
    value_length = count_of(header, "attention.value_length") or (embedding // most if most else 0)
    window, windows = window_layers(header, count, mtp)
    recurrent = recurrent_layers(header, count, mtp, [kv == 0 for kv in kv_heads])
    borrowing = layers_without_cache(header, count)
    latent = latent_attention(header)
    gaps = list(unplanned_cache(header))
    state = recurrent_state(header) if any(recurrent) else None
    if any(recurrent) and state is None:
        gaps.append("the recurrent state")

    layers = []
    for index, own in enumerate(by_layer):
        short = windows[index]
        key = (count_of(header, "attention.key_length_swa") if short else None) or key_length
        value = (count_of(header, "attention.value_length_swa") if short else None) or value_length
        layers.append(
            _layer(
                own,
                heads=heads[index],
                kv_heads=0 if index in borrowing else kv_heads[index],
                key_length=key,
                value_length=0 if latent else value,
                feed_forward=feed_forward[index],
                window=short,
                recurrent=recurrent[index],
            )
        )

    embeddings = rest.pop("token_embd.weight", None)
    vocabulary = (
        embeddings.shape[1] if embeddings and len(embeddings.shape) > 1 else count_of(header, "vocab_size") or 0
    )
    output = rest.get("output.weight")
    last = [tensor for name, tensor in rest.items() if not name.startswith((*_INPUTS, _SHARED))]
    input_bytes = padded(embeddings.size_bytes) if embeddings else 0
    tied_bytes = 0
    if output is None and embeddings:
        tied_bytes = input_bytes
        last.append(embeddings)

    host = sum(padded(tensor.size_bytes) for name, tensor in rest.items() if name.startswith(_INPUTS))
    shared = sum(padded(tensor.size_bytes) for name, tensor in rest.items() if name.startswith(_SHARED))
    types = sorted({tensor.type for tensor in tensors if tensor.type not in TENSOR_TYPES})
    title = header.kv.get("general.name")
    return Geometry(
        architecture=header.architecture,
        name=title if isinstance(title, str) else "",
        layers=tuple(layers),
        mtp_blocks=mtp,
        embedding=embedding,
        vocabulary=vocabulary,
        trained_context=count_of(header, "context_length") or 0,
        experts=count_of(header, "expert_count") or 0,
        experts_used=count_of(header, "expert_used_count") or 0,
        expert_feed_forward=count_of(header, "expert_feed_forward_length") or 0,
        window=window,
        layer_inputs=count * (count_of(header, "embedding_length_per_layer_input") or 0),
        state=state,
        gated_attention=gated_attention(header.architecture),
        input_bytes=input_bytes + host,
        output_bytes=sum(padded(tensor.size_bytes) for tensor in last),
        output_padding=sum(map(row_padding, last)),
        tied_bytes=tied_bytes,
        shared_bytes=shared,
        measured=header.architecture in MEASURED,
        gaps=tuple(gaps),
        unknown_types=tuple(types),
        tensor_types=_main_types(tensors),
    )


def _main_types(tensors: Sequence[HeaderTensor]) -> tuple[str, ...]:
    sizes: dict[int, int] = defaultdict(int)
    for tensor in tensors:
        sizes[tensor.type] += tensor.size_bytes

    whole = sum(sizes.values())
    return tuple(sorted(type_name(number) for number, size in sizes.items() if size >= MAIN_SHARE * whole))


def padded(size_bytes: int) -> int:
    """Return a tensor's size with the allocator's padding."""
    return size_bytes + -size_bytes % ALIGNMENT


def row_padding(tensor: HeaderTensor) -> int:
    """Return what a device adds to a tensor: it completes quantised rows to 512 values."""
    known = TENSOR_TYPES.get(tensor.type)
    if known is None or known.block == 1 or not tensor.shape or tensor.shape[0] % _ROW == 0:
        return 0

    extra = (_ROW - tensor.shape[0] % _ROW) // known.block * known.block_bytes
    return padded(tensor.size_bytes + extra) - padded(tensor.size_bytes)


def _sorted(
    tensors: Sequence[HeaderTensor], count: int, *, misnamed: bool
) -> tuple[list[list[HeaderTensor]], dict[str, HeaderTensor]]:
    """Return the tensors of each layer, and the others.

    :param misnamed: whether the norm of the output is called that of the embeddings
    """
    by_layer: list[list[HeaderTensor]] = [[] for _ in range(count)]
    rest = {}
    for tensor in tensors:
        found = _LAYER.fullmatch(tensor.name)
        if found and int(found[1]) < count:
            by_layer[int(found[1])].append(tensor)
        elif tensor.name.startswith(_FIRST) and not tensor.name.startswith(_INPUTS) and not misnamed:
            by_layer[0].append(tensor)
        else:
            rest[tensor.name] = tensor

    return by_layer, rest


def _layer(
    tensors: Sequence[HeaderTensor],
    *,
    heads: int,
    kv_heads: int,
    key_length: int,
    value_length: int,
    feed_forward: int,
    window: bool,
    recurrent: bool,
) -> LayerGeometry:
    sizes = {tensor.name: padded(tensor.size_bytes) for tensor in tensors}
    paddings = {tensor.name: row_padding(tensor) for tensor in tensors}
    experts = {name: size for name, size in sizes.items() if _EXPERTS.search(name)}
    dense = [name for name in sizes if _DENSE_FFN.search(name)]
    return LayerGeometry(
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        feed_forward=feed_forward,
        gated=any(".ffn_gate." in tensor.name or tensor.shape[-1] == 2 * feed_forward for tensor in tensors),
        window=window,
        recurrent=recurrent,
        weights_bytes=sum(sizes.values()),
        weights_padding=sum(paddings.values()),
        expert_bytes=sum(experts.values()),
        expert_padding=sum(paddings[name] for name in experts),
        ffn_bytes=sum(sizes[name] for name in dense),
        ffn_padding=sum(paddings[name] for name in dense),
        expert_tensors=tuple(size for name, size in experts.items() if name.endswith(".weight")),
        expert_bias_bytes=sum(size for name, size in experts.items() if name.endswith(".bias")),
        tensors=tuple(size for name, size in sizes.items() if name.endswith(".weight") and name not in experts),
    )


def _needed(header: Header, key: str) -> int:
    value = header.number(key)
    if value is None or not 0 < value <= MAX_SIZE:
        found = header.kv.get(f"{header.architecture}.{key}")
        raise GeometryError(
            "the model's header does not say how large it is",
            details=(
                f"{header.path}: {header.architecture or 'no architecture'}.{key} is {found!r}; a number is needed",
            ),
            hint="take another copy of the model; a projector or an adapter cannot be planned",
        )

    return value
