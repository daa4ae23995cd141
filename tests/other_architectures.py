"""Headers of architectures beside those of `tests/true_geometry.py`: plausible sizes, tensors as the engine wants them.

Each was loaded by upstream b11434 from a file that holds no weights; what it reserved is among the measured rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tests.true_geometry import TYPE_NUMBERS, TrueHeader, TrueTensor, nbytes

_SIZES: dict[str, Any] = {
    "layers": 32, "embd": 4096, "heads": 32, "kv": 8, "head": 128, "ff": 14336, "vocab": 64000, "ctx": 131072,
}  # fmt: skip
_SMALL_EXPERTS: dict[str, Any] = {"embd": 2048, "heads": 16, "kv": 16, "ff": 0, "experts": 64, "ff_exp": 1408}


def _sizes(**numbers: Any) -> dict[str, Any]:
    return {**_SIZES, **numbers}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "arcee": _sizes(gate=False),
    "bailingmoe": _sizes(**{**_SMALL_EXPERTS, "kv": 4}, used=6, ff_shexp=2816),
    "cohere2": _sizes(norms="parallel", tied=True, window=4096),
    "command-r": _sizes(norms="parallel", tied=True),
    "deepseek": _sizes(**{**_SMALL_EXPERTS, "ff": 10944}, used=6, ff_shexp=2816, lead=1),
    "dots1": _sizes(norms="heads", experts=128, used=6, ff_exp=1408, ff_shexp=2816, ff=10944, lead=1, kv=32,
                    bias_exps=1),
    "ernie4_5": _sizes(),
    "exaone": _sizes(),
    "gemma2": _sizes(window=4096, norms="both", tied=True),
    "glm4": _sizes(norms="both", fused_up=True),
    "glm4moe": _sizes(norms="glm4moe", experts=128, used=8, ff_exp=1408, ff_shexp=1408, ff=10944, lead=1, heads=96,
                      bias_exps=1),
    "granite": _sizes(),
    "granitemoe": _sizes(embd=1536, heads=24, head=64, ff=512, experts=40, used=8, ff_exp=512),
    "internlm2": _sizes(fused_qkv=True),
    "llama": _sizes(experts=8, used=2, ff_exp=14336),
    "minicpm": _sizes(),
    "mistral3": _sizes(),
    "nemotron": _sizes(gate=False, norms="biased"),
    "olmo2": _sizes(norms="after"),
    "olmoe": _sizes(**{**_SMALL_EXPERTS, "ff_exp": 1024}, used=8, norms="wide"),
    "qwen2moe": _sizes(**{**_SMALL_EXPERTS, "experts": 60}, used=4, ff_shexp=5632, bias=True, gate_shexp=1),
    "qwen2vl": _sizes(bias=True),
    "qwen3vl": _sizes(norms="heads"),
    "seed_oss": _sizes(norms="seed"),
    "smollm3": _sizes(),
    "stablelm": _sizes(norms="biased"),
    "starcoder2": _sizes(gate=False, norms="biased", bias=True, bias_out=1),
}  # fmt: skip


@lru_cache(maxsize=64)
def other_header(architecture: str) -> TrueHeader:
    """Return an architecture's header, in memory."""
    sizes = ARCHITECTURES[architecture]
    keys = {
        "block_count": sizes["layers"], "context_length": sizes["ctx"], "embedding_length": sizes["embd"],
        "attention.head_count": sizes["heads"], "attention.head_count_kv": sizes["kv"],
        "attention.key_length": sizes["head"], "attention.value_length": sizes["head"],
        "feed_forward_length": sizes["ff"] or sizes["ff_exp"], "vocab_size": sizes["vocab"],
        "attention.sliding_window": sizes.get("window"), "expert_count": sizes.get("experts"),
        "expert_used_count": sizes.get("used"), "expert_feed_forward_length": sizes.get("ff_exp"),
    }  # fmt: skip
    kv: dict[str, object] = {f"{architecture}.{key}": value for key, value in keys.items() if value is not None}
    tensors = tuple(
        TrueTensor(name, shape, TYPE_NUMBERS[kind], nbytes(kind, shape)) for name, shape, kind in _tensors(sizes)
    )
    return TrueHeader(f"{architecture}.gguf", {"general.architecture": architecture, **kv}, tensors)


def _tensors(sizes: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], str]]:
    width, norms = sizes["embd"], sizes.get("norms")
    tied = sizes.get("tied")
    yield "token_embd.weight", (width, sizes["vocab"]), "q6_k" if tied else "q4_k"
    yield "output_norm.weight", (width,), "f32"
    if norms == "biased":
        yield "output_norm.bias", (width,), "f32"

    if not tied:
        yield "output.weight", (width, sizes["vocab"]), "q6_k"

    for index in range(sizes["layers"]):
        for name, shape in (*_attention(sizes), *_feed_forward(sizes, index)):
            small = name.endswith(".bias") or "norm" in name or "gate_inp" in name
            kind = "f32" if small else "q4_k" if shape[0] % 256 == 0 else "q8_0"
            yield f"blk.{index}.{name}", shape, kind


def _attention(sizes: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, norms, head = sizes["embd"], sizes.get("norms"), sizes["head"]
    queries, keys = sizes["heads"] * head, sizes["kv"] * head
    if norms != "after":
        yield "attn_norm.weight", (width,)

    if norms == "biased":
        yield "attn_norm.bias", (width,)
        yield "ffn_norm.bias", (width,)

    if sizes.get("fused_qkv"):
        yield "attn_qkv.weight", (width, queries + 2 * keys)
    else:
        yield from ((f"attn_{name}.weight", (width, rows)) for name, rows in (("q", queries), ("k", keys), ("v", keys)))

    if sizes.get("bias"):
        yield from ((f"attn_{name}.bias", (rows,)) for name, rows in (("q", queries), ("k", keys), ("v", keys)))

    yield "attn_output.weight", (queries, width)
    if sizes.get("bias_out"):
        yield "attn_output.bias", (width,)

    normed = {"heads": (head, head), "glm4moe": (head, head), "after": (width, keys), "wide": (width, width)}
    if norms in normed:
        yield "attn_q_norm.weight", (normed[norms][0],)
        yield "attn_k_norm.weight", (normed[norms][1],)

    if norms in ("both", "seed", "after", "glm4moe"):
        yield "post_attention_norm.weight", (width,)

    if norms in ("both", "after"):
        yield "post_ffw_norm.weight", (width,)

    if norms not in ("parallel", "seed", "after", "glm4moe"):
        yield "ffn_norm.weight", (width,)


def _feed_forward(sizes: dict[str, Any], index: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = sizes["embd"], sizes["ff"]
    experts = sizes.get("experts")
    if experts and index >= sizes.get("lead", 0):
        inner, shared = sizes["ff_exp"], sizes.get("ff_shexp")
        yield "ffn_gate_inp.weight", (width, experts)
        if sizes.get("bias_exps"):
            yield "exp_probs_b.bias", (experts,)

        yield from ((f"ffn_{name}_exps.weight", (width, inner, experts)) for name in ("gate", "up"))
        yield "ffn_down_exps.weight", (inner, width, experts)
        if sizes.get("gate_shexp"):
            yield "ffn_gate_inp_shexp.weight", (width,)

        if shared:
            yield from ((f"ffn_{name}_shexp.weight", (width, shared)) for name in ("gate", "up"))
            yield "ffn_down_shexp.weight", (shared, width)

        return

    if sizes.get("gate", True) and not sizes.get("fused_up"):
        yield "ffn_gate.weight", (width, inner)

    yield "ffn_up.weight", (width, 2 * inner if sizes.get("fused_up") else inner)
    yield "ffn_down.weight", (inner, width)
    if sizes.get("bias_out"):
        yield "ffn_up.bias", (inner,)
        yield "ffn_down.bias", (width,)
