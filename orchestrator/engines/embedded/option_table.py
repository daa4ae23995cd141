"""The options of the embedded server: llama-server's own flags, as far as `xllamacpp.CommonParams` can express them.

What it cannot express is not accepted and not in the help: choosing devices (`-dev` other than `none`), `--rpc`, adapters,
metadata overrides, downloads, TLS, router mode, JSON logs. The environment (`LLAMA_ARG_*`) and upstream's config files are
not read.
"""

# ruff: noqa: E501  tables: one row a line

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.engines.embedded import options as o
from orchestrator.engines.embedded.options import Assignment, Enumerator, Option

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

SPECULATIVE_TYPES = {
    name: f"COMMON_SPECULATIVE_TYPE_{name.upper().replace('-', '_')}"
    for name in (
        "none", "draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark",
        "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache",
    )
}  # fmt: skip

_MIB = 1 << 20
_MAX_DEVICES = 16  # llama_max_devices
_TENSOR_SPLIT = 128  # the length of common_params.tensor_split
_FIT_TARGET_MIB = 1024

_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # LLM_FFN_EXPS_REGEX


def _cache_type(path: str) -> o.Reading:
    members = {name: f"GGML_TYPE_{name.upper()}" for name in CACHE_TYPES}
    return o.choice(path, "ggml_type", members, "Unsupported cache type: {}")


def _gpu_layers(path: str) -> o.Reading:
    words = {"auto": -1, "all": -2}
    return lambda value: [Assignment(path, words[value] if value in words else o.int_of(value))]


def _rope_scale(value: str) -> Sequence[Assignment]:
    factor = o.float_of(value)
    if factor == 0.0:
        raise ValueError("invalid value")

    return [Assignment("rope_freq_scale", 1.0 / factor)]


def _parallel(value: str) -> Sequence[Assignment]:
    slots = o.int_of(value)
    if slots == 0:
        raise ValueError("error: invalid value for n_parallel")

    return [Assignment("n_parallel", slots)]


def _fit_target(value: str) -> Sequence[Assignment]:
    margins = [o.int_of(word) for word in value.split(",")]
    if len(margins) > _MAX_DEVICES or min(margins) < 0:
        raise ValueError(f"got {value}, but the number of devices is {_MAX_DEVICES}")

    rest = margins[0] if len(margins) == 1 else _FIT_TARGET_MIB
    padded = margins + [rest] * (_MAX_DEVICES - len(margins))
    return [Assignment("fit_params_target", [margin * _MIB for margin in padded])]


def _tensor_split(value: str) -> Sequence[Assignment]:
    shares = [o.float_of(word) for word in value.split(",")]
    if len(shares) > _TENSOR_SPLIT:
        raise ValueError(f"got {len(shares)} input configs, but system only has {_TENSOR_SPLIT} devices")

    return [Assignment("tensor_split", shares + [0.0] * (_TENSOR_SPLIT - len(shares)))]


def _override(pattern: str) -> Assignment:
    return Assignment("tensor_buft_overrides", pattern, add=True)


def _n_cpu_moe(value: str) -> Sequence[Assignment]:
    layers = o.int_of(value)
    if layers < 0:
        raise ValueError("invalid value")

    return [_override(rf"blk\.{layer}{_EXPERTS}=CPU") for layer in range(layers)]


def _device(value: str) -> Sequence[Assignment]:
    if value != "none":
        raise ValueError(f"invalid device: {value}")

    return [Assignment("n_gpu_layers", 0)]


def _api_keys(value: str) -> Sequence[Assignment]:
    return [Assignment("api_keys", [key for key in value.split(",") if key], add=True)]


def _api_key_file(value: str) -> Sequence[Assignment]:
    lines = o.file_text(value).splitlines()
    return [Assignment("api_keys", [line for line in lines if line and not line.startswith("#")], add=True)]


def _aliases(value: str) -> Sequence[Assignment]:
    return [Assignment("model_alias", [name for name in map(str.strip, value.split(",")) if name], add=True)]


def _spec_types(value: str) -> Sequence[Assignment]:
    names = value.split(",")
    for name in names:
        if name not in SPECULATIVE_TYPES:
            raise ValueError(f"unknown speculative type: {name}")

    types = [Enumerator("common_speculative_type", SPECULATIVE_TYPES[name]) for name in names]
    return [Assignment("speculative.types", types)]


def _threads(value: str) -> Sequence[Assignment]:
    threads = o.int_of(value)
    return [] if threads <= 0 else [Assignment("cpuparams.n_threads", threads)]


def _threads_batch(value: str) -> Sequence[Assignment]:
    threads = o.int_of(value)
    return [] if threads <= 0 else [Assignment("cpuparams_batch.n_threads", threads)]


def _reasoning(state: int, thinking: str | None) -> Sequence[Assignment]:
    found = [Assignment("enable_reasoning", state)]
    if thinking is not None:
        found.append(Assignment("default_template_kwargs", {"enable_thinking": thinking}, add=True))

    return found


def _seed(value: str) -> Sequence[Assignment]:
    try:
        seed = int(value)
    except ValueError:
        raise ValueError("stoul") from None

    return [Assignment("sampling.seed", seed & 0xFFFFFFFF)]


def _plain_log(value: str) -> Sequence[Assignment]:
    # xllamacpp does not reach the logger's settings; without a terminal there are no colours anyway.
    if value not in ("off", "auto", "disabled", "false", "0", "-1"):
        raise ValueError(f"error: unknown value for --log-colors: '{value}'")

    return []


def _as_is(_: str) -> Sequence[Assignment]:
    return []


_FLASH = "llama_flash_attn_type"
_TYPES_DOC = "\nallowed values: " + ", ".join(CACHE_TYPES) + "\n(default: f16)"


def _n_gram(name: str) -> list[Option]:
    path = f"speculative.{name.replace('-', '_')}"
    rows = (
        ("size-n", 12, "length of the n-gram looked up"),
        ("size-m", 48, "length of the m-gram drafted"),
        ("min-hits", 1, "hits needed"),
    )
    return [
        Option(
            "speculative",
            (f"--spec-{name}-{key}",),
            f"{doc} for {name} speculative decoding (default: {default})",
            o.integer(f"{path}.{key.replace('-', '_')}"),
            "N",
        )
        for key, default, doc in rows
    ]


COMMON: tuple[Option, ...] = (
    Option("common", ("-h", "--help", "--usage"), "print usage and exit", _as_is, command="help"),
    Option("common", ("--version",), "show version and build info", _as_is, command="version"),
    Option("common", ("-t", "--threads"), "number of CPU threads to use during generation (default: -1)", _threads, "N"),
    Option("common", ("-tb", "--threads-batch"), "number of threads to use during batch and prompt processing (default: same as --threads)", _threads_batch, "N"),
    Option("common", ("-c", "--ctx-size"), "size of the prompt context (default: 0, 0 = loaded from model)", o.integer("n_ctx"), "N"),
    Option("common", ("-n", "--predict", "--n-predict"), "number of tokens to predict (default: -1, -1 = infinity)", o.integer("n_predict"), "N"),
    Option("common", ("-b", "--batch-size"), "logical maximum batch size (default: 2048)", o.integer("n_batch"), "N"),
    Option("common", ("-ub", "--ubatch-size"), "physical maximum batch size (default: 512)", o.integer("n_ubatch"), "N"),
    Option("common", ("--keep",), "number of tokens to keep from the initial prompt (default: 0, -1 = all)", o.integer("n_keep"), "N"),
    Option("common", ("--swa-full",), "use full-size SWA cache (default: false)", o.flag("swa_full")),
    Option(
        "common", ("--rope-scaling",), "RoPE frequency scaling method, defaults to linear unless specified by the model",
        o.choice("rope_scaling_type", "llama_rope_scaling_type", {name: f"LLAMA_ROPE_SCALING_TYPE_{name.upper()}" for name in ("none", "linear", "yarn")}),
        "{none,linear,yarn}",
    ),
    Option("common", ("--rope-scale",), "RoPE context scaling factor, expands context by a factor of N", _rope_scale, "N"),
    Option("common", ("--rope-freq-base",), "RoPE base frequency, used by NTK-aware scaling (default: loaded from model)", o.number("rope_freq_base"), "N"),
    Option("common", ("--rope-freq-scale",), "RoPE frequency scaling factor, expands context by a factor of 1/N", o.number("rope_freq_scale"), "N"),
    Option("common", ("--yarn-orig-ctx",), "YaRN: original context size of model (default: 0 = model training context size)", o.integer("yarn_orig_ctx"), "N"),
    Option("common", ("--yarn-ext-factor",), "YaRN: extrapolation mix factor (default: -1.00, 0.0 = full interpolation)", o.number("yarn_ext_factor"), "N"),
    Option("common", ("--yarn-attn-factor",), "YaRN: scale sqrt(t) or attention magnitude (default: -1.00)", o.number("yarn_attn_factor"), "N"),
    Option("common", ("--yarn-beta-slow",), "YaRN: high correction dim or alpha (default: -1.00)", o.number("yarn_beta_slow"), "N"),
    Option("common", ("--yarn-beta-fast",), "YaRN: low correction dim or beta (default: -1.00)", o.number("yarn_beta_fast"), "N"),
    Option(
        "common", ("-fa", "--flash-attn"), "set Flash Attention use ('on', 'off', or 'auto', default: 'auto')",
        o.three_way(
            "--flash-attn",
            [Assignment("flash_attn_type", Enumerator(_FLASH, "LLAMA_FLASH_ATTN_TYPE_ENABLED"))],
            [Assignment("flash_attn_type", Enumerator(_FLASH, "LLAMA_FLASH_ATTN_TYPE_DISABLED"))],
            [Assignment("flash_attn_type", Enumerator(_FLASH, "LLAMA_FLASH_ATTN_TYPE_AUTO"))],
        ),
        "[on|off|auto]",
    ),
    Option("common", ("-kvo", "--kv-offload"), "whether to enable KV cache offloading (default: enabled)", o.flag("no_kv_offload", inverted=True), off=("-nkvo", "--no-kv-offload")),
    Option("common", ("--repack",), "whether to enable weight repacking (default: enabled)", o.flag("no_extra_bufts", inverted=True), off=("-nr", "--no-repack")),
    Option("common", ("--no-host",), "bypass host buffer allowing extra buffers to be used", o.flag("no_host")),
    Option("common", ("-ctk", "--cache-type-k"), "KV cache data type for K" + _TYPES_DOC, _cache_type("cache_type_k"), "TYPE"),
    Option("common", ("-ctv", "--cache-type-v"), "KV cache data type for V" + _TYPES_DOC, _cache_type("cache_type_v"), "TYPE"),
    Option(
        "common", ("-lm", "--load-mode"),
        "model loading mode (default: auto)\n- auto: mmap, unless a device does not support it\n- none: no special loading mode\n"
        "- mmap: memory-map model\n- mlock: force system to keep model in RAM\n- mmap+mlock: both\n- dio: use DirectIO if available",
        o.choice("load_mode", "llama_load_mode", {
            "auto": "LLAMA_LOAD_MODE_AUTO", "none": "LLAMA_LOAD_MODE_NONE", "mmap": "LLAMA_LOAD_MODE_MMAP", "mlock": "LLAMA_LOAD_MODE_MLOCK",
            "mmap+mlock": "LLAMA_LOAD_MODE_MMAP_MLOCK", "dio": "LLAMA_LOAD_MODE_DIRECT_IO",
        }), "MODE",
    ),
    Option(
        "common", ("-lzm", "--lazy-mode"),
        "on-demand reading of certain tensors (default: auto)\n- on: read the rows of such tensors on demand\n"
        "- auto: on, but only for tensors larger than 4 GiB\n- off: always keep them resident",
        o.choice("lazy_mode", "llama_lazy_mode", {"on": "LLAMA_LAZY_MODE_ON", "auto": "LLAMA_LAZY_MODE_AUTO", "off": "LLAMA_LAZY_MODE_OFF"}), "MODE",
    ),
    Option(
        "common", ("--numa",),
        "attempt optimizations that help on some NUMA systems\n- distribute: spread execution evenly over all nodes\n"
        "- isolate: only spawn threads on CPUs on the node that execution started on\n- numactl: use the CPU map provided by numactl",
        o.choice("numa", "ggml_numa_strategy", {
            "distribute": "GGML_NUMA_STRATEGY_DISTRIBUTE", "isolate": "GGML_NUMA_STRATEGY_ISOLATE", "numactl": "GGML_NUMA_STRATEGY_NUMACTL",
        }), "TYPE",
    ),
    Option("common", ("-dev", "--device"), "devices to use for offloading; only 'none' can be chosen here (none = don't offload)", _device, "<none>"),
    Option("common", ("--list-devices",), "print list of available devices and exit", _as_is, command="devices"),
    Option("common", ("-ot", "--override-tensor"), "override tensor buffer type", lambda value: [_override(value)], "<tensor name pattern>=<buffer type>,..."),
    Option("common", ("-cmoe", "--cpu-moe"), "keep all Mixture of Experts (MoE) weights in the CPU", lambda _: [_override(f"{_EXPERTS}=CPU")]),
    Option("common", ("-ncmoe", "--n-cpu-moe"), "keep the Mixture of Experts (MoE) weights of the first N layers in the CPU", _n_cpu_moe, "N"),
    Option("common", ("-ngl", "--gpu-layers", "--n-gpu-layers"), "max. number of layers to store in VRAM, either an exact number, 'auto', or 'all' (default: auto)", _gpu_layers("n_gpu_layers"), "N"),
    Option(
        "common", ("-sm", "--split-mode"), "how to split the model across multiple GPUs (default: layer)",
        o.choice("split_mode", "llama_split_mode", {name: f"LLAMA_SPLIT_MODE_{name.upper()}" for name in ("none", "layer", "row", "tensor")}),
        "{none,layer,row,tensor}",
    ),
    Option("common", ("-ts", "--tensor-split"), "fraction of the model to offload to each GPU, comma-separated list of proportions, e.g. 3,1", _tensor_split, "N0,N1,N2,..."),
    Option("common", ("-mg", "--main-gpu"), "the GPU to use for the model (with split-mode = none) (default: 0)", o.integer("main_gpu"), "INDEX"),
    Option("common", ("-fit", "--fit"), "whether to adjust unset arguments to fit in device memory ('on' or 'off', default: 'on')", o.switch("fit_params", "--fit"), "[on|off]"),
    Option("common", ("-fitt", "--fit-target"), "target margin per device for --fit, comma-separated list of values, single value is broadcast across all devices, default: 1024", _fit_target, "MiB0,MiB1,MiB2,..."),
    Option("common", ("-fitc", "--fit-ctx"), "minimum ctx size that can be set by --fit option, default: 4096", o.integer("fit_params_min_ctx"), "N"),
    Option("common", ("--check-tensors",), "check model tensor data for invalid values (default: false)", o.flag("check_tensors")),
    Option("common", ("--op-offload",), "whether to offload host tensor operations to device (default: true)", o.flag("no_op_offload", inverted=True), off=("--no-op-offload",)),
    Option("common", ("-m", "--model"), "model path to load", o.text("model.path"), "FNAME"),
    Option("common", ("--log-colors",), "Set colored logging ('off' or 'auto', default: 'auto')\n'auto' enables colors when output is to a terminal", _plain_log, "[off|auto]"),
    Option("common", ("-v", "--verbose", "--log-verbose"), "Set verbosity level to infinity (i.e. log all messages, useful for debugging)", o.constant("verbosity", 2**31 - 1)),
    Option("common", ("--offline",), "Offline mode: forces use of cache, prevents network access", o.flag("offline")),
    Option("common", ("-lv", "--verbosity", "--log-verbosity"), "Set the verbosity threshold. Messages with a higher verbosity will be ignored. Values:\n - 0: generic output\n - 1: error\n - 2: warning\n - 3: info\n - 4: trace (more info)\n - 5: debug\n(default: 3)", o.integer("verbosity"), "N"),
    Option("common", ("--log-prefix",), "Enable prefix in log messages (always on here)", _as_is),
    Option("common", ("--log-timestamps",), "Enable timestamps in log messages (always on here)", _as_is),
)  # fmt: skip

SAMPLING: tuple[Option, ...] = (
    Option("sampling", ("--samplers",), "samplers that will be used for generation in the order, separated by ';'", o.text("sampling.samplers"), "SAMPLERS"),
    Option("sampling", ("-s", "--seed"), "RNG seed (default: -1, use random seed for -1)", _seed, "SEED"),
    Option("sampling", ("--ignore-eos",), "ignore end of stream token and continue generating", o.flag("sampling.ignore_eos")),
    Option("sampling", ("--temp", "--temperature"), "temperature (default: 0.80)", o.number("sampling.temp"), "N"),
    Option("sampling", ("--top-k",), "top-k sampling (default: 40, 0 = disabled)", o.integer("sampling.top_k"), "N"),
    Option("sampling", ("--top-p",), "top-p sampling (default: 0.95, 1.0 = disabled)", o.number("sampling.top_p"), "N"),
    Option("sampling", ("--min-p",), "min-p sampling (default: 0.05, 0.0 = disabled)", o.number("sampling.min_p"), "N"),
    Option("sampling", ("--repeat-last-n",), "last n tokens to consider for penalize (default: 64, 0 = disabled)", o.integer("sampling.penalty_last_n"), "N"),
    Option("sampling", ("--repeat-penalty",), "penalize repeat sequence of tokens (default: 1.00, 1.0 = disabled)", o.number("sampling.penalty_repeat"), "N"),
    Option("sampling", ("--presence-penalty",), "repeat alpha presence penalty (default: 0.00, 0.0 = disabled)", o.number("sampling.penalty_present"), "N"),
    Option("sampling", ("--frequency-penalty",), "repeat alpha frequency penalty (default: 0.00, 0.0 = disabled)", o.number("sampling.penalty_freq"), "N"),
    Option("sampling", ("--dry-multiplier",), "set DRY sampling multiplier (default: 0.00, 0.0 = disabled)", o.number("sampling.dry_multiplier"), "N"),
    Option("sampling", ("--dry-base",), "set DRY sampling base value (default: 1.75)", o.number("sampling.dry_base"), "N"),
    Option("sampling", ("--dry-allowed-length",), "set allowed length for DRY sampling (default: 2)", o.integer("sampling.dry_allowed_length"), "N"),
    Option("sampling", ("--dry-penalty-last-n",), "set DRY penalty for the last n tokens (default: 64, 0 = disable)", o.integer("sampling.dry_penalty_last_n"), "N"),
    Option("sampling", ("-bs", "--backend-sampling"), "enable backend sampling (experimental) (default: disabled)", o.flag("sampling.backend_sampling")),
)  # fmt: skip

SPECULATIVE: tuple[Option, ...] = (
    Option("speculative", ("--spec-draft-n-max",), "number of tokens to draft for speculative decoding (default: 3)", o.integer("speculative.draft.n_max"), "N"),
    Option("speculative", ("--spec-draft-n-min",), "minimum number of draft tokens to use for speculative decoding (default: 0)", o.integer("speculative.draft.n_min"), "N"),
    Option("speculative", ("--spec-draft-p-split", "--draft-p-split"), "speculative decoding split probability (default: 0.10)", o.number("speculative.draft.p_split"), "P"),
    Option("speculative", ("--spec-draft-p-min", "--draft-p-min"), "minimum speculative decoding probability (greedy) (default: 0.00)", o.number("speculative.draft.p_min"), "P"),
    Option("speculative", ("--spec-draft-backend-sampling",), "offload draft sampling to the backend (default: enabled)", o.flag("speculative.draft.backend_sampling"), off=("--no-spec-draft-backend-sampling",)),
    Option("speculative", ("--spec-draft-ngl", "-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft"), "max. number of draft model layers to store in VRAM, either an exact number, 'auto', or 'all' (default: auto)", _gpu_layers("speculative.draft.n_gpu_layers"), "N"),
    Option("speculative", ("--spec-draft-device", "-devd", "--device-draft"), "devices to use for offloading the draft model (none = don't offload)", o.text("speculative.draft.devices"), "<dev1,dev2,..>"),
    Option("speculative", ("--spec-draft-model", "-md", "--model-draft"), "draft model for speculative decoding (default: unused)", o.text("speculative.draft.mparams.path"), "FNAME"),
    Option("speculative", ("--spec-draft-type-k", "-ctkd", "--cache-type-k-draft"), "KV cache data type for K for the draft model" + _TYPES_DOC, _cache_type("speculative.draft.cache_type_k"), "TYPE"),
    Option("speculative", ("--spec-draft-type-v", "-ctvd", "--cache-type-v-draft"), "KV cache data type for V for the draft model" + _TYPES_DOC, _cache_type("speculative.draft.cache_type_v"), "TYPE"),
    Option("speculative", ("--spec-type",), "comma-separated list of types of speculative decoding to use (default: none)", _spec_types, ",".join(SPECULATIVE_TYPES)),
    Option("speculative", ("--spec-ngram-mod-n-min",), "minimum number of ngram tokens to use for ngram-based speculative decoding (default: 48)", o.integer("speculative.ngram_mod.n_min"), "N"),
    Option("speculative", ("--spec-ngram-mod-n-max",), "maximum number of ngram tokens to use for ngram-based speculative decoding (default: 64)", o.integer("speculative.ngram_mod.n_max"), "N"),
    Option("speculative", ("--spec-ngram-mod-n-match",), "ngram-mod lookup length (default: 24)", o.integer("speculative.ngram_mod.n_match"), "N"),
    *(option for name in ("ngram-simple", "ngram-map-k", "ngram-map-k4v") for option in _n_gram(name)),
)  # fmt: skip

SERVER: tuple[Option, ...] = (
    Option("example-specific", ("--kv-unified-per-slot",), "context limit per parallel slot (default: unset)", o.integer("kv_unified_per_slot"), "N"),
    Option("example-specific", ("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"), "max number of context checkpoints to create per slot (default: 32)", o.integer("n_ctx_checkpoints"), "N"),
    Option("example-specific", ("-cms", "--checkpoint-min-step"), "minimum spacing between context checkpoints in tokens (default: 8192, 0 = no minimum)", o.integer("checkpoint_min_step"), "N"),
    Option("example-specific", ("-cram", "--cache-ram"), "set the maximum cache size in MiB (default: 8192, -1 - no limit, 0 - disable)", o.integer("cache_ram_mib"), "N"),
    Option("example-specific", ("-kvu", "--kv-unified"), "use single unified KV buffer shared across all sequences (default: enabled if number of slots is auto)", o.flag("kv_unified"), off=("-no-kvu", "--no-kv-unified")),
    Option("example-specific", ("--context-shift",), "whether to use context shift on infinite text generation (default: disabled)", o.flag("ctx_shift"), off=("--no-context-shift",)),
    Option("example-specific", ("-sp", "--special"), "special tokens output enabled (default: false)", o.flag("special")),
    Option("example-specific", ("--warmup",), "whether to perform warmup with an empty run (default: enabled)", o.flag("warmup"), off=("--no-warmup",)),
    Option(
        "example-specific", ("--pooling",), "pooling type for embeddings, use model default if unspecified",
        o.choice("pooling_type", "llama_pooling_type", {name: f"LLAMA_POOLING_TYPE_{name.upper()}" for name in ("none", "mean", "cls", "last", "rank")}),
        "{none,mean,cls,last,rank}",
    ),
    Option("example-specific", ("-np", "--parallel"), "number of server slots (default: -1, -1 = auto)", _parallel, "N"),
    Option("example-specific", ("-cb", "--cont-batching"), "whether to enable continuous batching (default: enabled)", o.flag("cont_batching"), off=("-nocb", "--no-cont-batching")),
    Option("example-specific", ("-mm", "--mmproj"), "path to a multimodal projector file", o.text("mmproj.path"), "FILE"),
    Option("example-specific", ("--mmproj-offload",), "whether to enable GPU offloading for multimodal projector (default: enabled)", o.flag("mmproj_use_gpu"), off=("--no-mmproj-offload",)),
    Option("example-specific", ("--image-min-tokens",), "minimum number of tokens each image can take, only used by vision models with dynamic resolution (default: read from model)", o.integer("image_min_tokens"), "N"),
    Option("example-specific", ("--image-max-tokens",), "maximum number of tokens each image can take, only used by vision models with dynamic resolution (default: read from model)", o.integer("image_max_tokens"), "N"),
    Option("example-specific", ("-a", "--alias"), "set model name aliases, comma-separated (to be used by API)", _aliases, "STRING"),
    Option("example-specific", ("--host",), "IP addresses to listen on, comma-separated, or UNIX socket paths ending in .sock (default: 127.0.0.1)", lambda value: [Assignment("hostnames", value.split(","))], "HOST"),
    Option("example-specific", ("--port",), "port to listen (default: 8080)", o.integer("port"), "PORT"),
    Option("example-specific", ("--reuse-port",), "allow multiple sockets to bind to the same port (default: disabled)", o.flag("reuse_port")),
    Option("example-specific", ("--ui", "--webui"), "whether to enable the Web UI (default: enabled)", o.flag("ui"), off=("--no-ui", "--no-webui")),
    Option("example-specific", ("--embedding", "--embeddings"), "restrict to only support embedding use case; use only with dedicated embedding models (default: disabled)", o.flag("embedding")),
    Option(
        "example-specific", ("--rerank", "--reranking"), "enable reranking endpoint on server (default: disabled)",
        lambda _: [Assignment("embedding", True), Assignment("pooling_type", Enumerator("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK"))],
    ),
    Option("example-specific", ("--api-key",), "API key to use for authentication, multiple keys can be provided as a comma-separated list (default: none)", _api_keys, "KEY"),
    Option("example-specific", ("--api-key-file",), "path to file containing API keys, one per line; lines starting with a hash are treated as comments (default: none)", _api_key_file, "FNAME"),
    Option("example-specific", ("--chat-template-kwargs",), "sets additional params for the json template parser, must be a valid json object string", lambda value: [Assignment("default_template_kwargs", dict(o.json_texts(value)), add=True)], "STRING"),
    Option("example-specific", ("-to", "--timeout"), "server read/write timeout in seconds (default: 3600)", lambda value: [Assignment("timeout_read", o.int_of(value)), Assignment("timeout_write", o.int_of(value))], "N"),
    Option("example-specific", ("--sse-ping-interval",), "server SSE ping interval in seconds (-1 = disabled, default: 30)", o.integer("sse_ping_interval"), "N"),
    Option("example-specific", ("--threads-http",), "number of threads used to process HTTP requests (default: -1)", o.integer("n_threads_http"), "N"),
    Option("example-specific", ("--cache-prompt",), "whether to enable prompt caching (default: enabled)", o.flag("cache_prompt"), off=("--no-cache-prompt",)),
    Option("example-specific", ("--cache-reuse",), "min chunk size to attempt reusing from the cache via KV shifting, requires prompt caching to be enabled (default: 0)", o.integer("n_cache_reuse"), "N"),
    Option("example-specific", ("--metrics",), "enable prometheus compatible metrics endpoint (default: disabled)", o.flag("endpoint_metrics")),
    Option("example-specific", ("--props",), "enable changing global properties via POST /props (default: disabled)", o.flag("endpoint_props")),
    Option("example-specific", ("--slots",), "expose slots monitoring endpoint (default: enabled)", o.flag("endpoint_slots"), off=("--no-slots",)),
    Option("example-specific", ("--jinja",), "whether to use jinja template engine for chat (default: enabled)", o.flag("use_jinja"), off=("--no-jinja",)),
    Option(
        "example-specific", ("--reasoning-format",),
        "where thoughts are returned; one of:\n- none: leaves thoughts unparsed in `message.content`\n- deepseek: puts thoughts in `message.reasoning_content`\n"
        "- deepseek-legacy: keeps them in `message.content` too\n(default: auto)",
        o.choice("reasoning_format", "common_reasoning_format", {
            name: f"COMMON_REASONING_FORMAT_{name.upper().replace('-', '_')}" for name in ("none", "auto", "deepseek", "deepseek-legacy")
        }, "Unknown reasoning format: {}"), "FORMAT",
    ),
    Option(
        "example-specific", ("-rea", "--reasoning"), "Use reasoning/thinking in the chat ('on', 'off', or 'auto', default: 'auto')",
        o.three_way("--reasoning", _reasoning(1, "true"), _reasoning(0, "false"), _reasoning(-1, None)), "[on|off|auto]",
    ),
    Option("example-specific", ("--reasoning-budget",), "token budget for thinking: -1 for unrestricted, 0 for immediate end, N>0 for token budget (default: -1)", o.integer("sampling.reasoning_budget_tokens"), "N"),
    Option("example-specific", ("--reasoning-budget-message",), "message injected before the end-of-thinking tag when reasoning budget is exhausted (default: none)", o.text("sampling.reasoning_budget_message"), "MESSAGE"),
    Option("example-specific", ("--chat-template",), "set custom jinja chat template (default: template taken from model's metadata)", o.text("chat_template"), "JINJA_TEMPLATE"),
    Option("example-specific", ("--chat-template-file",), "set custom jinja chat template file (default: template taken from model's metadata)", lambda value: [Assignment("chat_template", o.file_text(value))], "JINJA_TEMPLATE_FILE"),
    Option("example-specific", ("-sps", "--slot-prompt-similarity"), "how much the prompt of a request must match the prompt of a slot in order to use that slot (default: 0.10, 0.0 = disabled)", o.number("slot_prompt_similarity"), "SIMILARITY"),
    Option("example-specific", ("--sleep-idle-seconds",), "number of seconds of idleness after which the server will sleep (default: -1; -1 = disabled)", o.integer("sleep_idle_seconds"), "SECONDS"),
)  # fmt: skip

OPTIONS: tuple[Option, ...] = (*COMMON, *SAMPLING, *SPECULATIVE, *SERVER)

DEFAULTS: tuple[Assignment, ...] = (
    # Where llama-server starts from something else than a bare `common_params`.
    Assignment("n_parallel", -1),
    Assignment("port", 8080),
    Assignment("reasoning_format", Enumerator("common_reasoning_format", "COMMON_REASONING_FORMAT_AUTO")),
)


def completed(assignments: Sequence[Assignment]) -> list[Assignment]:
    """The whole start: llama-server's defaults, the command line, and what follows from it."""
    given = {assignment.path: assignment for assignment in assignments}
    threads = given.get("cpuparams.n_threads")
    follows = []
    if threads is not None and "cpuparams_batch.n_threads" not in given:
        follows.append(Assignment("cpuparams_batch.n_threads", threads.value))

    return [*DEFAULTS, *assignments, *follows]
