"""A mixture of experts whose output is known, and that both engines load: most of its weight is in the experts.

The known model with a draft head (`qwen35moe`) is refused by the fork of spring 2026. This one is a `qwen3moe`: plain
attention, and experts of zeros, so that the tables of `orchestrator.engines.known.model` hold here as well. Source of
names and shapes: upstream's `src/models/qwen3moe.cpp`.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.adapters.gguf.writer import Field, TensorData, floats, write_gguf, zeros
from orchestrator.engines.known import layout as known_layout
from orchestrator.engines.known.layout import WIDTH
from orchestrator.engines.known.model import EOS, KnownModel, _logits, known_model

EXPERTS = 8
EXPERTS_MIB_PER_LAYER = 3
"""Gate, up and down: 8 experts of 256 by 256 in 16 bits each."""

_HEAD = 64
_REPLACED = (".ffn_gate.", ".ffn_up.", ".ffn_down.")


def write_experts_model(path: str, *, layers: int, context_length: int = 32768) -> KnownModel:
    """Write the model as GGUF; its tables."""
    name = "qwen3moe."
    model = known_model("llama")
    fields = known_layout.fields("llama", model.vocabulary, layers=layers, context_length=context_length, eos=EOS)
    renamed = [replace(each, key=each.key.replace("llama.", name, 1)) for each in fields[1:]]
    experts = [
        Field(name + "expert_count", "u32", EXPERTS),
        Field(name + "expert_used_count", "u32", 2),
        Field(name + "expert_feed_forward_length", "u32", WIDTH),
    ]
    plain = known_layout.tensors("llama", layers, model.state, _logits(model), model.draft_rows)
    tensors = [each for each in plain if not any(part in each.name for part in _REPLACED)]
    for layer in range(layers):
        tensors += _experts(f"blk.{layer}.")

    write_gguf(path, [Field("general.architecture", "string", "qwen3moe"), *experts, *renamed], tensors)
    return model


def _experts(block: str) -> list[TensorData]:
    square = (WIDTH, WIDTH, EXPERTS)
    size = WIDTH * WIDTH * EXPERTS
    return [
        TensorData(block + "attn_q_norm.weight", (_HEAD,), "f32", [floats([1.0] * _HEAD)]),
        TensorData(block + "attn_k_norm.weight", (_HEAD,), "f32", [floats([1.0] * _HEAD)]),
        TensorData(block + "ffn_gate_inp.weight", (WIDTH, EXPERTS), "f32", zeros(WIDTH * EXPERTS, "f32")),
        TensorData(block + "ffn_gate_exps.weight", square, "f16", zeros(size, "f16")),
        TensorData(block + "ffn_up_exps.weight", square, "f16", zeros(size, "f16")),
        TensorData(block + "ffn_down_exps.weight", square, "f16", zeros(size, "f16")),
    ]
