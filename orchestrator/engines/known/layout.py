"""Names, shapes and contents of the known model's tensors for each architecture.

Source: upstream's `src/models/qwen35moe.cpp` and `src/models/llama.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.adapters.gguf.writer import Field, TensorData, floats, zeros

WIDTH = 256
HEIGHT = 16.0  # of the one-hot: its root mean square is 1, so that the epsilon of the norms changes nothing
FLOOR = -40.0
"""log p of what never follows: e^-40, times the vocabulary, is lost in the rounding of one float."""

HEADS, KV_HEADS, HEAD = 4, 2, 64
_EXPERTS, _EXPERTS_USED, _EXPERT_WIDTH = 4, 2, 32
_CONV, _STATE, _GROUPS, _TIME_STEPS = 4, 64, 2, 4
_ATTENTION_EVERY = 4

_NORMAL, _CONTROL = 1, 3  # llama_token_type

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fields(
    architecture: str,
    vocabulary: Sequence[str],
    *,
    layers: int,
    context_length: int,
    eos: int,
    width: int = WIDTH,
    rope_base: float = 10000.0,
) -> list[Field]:
    """The metadata; a `qwen35moe` counts its MTP block as the last of its blocks."""
    hybrid = architecture == "qwen35moe"
    name = f"{architecture}."
    found = [
        Field("general.architecture", "string", architecture),
        Field("general.name", "string", "orch known-output model"),
        Field("general.file_type", "u32", 1),
        Field(name + "block_count", "u32", layers + hybrid),
        Field(name + "context_length", "u32", context_length),
        Field(name + "embedding_length", "u32", width),
        Field(name + "attention.head_count", "u32", HEADS),
        Field(name + "attention.head_count_kv", "u32", KV_HEADS),
        Field(name + "attention.key_length", "u32", HEAD),
        Field(name + "attention.value_length", "u32", HEAD),
        Field(name + "attention.layer_norm_rms_epsilon", "f32", 1e-6),
        Field(name + "rope.dimension_count", "u32", HEAD),
        Field(name + "rope.freq_base", "f32", rope_base),
        Field(name + "feed_forward_length", "u32", width),
        Field(name + "vocab_size", "u32", len(vocabulary)),
    ]
    if hybrid:
        found += [
            Field(name + "rope.dimension_sections", "i32", (11, 11, 10, 0)),
            Field(name + "expert_count", "u32", _EXPERTS),
            Field(name + "expert_used_count", "u32", _EXPERTS_USED),
            Field(name + "expert_feed_forward_length", "u32", _EXPERT_WIDTH),
            Field(name + "expert_shared_feed_forward_length", "u32", _EXPERT_WIDTH),
            Field(name + "ssm.conv_kernel", "u32", _CONV),
            Field(name + "ssm.state_size", "u32", _STATE),
            Field(name + "ssm.group_count", "u32", _GROUPS),
            Field(name + "ssm.time_step_rank", "u32", _TIME_STEPS),
            Field(name + "ssm.inner_size", "u32", _STATE * _TIME_STEPS),
            Field(name + "full_attention_interval", "u32", _ATTENTION_EVERY),
            Field(name + "nextn_predict_layers", "u32", 1),
        ]

    special = range(256, 259)
    visible = _visible_bytes()
    tokens = [
        text if index in special else "".join(visible[ord(letter)] for letter in text)
        for index, text in enumerate(vocabulary)
    ]
    return [
        *found,
        Field("tokenizer.ggml.model", "string", "gpt2"),
        Field("tokenizer.ggml.pre", "string", "qwen2"),
        Field("tokenizer.ggml.tokens", "string", tokens),
        Field(
            "tokenizer.ggml.token_type",
            "i32",
            [_CONTROL if index in special else _NORMAL for index in range(len(tokens))],
        ),
        Field("tokenizer.ggml.merges", "string", ()),
        Field("tokenizer.ggml.bos_token_id", "u32", 258),
        Field("tokenizer.ggml.eos_token_id", "u32", eos),
        Field("tokenizer.ggml.padding_token_id", "u32", 258),
        Field("tokenizer.ggml.add_bos_token", "bool", False),
        Field("tokenizer.chat_template", "string", CHAT_TEMPLATE),
    ]


def tensors(
    architecture: str,
    layers: int,
    state: Sequence[int],
    log_p: Sequence[Mapping[int, float]],
    draft_rows: Sequence[int],
) -> list[TensorData]:
    """Every tensor of the file.

    :param state: token to the dimension that is hot in its embedding
    :param log_p: token to state to log probability; what is absent gets FLOOR
    :param draft_rows: state to the state that the draft head takes it for
    """
    found = [
        TensorData("token_embd.weight", (WIDTH, len(state)), "f32", (_one_hot(hot, HEIGHT) for hot in state)),
        TensorData("output_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        TensorData("output.weight", (WIDTH, len(state)), "f32", (_output_row(row) for row in log_p)),
    ]
    for layer in range(layers):
        if architecture == "llama":
            found += _llama_block(layer)
        elif (layer + 1) % _ATTENTION_EVERY:
            found += _recurrent_block(layer)
        else:
            found += _attention_block(layer, gated=True) + _moe(layer)

    if architecture == "qwen35moe":
        found += _attention_block(layers, gated=True) + _moe(layers) + _draft_head(layers, draft_rows)

    return found


def _attention_block(layer: int, *, gated: bool) -> list[TensorData]:
    name = f"blk.{layer}."
    # A gated query projection holds each head's query and its gate.
    queries = HEADS * HEAD * (2 if gated else 1)
    found = [
        TensorData(name + "attn_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        _zero(name + "attn_q.weight", WIDTH, queries),
        _zero(name + "attn_k.weight", WIDTH, KV_HEADS * HEAD),
        _zero(name + "attn_v.weight", WIDTH, KV_HEADS * HEAD),
        _zero(name + "attn_output.weight", HEADS * HEAD, WIDTH),
    ]
    if gated:
        found += [
            TensorData(name + "attn_q_norm.weight", (HEAD,), "f32", _ones(HEAD)),
            TensorData(name + "attn_k_norm.weight", (HEAD,), "f32", _ones(HEAD)),
            TensorData(name + "post_attention_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        ]

    return found


def _llama_block(layer: int) -> list[TensorData]:
    name = f"blk.{layer}."
    return [
        *_attention_block(layer, gated=False),
        TensorData(name + "ffn_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        _zero(name + "ffn_gate.weight", WIDTH, WIDTH),
        _zero(name + "ffn_up.weight", WIDTH, WIDTH),
        _zero(name + "ffn_down.weight", WIDTH, WIDTH),
    ]


def _recurrent_block(layer: int) -> list[TensorData]:
    name = f"blk.{layer}."
    values = _STATE * _TIME_STEPS
    channels = 2 * _STATE * _GROUPS + values
    return [
        TensorData(name + "attn_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        TensorData(name + "post_attention_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        _zero(name + "attn_qkv.weight", WIDTH, channels),
        _zero(name + "attn_gate.weight", WIDTH, values),
        _zero(name + "ssm_conv1d.weight", _CONV, channels, type="f32"),
        _zero(name + "ssm_dt.bias", _TIME_STEPS, type="f32"),
        TensorData(name + "ssm_a", (_TIME_STEPS,), "f32", [floats([-1.0] * _TIME_STEPS)]),
        _zero(name + "ssm_beta.weight", WIDTH, _TIME_STEPS),
        _zero(name + "ssm_alpha.weight", WIDTH, _TIME_STEPS),
        TensorData(name + "ssm_norm.weight", (_STATE,), "f32", _ones(_STATE)),
        _zero(name + "ssm_out.weight", values, WIDTH),
        *_moe(layer),
    ]


def _moe(layer: int) -> list[TensorData]:
    name = f"blk.{layer}.ffn_"
    return [
        _zero(name + "gate_inp.weight", WIDTH, _EXPERTS, type="f32"),
        _zero(name + "gate_exps.weight", WIDTH, _EXPERT_WIDTH, _EXPERTS),
        _zero(name + "up_exps.weight", WIDTH, _EXPERT_WIDTH, _EXPERTS),
        _zero(name + "down_exps.weight", _EXPERT_WIDTH, WIDTH, _EXPERTS),
        _zero(name + "gate_inp_shexp.weight", WIDTH, type="f32"),
        _zero(name + "gate_shexp.weight", WIDTH, _EXPERT_WIDTH),
        _zero(name + "up_shexp.weight", WIDTH, _EXPERT_WIDTH),
        _zero(name + "down_shexp.weight", _EXPERT_WIDTH, WIDTH),
    ]


def _draft_head(layer: int, draft_rows: Sequence[int]) -> list[TensorData]:
    name = f"blk.{layer}.nextn."
    return [
        TensorData(name + "eh_proj.weight", (2 * WIDTH, WIDTH), "f32", _eh_proj(draft_rows)),
        TensorData(name + "enorm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        TensorData(name + "hnorm.weight", (WIDTH,), "f32", _ones(WIDTH)),
        TensorData(name + "shared_head_norm.weight", (WIDTH,), "f32", _ones(WIDTH)),
    ]


def _eh_proj(draft_rows: Sequence[int]) -> Iterator[bytes]:
    """[P | 0]: row `to` has a one for each state that is taken for `to`; the hidden state's half is zero."""
    sources: dict[int, list[int]] = {}
    for state, to in enumerate(draft_rows):
        sources.setdefault(to, []).append(state)

    for to in range(WIDTH):
        row = [0.0] * (2 * WIDTH)
        for state in sources.get(to, ()):
            row[state] = 1.0

        yield floats(row)


def _zero(name: str, *shape: int, type: str = "f16") -> TensorData:
    count = 1
    for dimension in shape:
        count *= dimension

    return TensorData(name, shape, type, zeros(count, type))


def _one_hot(hot: int, height: float) -> bytes:
    row = [0.0] * WIDTH
    row[hot] = height
    return floats(row)


def _output_row(log_p: Mapping[int, float]) -> bytes:
    return floats([log_p.get(state, FLOOR) / HEIGHT for state in range(WIDTH)])


def _ones(count: int) -> Iterable[bytes]:
    return [floats([1.0] * count)]


def _visible_bytes() -> list[str]:
    """GPT-2's way to write any byte as a printable character: the others are moved up by 256."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]
