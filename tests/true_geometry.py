"""Headers with the true geometry of known models, in memory or as sparse files: every shape, type and key is right.

The weights of such a file are a hole: a 20 GB model takes a few MB of disk (its vocabulary), loads in every engine, and
reads as zeros. Geometry from the models' published configurations; names and shapes from llama.cpp's `src/models`.
Which tensor gets more bits follows the spirit of llama-quantize: sizes are within some per cent of published files.

    python -m tests.true_geometry OUTDIR NAME[:QUANT] ...
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.core.dialect.tensor_types import TENSOR_TYPES

ALIGN = 32

TYPE_NUMBERS = {known.name.lower(): number for number, known in TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class TrueTensor:
    """A tensor's description, as a reader of the file would give it."""

    name: str
    shape: tuple[int, ...]
    type: int
    size_bytes: int


@dataclass(frozen=True)
class TrueHeader:
    """A header in memory: what the reader would find in the file that `write` makes, without its vocabulary."""

    path: str
    kv: Mapping[str, object]
    tensors: tuple[TrueTensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.kv["general.architecture"])

    def number(self, key: str) -> int | None:
        value = self.kv.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def nbytes(kind: str, shape: tuple[int, ...]) -> int:
    known = TENSOR_TYPES[TYPE_NUMBERS[kind]]
    assert shape[0] % known.block == 0, (kind, shape)
    count = 1
    for each in shape:
        count *= each

    return count // known.block * known.block_bytes


def _model(**numbers: Any) -> dict[str, Any]:
    return numbers


GEOMETRY: dict[str, dict[str, Any]] = {
    # Qwen3.6-35B-A3B: 40 blocks, every 4th full attention, the rest gated delta net; one MTP block.
    "qwen36-35b-a3b": _model(arch="qwen35moe", layers=40, embd=2048, heads=16, kv=2, head=256, rope=64, ff=0,
        vocab=248320,
        ctx=262144, experts=256, used=8, ff_exp=512, ff_shexp=512, every=4, conv=4, state=128, groups=16, steps=32,
        mtp=1),
    # Qwen3.6-27B, dense, same hybrid.
    "qwen36-27b": _model(arch="qwen35", layers=64, embd=5120, heads=24, kv=4, head=256, rope=64, ff=17408, vocab=248320,
        ctx=262144, every=4, conv=4, state=128, groups=16, steps=48, mtp=1),
    "qwen35-9b": _model(arch="qwen35", layers=32, embd=4096, heads=16, kv=4, head=256, rope=64, ff=12288, vocab=248320,
        ctx=262144, every=4, conv=4, state=128, groups=16, steps=32, mtp=1),
    "llama31-8b": _model(arch="llama", layers=32, embd=4096, heads=32, kv=8, head=128, rope=128, ff=14336, vocab=128256,
        ctx=131072, rope_freqs=True),
    "llama32-3b": _model(arch="llama", layers=28, embd=3072, heads=24, kv=8, head=128, rope=128, ff=8192, vocab=128256,
        ctx=131072, rope_freqs=True, tied=True),
    "llama33-70b": _model(arch="llama", layers=80, embd=8192, heads=64, kv=8, head=128, rope=128, ff=28672,
        vocab=128256,
        ctx=131072, rope_freqs=True),
    # Sliding window in 5 of 6 layers.
    "gemma3-12b": _model(arch="gemma3", layers=48, embd=3840, heads=16, kv=8, head=256, rope=256, ff=15360,
        vocab=262208,
        ctx=131072, window=1024, tied=True),
    "gemma3-27b": _model(arch="gemma3", layers=62, embd=5376, heads=32, kv=16, head=128, rope=128, ff=21504,
        vocab=262208,
        ctx=131072, window=1024, tied=True),
    # Plain attention with experts.
    "qwen3-30b-a3b": _model(arch="qwen3moe", layers=48, embd=2048, heads=32, kv=4, head=128, rope=128, ff=6144,
        vocab=151936,
        ctx=40960, experts=128, used=8, ff_exp=768),
    # Sliding window in every second layer, attention sinks, experts in mxfp4.
    "gpt-oss-20b": _model(arch="gpt-oss", layers=24, embd=2880, heads=64, kv=8, head=64, rope=64, ff=2880, vocab=201088,
        ctx=131072, experts=32, used=4, ff_exp=2880, window=128),
    "qwen3-235b-a22b": _model(arch="qwen3moe", layers=94, embd=4096, heads=64, kv=4, head=128, rope=128, ff=12288,
        vocab=151936, ctx=40960, experts=128, used=8, ff_exp=1536),
    "qwen3-32b": _model(arch="qwen3", layers=64, embd=5120, heads=64, kv=8, head=128, rope=128, ff=25600, vocab=151936,
        ctx=40960),
    "qwen35-4b": _model(arch="qwen35", layers=32, embd=2560, heads=16, kv=4, head=256, rope=64, ff=9216, vocab=248320,
        ctx=262144, every=4, conv=4, state=128, groups=16, steps=32, mtp=1, tied=True),
    "qwen35-122b-a10b": _model(arch="qwen35moe", layers=48, embd=3072, heads=32, kv=2, head=256, rope=64, ff=0,
        vocab=248320,
        ctx=262144, experts=256, used=8, ff_exp=1024, ff_shexp=1024, every=4, conv=4, state=128, groups=16, steps=64,
        mtp=1),
    "gpt-oss-120b": _model(arch="gpt-oss", layers=36, embd=2880, heads=64, kv=8, head=64, rope=64, ff=2880,
        vocab=201088,
        ctx=131072, experts=128, used=4, ff_exp=2880, window=128),
    "gemma3-4b": _model(arch="gemma3", layers=34, embd=2560, heads=8, kv=4, head=256, rope=256, ff=10240, vocab=262208,
        ctx=131072, window=1024, tied=True),
    "mistral-24b": _model(arch="llama", layers=40, embd=5120, heads=32, kv=8, head=128, rope=128, ff=32768,
        vocab=131072,
        ctx=131072),
    "qwen25-14b": _model(arch="qwen2", layers=48, embd=5120, heads=40, kv=8, head=128, rope=128, ff=13824, vocab=152064,
        ctx=131072, qkv_bias=True),
    # Small ones, for speed on a CPU: no published model, but sane shapes.
    "small-dense-1b": _model(arch="llama", layers=16, embd=2048, heads=32, kv=8, head=64, rope=64, ff=8192, vocab=32000,
        ctx=32768),
    "small-dense-300m": _model(arch="llama", layers=24, embd=1024, heads=16, kv=8, head=64, rope=64, ff=2816,
        vocab=32000,
        ctx=32768),
    "small-deep-600m": _model(arch="qwen3", layers=48, embd=1024, heads=16, kv=8, head=64, rope=64, ff=3072,
        vocab=32000,
        ctx=32768),
    "small-moe-1b": _model(arch="qwen3moe", layers=16, embd=1024, heads=16, kv=4, head=64, rope=64, ff=4096,
        vocab=32000,
        ctx=32768, experts=32, used=4, ff_exp=768),
    "qwen3-8b": _model(arch="qwen3", layers=36, embd=4096, heads=32, kv=8, head=128, rope=128, ff=12288, vocab=151936,
        ctx=40960),
}  # fmt: skip

QUANTS = ("q2_k", "q3_k_m", "iq4_xs", "q4_k_m", "q5_k_m", "q6_k", "q8_0")

FILE_TYPES = {"q2_k": 10, "q3_k_m": 12, "iq4_xs": 30, "q4_k_m": 15, "q5_k_m": 17, "q6_k": 18, "q8_0": 7}

_MORE_BITS = {
    "q2_k": ("q2_k", "q4_k", "q4_k", "q3_k", "q3_k", "q3_k"),
    "q3_k_m": ("q3_k", "q4_k", "q5_k", "q3_k", "q4_k", "q4_k"),
    "q4_k_m": ("q4_k", "q5_k", "q6_k", "q4_k", "q6_k", "q5_k"),
    "q5_k_m": ("q5_k", "q5_k", "q6_k", "q5_k", "q6_k", "q6_k"),
    "q6_k": ("q6_k", "q6_k", "q6_k", "q6_k", "q6_k", "q6_k"),
}
"""What most tensors get; V and the same with more bits; down and the same with more bits; QKV in one tensor."""


def _more(index: int, count: int) -> bool:
    """llama-quantize's use_more_bits."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


class Mix:
    """Which type a tensor gets."""

    def __init__(self, quant: str, geometry: dict[str, Any]) -> None:
        self.quant, self.geometry = quant, geometry

    def __call__(self, what: str, layer: int = -1) -> str:
        quant, count = self.quant, self.geometry["layers"]
        if quant == "q8_0":
            return "q8_0" if what != "exps-fixed" else "mxfp4"

        match what:
            case "output":
                return "q6_k"
            case "embd" if self.geometry.get("tied"):
                return "q6_k"
            case "small" | "shexp":
                return "q8_0"
            case "exps-fixed":
                return "mxfp4"

        if quant == "iq4_xs":
            return "q5_k" if what == "v" or (what == "down" and layer < count // 8) else "iq4_xs"

        base, value, value_more, down, down_more, merged = _MORE_BITS[quant]
        match what:
            case "v":
                return value_more if _more(layer, count) else value
            case "down" | "down_exps":
                return down_more if _more(layer, count) else down
            case "qkv":
                return merged
            case _:
                return base


def tensors(name: str, quant: str, *, mtp: bool = True, merged: bool = False) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape (fastest first) and type of every tensor, in the order that converters write."""
    g = GEOMETRY[name]
    mix = Mix(quant, g)
    n, arch = g["embd"], g["arch"]
    found: list[tuple[str, tuple[int, ...], str]] = [("token_embd.weight", (n, g["vocab"]), mix("embd"))]
    found.append(("output_norm.weight", (n,), "f32"))
    if not g.get("tied"):
        found.append(("output.weight", (n, g["vocab"]), mix("output")))

    if g.get("rope_freqs"):
        found.append(("rope_freqs.weight", (g["rope"] // 2,), "f32"))

    total = g["layers"] + (g.get("mtp", 0) if mtp else 0)
    for i in range(total):
        tail = i >= g["layers"]
        p = f"blk.{i}."

        def add(what: str, shape: tuple[int, ...], kind: str, p: str = p) -> None:
            found.append((p + what, shape, kind))

        add("attn_norm.weight", (n,), "f32")
        recurrent = "every" in g and not tail and (i + 1) % g["every"] != 0
        if recurrent:
            keys, values = g["state"] * g["groups"], g["state"] * g["steps"]
            add("attn_qkv.weight", (n, 2 * keys + values), mix("qkv", i))
            add("attn_gate.weight", (n, values), mix("gate", i))
            add("ssm_conv1d.weight", (g["conv"], 2 * keys + values), "f32")
            add("ssm_dt.bias", (g["steps"],), "f32")
            add("ssm_a", (g["steps"],), "f32")
            add("ssm_beta.weight", (n, g["steps"]), mix("small", i))
            add("ssm_alpha.weight", (n, g["steps"]), mix("small", i))
            add("ssm_norm.weight", (g["state"],), "f32")
            add("ssm_out.weight", (values, n), mix("out", i))
        else:
            gated = 2 if arch in ("qwen35", "qwen35moe") else 1
            add("attn_q.weight", (n, g["heads"] * g["head"] * gated), mix("q", i))
            add("attn_k.weight", (n, g["kv"] * g["head"]), mix("k", i))
            add("attn_v.weight", (n, g["kv"] * g["head"]), mix("v", i))
            add("attn_output.weight", (g["heads"] * g["head"], n), mix("o", i))
            if arch in ("qwen35", "qwen35moe", "qwen3", "qwen3moe", "gemma3"):
                add("attn_q_norm.weight", (g["head"],), "f32")
                add("attn_k_norm.weight", (g["head"],), "f32")

            if g.get("qkv_bias"):
                add("attn_q.bias", (g["heads"] * g["head"],), "f32")
                add("attn_k.bias", (g["kv"] * g["head"],), "f32")
                add("attn_v.bias", (g["kv"] * g["head"],), "f32")

            if arch == "gpt-oss":
                add("attn_q.bias", (g["heads"] * g["head"],), "f32")
                add("attn_k.bias", (g["kv"] * g["head"],), "f32")
                add("attn_v.bias", (g["kv"] * g["head"],), "f32")
                add("attn_output.bias", (n,), "f32")
                add("attn_sinks.weight", (g["heads"],), "f32")

        if arch in ("qwen35", "qwen35moe", "gpt-oss", "gemma3"):
            add("post_attention_norm.weight", (n,), "f32")

        if arch in ("llama", "qwen2", "qwen3", "qwen3moe", "gemma3"):
            add("ffn_norm.weight", (n,), "f32")

        if arch == "gemma3":
            add("post_ffw_norm.weight", (n,), "f32")

        if g.get("experts"):
            e, f = g["experts"], g["ff_exp"]
            fixed = arch == "gpt-oss"
            add("ffn_gate_inp.weight", (n, e), "f32")
            if merged and not fixed:
                add("ffn_gate_up_exps.weight", (n, 2 * f, e), mix("exps", i))
            else:
                add("ffn_gate_exps.weight", (n, f, e), mix("exps-fixed" if fixed else "exps", i))
                add("ffn_up_exps.weight", (n, f, e), mix("exps-fixed" if fixed else "exps", i))

            add("ffn_down_exps.weight", (f, n, e), mix("exps-fixed" if fixed else "down_exps", i))
            if fixed:
                add("ffn_gate_inp.bias", (e,), "f32")
                add("ffn_gate_exps.bias", (f, e), "f32")
                add("ffn_up_exps.bias", (f, e), "f32")
                add("ffn_down_exps.bias", (n, e), "f32")

            if g.get("ff_shexp"):
                s = g["ff_shexp"]
                add("ffn_gate_inp_shexp.weight", (n,), "f32")
                add("ffn_gate_shexp.weight", (n, s), mix("shexp", i))
                add("ffn_up_shexp.weight", (n, s), mix("shexp", i))
                add("ffn_down_shexp.weight", (s, n), mix("shexp", i))
        else:
            add("ffn_gate.weight", (n, g["ff"]), mix("ffn", i))
            add("ffn_up.weight", (n, g["ff"]), mix("ffn", i))
            add("ffn_down.weight", (g["ff"], n), mix("down", i))

        if tail:
            add("nextn.eh_proj.weight", (2 * n, n), mix("small", i))
            add("nextn.enorm.weight", (n,), "f32")
            add("nextn.hnorm.weight", (n,), "f32")
            add("nextn.shared_head_norm.weight", (n,), "f32")

    # gpt-oss has rows of 2880, which super-blocks of 256 do not divide: llama-quantize falls back as well.
    return [(a, b, c if b[0] % TENSOR_TYPES[TYPE_NUMBERS[c]].block == 0 else "q8_0") for a, b, c in found]


def fields(name: str, quant: str, *, mtp: bool = True) -> list[tuple[str, str, object]]:
    g = GEOMETRY[name]
    a = g["arch"] + "."
    tail = g.get("mtp", 0) if mtp else 0
    found: list[tuple[str, str, object]] = [
        ("general.architecture", "str", g["arch"]),
        ("general.name", "str", f"{name} (geometry only)"),
        ("general.file_type", "u32", FILE_TYPES[quant]),
        (a + "block_count", "u32", g["layers"] + tail),
        (a + "context_length", "u32", g["ctx"]),
        (a + "embedding_length", "u32", g["embd"]),
        (a + "attention.head_count", "u32", g["heads"]),
        (a + "attention.head_count_kv", "u32", g["kv"]),
        (a + "attention.key_length", "u32", g["head"]),
        (a + "attention.value_length", "u32", g["head"]),
        (a + "attention.layer_norm_rms_epsilon", "f32", 1e-6),
        (a + "rope.dimension_count", "u32", g["rope"]),
        (a + "rope.freq_base", "f32", 1e6),
        (a + "vocab_size", "u32", g["vocab"]),
    ]
    if g["ff"]:
        found.append((a + "feed_forward_length", "u32", g["ff"]))

    if g.get("window"):
        found.append((a + "attention.sliding_window", "u32", g["window"]))

    if g.get("experts"):
        found += [
            (a + "expert_count", "u32", g["experts"]),
            (a + "expert_used_count", "u32", g["used"]),
            (a + "expert_feed_forward_length", "u32", g["ff_exp"]),
        ]
        if g.get("ff_shexp"):
            found.append((a + "expert_shared_feed_forward_length", "u32", g["ff_shexp"]))

    if "every" in g:
        found += [
            (a + "rope.dimension_sections", "i32[]", [11, 11, 10, 0]),
            (a + "ssm.conv_kernel", "u32", g["conv"]),
            (a + "ssm.state_size", "u32", g["state"]),
            (a + "ssm.group_count", "u32", g["groups"]),
            (a + "ssm.time_step_rank", "u32", g["steps"]),
            (a + "ssm.inner_size", "u32", g["state"] * g["steps"]),
            (a + "full_attention_interval", "u32", g["every"]),
        ]
        if tail:
            found.append((a + "nextn_predict_layers", "u32", tail))

    return found


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _vocabulary(count: int) -> list[tuple[str, str, object]]:
    """Bytes, fillers, three special tokens: the size is what matters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    tokens = [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens += [f"[{index}]" for index in range(len(tokens), count - len(special))] + special
    types = [1] * (count - len(special)) + [3] * len(special)
    return [
        ("tokenizer.ggml.model", "str", "gpt2"),
        ("tokenizer.ggml.pre", "str", "qwen2"),
        ("tokenizer.ggml.tokens", "str[]", tokens),
        ("tokenizer.ggml.token_type", "i32[]", types),
        ("tokenizer.ggml.merges", "str[]", ["a a"]),
        ("tokenizer.ggml.bos_token_id", "u32", count - 3),
        ("tokenizer.ggml.eos_token_id", "u32", count - 1),
        ("tokenizer.ggml.padding_token_id", "u32", count - 3),
        ("tokenizer.ggml.add_bos_token", "bool", False),
        ("tokenizer.chat_template", "str", TEMPLATE),
    ]


_SCALAR = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: str, value: Any) -> bytes:
    if kind == "str":
        return struct.pack("<I", 8) + _text(str(value))

    if kind == "str[]":
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))

    if kind.endswith("[]"):
        number, layout = _SCALAR[kind[:-2]]
        return struct.pack("<IIQ", 9, number, len(value)) + struct.pack(f"<{len(value)}{layout[1]}", *value)

    number, layout = _SCALAR[kind]
    return struct.pack("<I", number) + struct.pack(layout, value)


@lru_cache(maxsize=64)
def header(name: str, quant: str = "iq4_xs", *, mtp: bool = True, merged: bool = False) -> TrueHeader:
    """Return a model's header, in memory."""
    found = tuple(
        TrueTensor(tensor, shape, TYPE_NUMBERS[kind], nbytes(kind, shape))
        for tensor, shape, kind in tensors(name, quant, mtp=mtp, merged=merged)
    )
    return TrueHeader(f"{name}-{quant}.gguf", {key: value for key, _, value in fields(name, quant, mtp=mtp)}, found)


def write(path: Path, name: str, quant: str = "iq4_xs", *, mtp: bool = True, merged: bool = False) -> int:
    """Write the file; return its apparent size in bytes."""
    described = tensors(name, quant, mtp=mtp, merged=merged)
    pairs = [*fields(name, quant, mtp=mtp), *_vocabulary(GEOMETRY[name]["vocab"])]
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(described), len(pairs))]
    parts += [_text(key) + _value(kind, value) for key, kind, value in pairs]
    offset = 0
    for tensor, shape, kind in described:
        parts.append(_text(tensor) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, TYPE_NUMBERS[kind], offset))
        offset += nbytes(kind, shape)
        offset += -offset % ALIGN

    data = b"".join(parts)
    data += bytes(-len(data) % ALIGN)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + offset)

    return len(data) + offset


def main() -> None:
    folder = Path(sys.argv[1])
    for each in sys.argv[2:]:
        name, _, quant = each.partition(":")
        write(folder / f"{name}-{quant or 'iq4_xs'}.gguf", name, quant or "iq4_xs")


if __name__ == "__main__":
    main()
