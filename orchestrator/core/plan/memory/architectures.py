"""Which layers of an architecture have a window, a recurrent state, or a cache that no rule here covers.

Sources: upstream's `src/models/*.cpp`, `llama-hparams.cpp` and `llama-model.cpp` (b11434).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.core.dialect.model_fit import Header

MEASURED = frozenset({
    "arcee", "bailingmoe", "deepseek", "dots1", "ernie4_5", "exaone", "gemma2", "gemma3", "gemma4", "glm4", "glm4moe",
    "gpt-oss", "granite", "granitemoe", "internlm2", "lfm2", "llama", "minicpm", "mistral3", "nemotron", "olmo2",
    "olmoe", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl",
    "seed_oss", "stablelm", "starcoder2",
})  # fmt: skip
"""Architectures whose compute buffers were compared with those that upstream reserves."""

MEASURED_FORK = frozenset({"gemma3", "gpt-oss", "llama", "qwen2", "qwen3", "qwen35", "qwen35moe", "qwen3moe"})
"""The same, with the fork."""

MAX_COUNT = 1 << 40
"""No size of a model is larger: a header that says so lies."""

_PLAIN = MEASURED | {
    "apertus", "baichuan", "bailingmoe2", "bitnet", "bloom", "chameleon", "codeshell", "command-r", "dbrx", "deci",
    "ernie4_5-moe", "falcon", "gemma", "gpt2", "gptneox", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe", "jais",
    "llada", "llada-moe", "maincoder", "minimax-m2", "mpt", "olmo", "openelm", "orion", "phi2", "phi3", "phimoe",
    "plamo", "qwen", "qwen3vlmoe", "refact", "smollm3", "starcoder", "xverse",
}  # fmt: skip
"""Keys and values of every layer in one cache over the whole context."""

_WINDOWS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2, "olmo2": 4, "afmoe": 4, "mellum": 4, "plamo3": 8,
            "smallthinker": 4, "gemma3n": 5, "llama4": 4, "exaone4": 4, "gemma4": 0, "granite_swa": 0, "mimo2": 0,
            "step35": 0}  # fmt: skip
"""Every so many layers one sees the whole context; 0 where the header lists the layers."""

_FULL_FIRST = frozenset({"smallthinker"})
_OWN_WINDOW = {"gemma2": 4096, "smallthinker": 4096, "llama4": 8192, "exaone4": 4096}

_INTERVALS = frozenset({"qwen3next", "qwen35", "qwen35moe"})
_HYBRID = frozenset({"granitehybrid", "jamba", "lfm2", "lfm2moe", "kimi-linear"})
"""Layers without KV heads are recurrent."""

_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_LATENT = frozenset({"deepseek2", "mistral4"})
"""Keys and values from one latent row, when the header has the lengths for it."""

_GATED = frozenset({"qwen3next", "qwen35", "qwen35moe"})


def count_of(header: Header, key: str) -> int | None:
    """Return a number of the header that can be one of its sizes; None when it is absent or cannot be one."""
    value = header.number(key)
    return value if value is not None and 0 <= value <= MAX_COUNT else None


def gated_attention(architecture: str) -> bool:
    """Return whether attention's queries come with gates of the same width."""
    return architecture in _GATED


def unplanned_cache(header: Header) -> tuple[str, ...]:
    """Return what of an architecture's cache no rule covers, in words; nothing when all is covered."""
    known = _PLAIN | _WINDOWS.keys() | _INTERVALS | _HYBRID | _RECURRENT
    name = header.architecture
    if name in known or (name in _LATENT and count_of(header, "attention.key_length_mla")):
        return ()

    return (f"the cache of the architecture {name or '(none)'}",)


def latent_attention(header: Header) -> bool:
    """Return whether the values are part of the cached keys, so that there is no cache of values."""
    return header.architecture in _LATENT and bool(count_of(header, "attention.key_length_mla"))


def window_layers(header: Header, count: int, mtp: int) -> tuple[int, list[bool]]:
    """Return the window, tokens, and for each layer whether its cache is limited to it."""
    name = header.architecture
    none = 0, [False] * count
    if name not in _WINDOWS:
        return none

    told = count_of(header, "attention.sliding_window")
    window = _OWN_WINDOW.get(name, 0) if told is None else told
    if name == "llama4":
        window = 0 if told == 0 else 8192
    elif name == "smallthinker":
        window = _OWN_WINDOW[name] if told else 0
    elif name == "exaone4" and count - mtp != 64:
        window = 0

    if not window:
        return none

    listed = _numbers(header, "attention.sliding_window_pattern")
    if listed is not None:
        return window, [bool(listed[index]) if index < len(listed) else False for index in range(count)]

    period = count_of(header, "attention.sliding_window_pattern")
    period = _WINDOWS[name] if period is None else period
    trunk = count - mtp
    if name in _FULL_FIRST:
        return window, [index < trunk and (not period or index % period != 0) for index in range(count)]

    return window, [index < trunk and (not period or index % period < period - 1) for index in range(count)]


def recurrent_layers(header: Header, count: int, mtp: int, without_heads: Sequence[bool]) -> list[bool]:
    """Return for each layer whether it keeps a recurrent state."""
    name = header.architecture
    if name in _INTERVALS:
        listed = _numbers(header, "attention.recurrent_layers")
        if listed is not None:
            return [bool(listed[index]) if index < len(listed) else False for index in range(count)]

        interval = count_of(header, "full_attention_interval") or 4
        return [index < count - mtp and (index + 1) % interval != 0 for index in range(count)]

    if name in _RECURRENT:
        return [True] * count

    return [name in _HYBRID and each for each in without_heads]


def layers_without_cache(header: Header, count: int) -> range:
    """Return the layers that use the cache of earlier ones."""
    if header.architecture == "gemma4":
        shared = count_of(header, "attention.shared_kv_layers") or 0
        return range(max(0, count - shared), count)

    return range(min(count, 20), count) if header.architecture == "gemma3n" else range(0)


class RecurrentState(NamedTuple):
    """32-bit values of a recurrent layer.

    :param convolution: inputs that its convolution keeps, for one sequence
    :param recurrence: its state, for one sequence
    :param row: what it holds for a token while it computes
    :param convolved: the part of the row that the convolution makes
    :param keys: the part of the row that is queries and keys, each with its own norm
    """

    convolution: int
    recurrence: int
    row: int = 0
    convolved: int = 0
    keys: int = 0

    @property
    def values(self) -> int:
        return self.convolution + self.recurrence


def recurrent_state(header: Header) -> RecurrentState | None:
    """Return what a recurrent layer keeps; None when no rule covers it."""

    def number(key: str) -> int | None:
        return count_of(header, key)

    embedding = number("embedding_length") or 0
    head, shortconv, kda = number("wkv.head_size"), number("shortconv.l_cache"), number("kda.head_dim")
    heads = number("attention.head_count") or 0
    if head:
        return RecurrentState((number("token_shift_count") or 2) * embedding, embedding * head)

    if shortconv:
        return RecurrentState(embedding * (shortconv - 1), 0)

    kernel = number("ssm.conv_kernel") or 0
    if kda:
        return RecurrentState(3 * (kernel - 1 if kernel else 3) * heads * kda, kda * kda * heads)

    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    if not inner or not state:
        return None

    keys = 2 * (number("ssm.group_count") or 0) * state
    convolved = inner + keys
    return RecurrentState(max(0, kernel - 1) * convolved, state * inner, 2 * inner + convolved + keys, convolved, keys)


def _numbers(header: Header, key: str) -> Sequence[int] | None:
    """A list of the header; also where the reader wraps it."""
    value = header.kv.get(f"{header.architecture}.{key}")
    values = getattr(value, "values", value)
    if not isinstance(values, tuple | list):
        return None

    return [int(min(max(each, 0), MAX_COUNT)) for each in values if isinstance(each, bool | int | float)]


def per_layer(header: Header, key: str, count: int) -> list[int] | None:
    """Return a number for each layer, from one number or from a list; None when the key is absent."""
    listed = _numbers(header, key)
    if listed is not None:
        return [listed[index] if index < len(listed) else 0 for index in range(count)]

    value = count_of(header, key)
    return None if value is None else [value] * count
