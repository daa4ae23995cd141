"""Headers of architectures beside those of `tests/true_geometry.py`: plausible sizes, tensors as the engine wants them.

Each was loaded by upstream b11434 from a file that holds no weights; what it reserved is among the measured rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tests.true_geometry import GEOMETRY, TYPE_NUMBERS, TrueHeader, TrueTensor, header, nbytes

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


GEMMA4: dict[str, dict[str, int]] = {
    "gemma4-31b": {"layers": 60, "embd": 5376, "heads": 32, "kv": 4, "kv_window": 16, "ff": 21504, "window": 1024},
    "gemma4-e4b": {"layers": 42, "embd": 2560, "heads": 8, "kv": 2, "kv_window": 2, "ff": 10240, "window": 512,
                   "own": 256, "shared": 18},
    "gemma4-26b": {"layers": 30, "embd": 2816, "heads": 16, "kv": 2, "kv_window": 8, "ff": 2112, "window": 1024,
                   "experts": 128, "used": 8, "ff_exp": 704},
}  # fmt: skip


@lru_cache(maxsize=64)
def other_header(architecture: str) -> TrueHeader:
    """Return an architecture's header, in memory."""
    if architecture in GEMMA4:
        return _gemma4(architecture, GEMMA4[architecture])

    if architecture == "qwen3next":
        return _qwen3next()

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


def _qwen3next() -> TrueHeader:
    """As Qwen3.6-35B-A3B, deeper, with more experts, and one projection where that has two."""
    model = GEOMETRY["qwen36-35b-a3b"]
    name = "qwen3next"
    GEOMETRY[name] = {**model, "layers": 48, "experts": 512, "used": 10, "vocab": 151936, "mtp": 0}
    made = header(name, "q4_k_m")
    tensors = [
        each
        if ".ssm_beta." not in each.name
        else TrueTensor(each.name, (each.shape[0], 64), each.type, 2 * each.size_bytes)
        for each in made.tensors
        if ".ssm_alpha." not in each.name
    ]
    del GEOMETRY[name]
    kv = {key.replace(made.architecture, name): value for key, value in made.kv.items()}
    return TrueHeader(f"{name}.gguf", {**kv, "general.architecture": name}, tuple(tensors))


def _gemma4(name: str, sizes: dict[str, int]) -> TrueHeader:
    width, layers, vocab, own = sizes["embd"], sizes["layers"], 262144, sizes.get("own", 0)
    windows = [(index + 1) % 6 != 0 for index in range(layers)]
    found: list[tuple[str, tuple[int, ...], str]] = [
        ("token_embd.weight", (width, vocab), "q6_k"), ("output_norm.weight", (width,), "f32"),
        ("rope_freqs.weight", (256,), "f32"),
    ]  # fmt: skip
    if own:
        found.append(("per_layer_token_embd.weight", (own * layers, vocab), "q4_k"))
        found.append(("per_layer_model_proj.weight", (width, own * layers), "f16"))
        found.append(("per_layer_proj_norm.weight", (own,), "f32"))

    for index, short in enumerate(windows):
        head, kv = (256, sizes["kv_window"]) if short else (512, sizes["kv"])
        queries, inner = sizes["heads"] * head, sizes["ff"]
        shapes = {"attn_q": (width, queries), "attn_output": (queries, width), "ffn_gate": (width, inner),
                  "ffn_up": (width, inner), "ffn_down": (inner, width)}  # fmt: skip
        norms = {"attn_norm": width, "attn_q_norm": head, "post_attention_norm": width, "ffn_norm": width,
                 "post_ffw_norm": width}  # fmt: skip
        if index < layers - sizes.get("shared", 0):
            shapes |= {"attn_k": (width, kv * head), "attn_v": (width, kv * head)}
            norms["attn_k_norm"] = head

        if own:
            shapes |= {"inp_gate": (width, own), "proj": (own, width)}
            norms["post_norm"] = width

        experts: dict[str, tuple[int, ...]] = {}
        if count := sizes.get("experts"):
            inner = sizes["ff_exp"]
            experts = {"ffn_gate_up_exps": (width, 2 * inner, count), "ffn_down_exps": (inner, width, count)}
            norms |= {"pre_ffw_norm_2": width, "post_ffw_norm_1": width, "post_ffw_norm_2": width}
            found.append((f"blk.{index}.ffn_gate_inp.weight", (width, count), "f32"))
            found.append((f"blk.{index}.ffn_gate_inp.scale", (width,), "f32"))
            found.append((f"blk.{index}.ffn_down_exps.scale", (count,), "f32"))

        found += [(f"blk.{index}.{each}.weight", (rows,), "f32") for each, rows in norms.items()]
        for each, shape in {**shapes, **experts}.items():
            found.append((f"blk.{index}.{each}.weight", shape, "q4_k" if shape[0] % 256 == 0 else "q8_0"))

    keys = {
        "block_count": layers, "context_length": 262144, "embedding_length": width, "vocab_size": vocab,
        "feed_forward_length": sizes["ff"], "attention.head_count": sizes["heads"],
        "attention.head_count_kv": [sizes["kv_window"] if short else sizes["kv"] for short in windows],
        "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
        "attention.value_length_swa": 256, "attention.sliding_window": sizes["window"],
        "attention.sliding_window_pattern": windows, "attention.shared_kv_layers": sizes.get("shared", 0),
        "embedding_length_per_layer_input": own, "expert_count": sizes.get("experts", 0),
        "expert_used_count": sizes.get("used", 0), "expert_feed_forward_length": sizes.get("ff_exp", 0),
    }  # fmt: skip
    kv_pairs: dict[str, object] = {f"gemma4.{key}": value for key, value in keys.items()}
    tensors = tuple(TrueTensor(each, shape, TYPE_NUMBERS[kind], nbytes(kind, shape)) for each, shape, kind in found)
    return TrueHeader(f"{name}.gguf", {"general.architecture": "gemma4", **kv_pairs}, tensors)
