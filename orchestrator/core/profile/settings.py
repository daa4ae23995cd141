"""The engine-neutral settings of a profile: one table that validation, the JSON Schema, the dialects and the help read.

Names and meanings follow llama.cpp's terms. Facts about each flag: engines' own `--help`; where the two engines differ
(unit, default, arity) the dialect tables say so, not this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = bool | int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Mapping[str, object]
"""The value of a setting once validated: TOML arrays become tuples, `chat.template_kwargs` stays a mapping."""

Type = Literal["bool", "int", "float", "string", "path", "ints", "floats", "strings", "paths", "groups", "table"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key that a profile may set.

    :param path: its dotted key, `memory.fit_margin`
    :param types: the TOML types allowed; an int is accepted where a float is; `groups` are arrays of names
    :param doc: one sentence for people, with the unit
    :param choices: the allowed words, where it is a word
    :param minimum: the least number allowed (each element, in a list)
    :param maximum: the greatest number allowed
    :param form: a regular expression for strings (each element, in a list), and the same in words
    :param instead: for numbers that engines take and orch does not: what to write instead
    """

    path: str
    types: tuple[Type, ...]
    doc: str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    form: tuple[str, str] | None = None
    instead: Mapping[int, str] = field(default_factory=dict)

    @property
    def table(self) -> str:
        return self.path.partition(".")[0]

    @property
    def key(self) -> str:
        return self.path.partition(".")[2]


KV_TYPES = (
    "f32", "f16", "bf16", "q8_0", "q6_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q8_KV", "turbo4", "turbo3", "turbo2",
)  # fmt: skip
"""Union of the engines' cache types; which of them a build takes is the dialect's business.

q6_0 and q8_KV are the fork's; the turbo types belong to further forks of upstream, whose help lists them.
"""

PINS = ("one_per_core", "fast_cores")
"""Ways to keep an engine on some CPUs of the machine (`core/starts/cpu_pinning.py`)."""

SPECULATIVE_TYPES = (
    "none", "mtp", "draft", "eagle3", "dflash", "dspark", "suffix",
    "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache",
)  # fmt: skip

_INT31 = 2**31 - 1

_AUTO_THREADS = {-1: '`"auto"`', 0: '`"auto"`'}
_AUTO_LAYERS = {-1: '`"auto"`', -2: '`"all"`'}
_MODELS_OWN = {
    -1: "nothing: without the key the model's own bounds hold",
    0: "nothing: without the key the model's own bounds hold",
}

# Both engines take lists as one argument with commas in between, so no element may hold one.
_DEVICE = (r"[^-,\s][^,\s]*", "one device's name")
_PLACEMENT = (r"[^-=,][^=,]*=[^=,\s]+", "`regex=buffer` without a comma")
_ADDRESS = (r"[^-,\s][^,\s]*:[0-9]{1,5}", "`host:port`")
_WORD = (r"[A-Za-z0-9_]+", "one word")
_TEMPLATE = (r"[^-][\s\S]*", "text that does not begin with `-`")

SETTINGS: tuple[Setting, ...] = (
    Setting("context.size", ("int",), "tokens of context over all slots; 0 takes the model's own", minimum=0, maximum=_INT31, instead={-1: "0, the model's own"}),
    Setting("context.parallel", ("int",), "slots that serve requests at the same time", minimum=1, maximum=256, instead={-1: "a number; what upstream opens by itself is 4 slots with `context.unified_kv = true`"}),
    Setting("context.unified_kv", ("bool",), "one KV buffer shared by all slots"),
    Setting("context.shift", ("bool",), "drop the oldest tokens when a generation reaches the end of the context"),
    Setting("context.checkpoints", ("int",), "context checkpoints kept per slot", minimum=0, maximum=4096, instead={-1: "a number, or nothing: without the key the build chooses"}),
    Setting("context.checkpoint_min_step", ("int",), "tokens between two context checkpoints at least; 0 is no minimum", minimum=0, maximum=_INT31, instead={-1: "0, which is no minimum"}),
    Setting("context.swa_full", ("bool",), "keep the whole context in the cache of sliding-window layers"),
    Setting("rope.scaling", ("string",), "how positions are stretched over a longer context", choices=("none", "linear", "yarn")),
    Setting("rope.scale", ("float",), "factor by which the context grows", minimum=0.001, maximum=1e6),
    Setting("rope.freq_base", ("float",), "base frequency; 0 takes the model's own", minimum=0, maximum=1e12),
    Setting("rope.freq_scale", ("float",), "frequency factor, the context grows by 1/N; 0 takes the model's own", minimum=0, maximum=1e6),
    Setting("rope.original_context", ("int",), "context that the model was trained with, tokens, for YaRN; 0 takes the model's own", minimum=0, maximum=_INT31, instead={-1: "0, the model's own"}),
    Setting("rope.yarn_ext_factor", ("float",), "YaRN extrapolation mix; -1 takes the model's own, 0 is full interpolation", minimum=-1, maximum=1e6),
    Setting("rope.yarn_attn_factor", ("float",), "YaRN attention magnitude; -1 takes the model's own", minimum=-1, maximum=1e6),
    Setting("rope.yarn_beta_slow", ("float",), "YaRN high correction dimension; -1 takes the model's own", minimum=-1, maximum=1e6),
    Setting("rope.yarn_beta_fast", ("float",), "YaRN low correction dimension; -1 takes the model's own", minimum=-1, maximum=1e6),
    Setting("lora.adapters", ("paths",), "GGUF files of LoRA adapters"),
    Setting("lora.scales", ("floats",), "scale of each adapter, in the same order; 1 without it"),
    Setting("lora.apply", ("bool",), "apply the adapters from the start; else a request's field `lora` does"),
    Setting("batch.size", ("int",), "logical batch, tokens", minimum=1, maximum=1048576),
    Setting("batch.ubatch", ("int",), "physical batch, tokens: the compute buffers grow with it", minimum=1, maximum=1048576),
    Setting("cpu.threads", ("int", "string"), "threads while generating", choices=("auto",), minimum=1, maximum=4096, instead=_AUTO_THREADS),
    Setting("cpu.threads_batch", ("int", "string"), "threads while processing prompts", choices=("auto",), minimum=1, maximum=4096, instead=_AUTO_THREADS),
    Setting("cpu.pin", ("string",), "CPUs that the engine is kept on: one of each core, or of each fast core, with a thread for each", choices=("none", *PINS)),
    Setting("cpu.numa", ("string",), "NUMA placement", choices=("distribute", "isolate", "numactl")),
    Setting("kv.k", ("string",), "type of the K cache", choices=KV_TYPES),
    Setting("kv.v", ("string",), "type of the V cache; quantised types need flash attention", choices=KV_TYPES),
    Setting("kv.offload", ("bool",), "keep the KV cache in device memory"),
    Setting("kv.k_hadamard", ("bool",), "Hadamard transform of the K cache"),
    Setting("kv.v_hadamard", ("bool",), "Hadamard transform of the V cache"),
    Setting("attention.flash", ("bool", "string"), "flash attention", choices=("auto", "on", "off")),
    Setting("attention.mla", ("int",), "multi-head latent attention mode", minimum=0, maximum=3),
    Setting("attention.max_batch_mib", ("int",), "work buffer of attention, MiB", minimum=128, maximum=1048576),
    Setting("memory.fit", ("bool",), "let the engine place the model so that it fits in device memory"),
    Setting("memory.fit_margin", ("int", "ints"), "device memory kept free when fitting, MiB; a list gives one per device", minimum=1, maximum=1048576),
    Setting("memory.fit_min_context", ("int",), "fitting does not shrink the context below this, tokens", minimum=1, maximum=_INT31),
    Setting("memory.gpu_layers", ("int", "string"), "layers in device memory", choices=("auto", "all"), minimum=0, maximum=100000, instead=_AUTO_LAYERS),
    Setting("memory.require_device", ("bool",), "serve only on a device; unset means where layers are wanted on one"),
    Setting("memory.cpu_moe", ("bool",), "keep every expert weight in host memory"),
    Setting("memory.n_cpu_moe", ("int",), "keep the expert weights of the first N layers in host memory", minimum=0, maximum=100000),
    Setting("memory.n_cpu_ffn", ("int",), "keep the dense FFN weights of the first N layers in host memory", minimum=0, maximum=100000),
    Setting("memory.tensor_overrides", ("strings",), "tensor placement, `regex=buffer` each, e.g. `exps=CPU`", form=_PLACEMENT),
    Setting("memory.split", ("string",), "how to split over several devices", choices=("none", "layer", "row", "tensor", "attn", "graph")),
    Setting("memory.tensor_split", ("floats",), "share of each device", minimum=0),
    Setting("memory.main_gpu", ("int",), "index of the main device", minimum=0, maximum=255),
    Setting("memory.devices", ("strings",), "devices to use, as the engine names them, e.g. `CUDA0`", form=_DEVICE),
    Setting("memory.rpc", ("strings",), "remote ggml-rpc servers, `host:port` each", form=_ADDRESS),
    Setting("memory.mmap", ("bool",), "map the model file instead of reading it"),
    Setting("memory.mlock", ("bool",), "lock the model in host memory"),
    Setting("memory.direct_io", ("bool",), "read the model file past the page cache"),
    Setting("memory.prefetch", ("bool",), "read the model into the page cache before a switch to it, while what runs serves on; unset means unless `memory.direct_io` is set"),
    Setting("memory.repack", ("bool",), "repack weights for the CPU while loading"),
    Setting("memory.lazy", ("string",), "read the rows of big embedding tensors from disk when they are needed", choices=("auto", "on", "off")),
    Setting("memory.defer_experts", ("bool",), "read expert weights when they are first needed"),
    Setting("memory.op_offload", ("bool",), "run operations on host tensors on the device when that pays"),
    Setting("memory.fused_moe", ("bool",), "fused expert kernels"),
    Setting("memory.merge_qkv", ("bool",), "merge the Q, K and V weights while loading"),
    Setting("memory.merge_experts", ("bool",), "merge the up and gate weights of experts while loading"),
    Setting("memory.graph_reuse", ("bool",), "reuse compute graphs between tokens"),
    Setting("speculative.type", ("string", "strings"), "how tokens are drafted; a list is a chain, the first that drafts wins", choices=SPECULATIVE_TYPES),
    Setting("speculative.draft_max", ("int",), "tokens drafted per step at most", minimum=1, maximum=1024),
    Setting("speculative.draft_min", ("int",), "drafts shorter than this are not used, tokens", minimum=0, maximum=1024),
    Setting("speculative.draft_p_min", ("float",), "drafting stops below this probability", minimum=0, maximum=1),
    Setting("speculative.draft_model", ("path",), "GGUF of the draft model"),
    Setting("speculative.draft_gpu_layers", ("int", "string"), "layers of the draft model in device memory", choices=("auto", "all"), minimum=0, maximum=100000, instead=_AUTO_LAYERS),
    Setting("speculative.draft_devices", ("strings",), "devices for the draft model", form=_DEVICE),
    Setting("speculative.kv_k", ("string",), "type of the drafter's K cache", choices=KV_TYPES),
    Setting("speculative.kv_v", ("string",), "type of the drafter's V cache", choices=KV_TYPES),
    Setting("speculative.ngram_n", ("int",), "length of the n-gram looked up, tokens", minimum=1, maximum=1024),
    Setting("speculative.ngram_m", ("int",), "length of the n-gram drafted, tokens", minimum=1, maximum=1024),
    Setting("speculative.ngram_min_hits", ("int",), "occurrences before an n-gram is drafted", minimum=1, maximum=1024),
    Setting("speculative.autotune", ("bool",), "let the engine tune the draft length while it runs"),
    Setting("speculative.checkpoint_mode", ("string",), "how recurrent state is rolled back", choices=("auto", "per-step", "gpu-fallback", "cpu")),
    Setting("multimodal.mmproj", ("path",), "GGUF of the multimodal projector"),
    Setting("multimodal.offload", ("bool",), "run the projector on the device"),
    Setting("multimodal.device", ("string",), "device of the projector, as the engine names it", form=_DEVICE),
    Setting("multimodal.image_min_tokens", ("int",), "tokens that an image takes at least, where resolution varies", minimum=1, maximum=1048576, instead=_MODELS_OWN),
    Setting("multimodal.image_max_tokens", ("int",), "tokens that an image takes at most, where resolution varies", minimum=1, maximum=1048576, instead=_MODELS_OWN),
    Setting("chat.jinja", ("bool",), "use the model's own chat template"),
    Setting("chat.template", ("string",), "a built-in template's name, or a Jinja template", form=_TEMPLATE),
    Setting("chat.template_file", ("path",), "file with a Jinja chat template"),
    Setting("chat.template_kwargs", ("table",), "values given to the chat template"),
    Setting("chat.parallel_tools", ("bool",), "let an answer call several tools at once"),
    Setting("reasoning.format", ("string",), "where thoughts are returned", choices=("none", "auto", "deepseek", "deepseek-legacy")),
    Setting("reasoning.mode", ("string",), "thinking", choices=("on", "off", "auto")),
    Setting("reasoning.budget", ("int",), "tokens of thinking; -1 unlimited, 0 none", minimum=-1, maximum=_INT31),
    Setting("reasoning.budget_message", ("string",), "text written when the budget for thinking is spent", form=_TEMPLATE),
    Setting("reasoning.preserve", ("bool",), "keep the thoughts of earlier answers in the prompt"),
    Setting("reasoning.effort", ("string",), "effort level handed to the chat template", form=_WORD),
    Setting("cache.prompt_ram_mib", ("int",), "host memory for cached prompts, MiB; -1 unlimited, 0 off", minimum=-1, maximum=1048576),
    Setting("cache.reuse", ("int",), "shortest chunk of a cached prompt that is shifted and used again, tokens; 0 is off", minimum=0, maximum=_INT31, instead={-1: "0, which is off"}),
    Setting("sampling.temperature", ("float",), "default temperature", minimum=0, maximum=100),
    Setting("sampling.top_k", ("int",), "default top-k; 0 is off", minimum=0, maximum=_INT31, instead={-1: "0, which is off"}),
    Setting("sampling.top_p", ("float",), "default top-p; 1 is off", minimum=0, maximum=1),
    Setting("sampling.min_p", ("float",), "default min-p; 0 is off", minimum=0, maximum=1),
    Setting("sampling.repeat_penalty", ("float",), "default repeat penalty; 1 is off", minimum=0.01, maximum=100),
    Setting("sampling.presence_penalty", ("float",), "default presence penalty; 0 is off", minimum=-100, maximum=100),
    Setting("sampling.frequency_penalty", ("float",), "default frequency penalty; 0 is off", minimum=-100, maximum=100),
    Setting("sampling.repeat_last_n", ("int",), "tokens that the penalties look back; 0 is off, -1 is the context", minimum=-1, maximum=_INT31),
    Setting("sampling.dry_multiplier", ("float",), "default DRY multiplier; 0 is off", minimum=0, maximum=100),
    Setting("sampling.dry_base", ("float",), "default DRY base", minimum=0, maximum=1000),
    Setting("sampling.dry_allowed_length", ("int",), "longest repetition that DRY allows, tokens", minimum=0, maximum=_INT31),
    Setting("sampling.dry_penalty_last_n", ("int",), "tokens that DRY looks back; 0 is off, -1 is the context", minimum=-1, maximum=_INT31),
    Setting("sampling.top_n_sigma", ("float",), "default top-n-sigma; -1 is off", minimum=-1, maximum=1000),
    Setting("sampling.samplers", ("strings",), "samplers in the order in which they are used", form=(r"[a-z][a-z0-9_-]*", "one sampler's name")),
    Setting("sampling.backend", ("bool",), "sample on the device where the engine can"),
    Setting("sampling.seed", ("int",), "default seed; -1 is random", minimum=-1, maximum=2**32 - 1),
    Setting("sampling.max_tokens", ("int",), "tokens per answer when the client sets no limit; -1 unlimited", minimum=-1, maximum=_INT31, instead={-2: "-1, which the context bounds as well"}),
    Setting("server.warmup", ("bool",), "run the model once, empty, before it is called ready"),
    Setting("server.embeddings", ("bool",), "serve embeddings only"),
    Setting("server.reranking", ("bool",), "serve reranking"),
    Setting("server.pooling", ("string",), "how an input's embedding is made; without it the file says so", choices=("none", "mean", "cls", "last", "rank")),
)  # fmt: skip

BY_PATH: Mapping[str, Setting] = {setting.path: setting for setting in SETTINGS}

TABLES: tuple[str, ...] = tuple(dict.fromkeys(setting.table for setting in SETTINGS))
