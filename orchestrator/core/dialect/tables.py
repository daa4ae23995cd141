"""Every neutral setting and the ways to say it, as data.

A row holds forms in order of preference; the first that a build's own capabilities allow is used. Evidence for each
fact: the engines' `--help` and argument parsers (upstream `common/arg.cpp`, the fork's `common/common.cpp`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.settings import KV_TYPES, Value


class Shape(Enum):
    """The shape of a form on the command line."""

    VALUE = "value"
    """`--flag VALUE`; a list is one argument, joined by commas."""
    ON_OFF = "on/off"
    """`--flag on` or `--flag off`."""
    BARE = "bare"
    """`--flag` alone."""
    REPEATED = "repeated"
    """`--flag A --flag B`: each element of a list behind a flag of its own."""
    INDEXED = "indexed"
    """`--flag 0,A,1,B`: each value behind its device's index."""
    OMIT = "omit"
    """Nothing: it is what the build does anyway."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to say a setting.

    :param flags: spellings; the first that the build accepts with the arity of `shape` is used
    :param when: the values it is for, None for any
    :param of: the type of value it is for, None for any
    :param kinds: the dialects it is for, None for any
    :param types: the types of speculation it is for, None for any
    :param beside: flags that the build must know besides; `--x=` asks for one with a value, `--x!` for a bare one
    :param absent: flags that it must not know, written alike
    :param spelled: the word that stands for a value
    :param words: what it takes, where the help has no list; the fork's lists have gaps, so there they are added
    :param listed: only with a word that the help lists
    :param forbid: characters that no element may hold
    :param joiner: what stands between the elements of a list
    :param note: said when it is used
    """

    shape: Shape
    flags: tuple[str, ...] = ()
    when: tuple[Value, ...] | None = None
    of: type | None = None
    kinds: tuple[Kind, ...] | None = None
    types: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    spelled: Mapping[Value, str] = field(default_factory=dict)
    words: tuple[str, ...] | None = None
    listed: bool = False
    forbid: str = ""
    joiner: str = ","
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    :param nearest: the nearest thing that a build without it can do, as the end of a sentence
    :param nearest_for: the same where it differs by dialect
    :param substitutes: the nearest value that such a build takes, for a value that it does not take
    :param only: values that one dialect alone has, and which
    :param default: passed when the profile says nothing, because the engines' own defaults differ
    :param default_unless: flags that show that the build's own default is the same
    """

    setting: str
    forms: tuple[Form, ...]
    nearest: str = "drop it"
    nearest_for: Mapping[Kind, str] = field(default_factory=dict)
    substitutes: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, str] = field(default_factory=dict)
    default: Value | None = None
    default_unless: tuple[str, ...] = ()


DEFAULT = "nothing to pass, it is what this build does by default"

_UPSTREAM: tuple[Kind, ...] = ("upstream", "unknown")
_FORK: tuple[Kind, ...] = ("ik",)


def value(*flags: str) -> tuple[Form, ...]:
    """Return the forms of a setting that each of these flags takes as its value."""
    return (Form(Shape.VALUE, flags),)


def switch(on: str | None, off: str | None, *, default: bool) -> tuple[Form, ...]:
    """Return the forms of a boolean with a flag for each side, or for the one that is not the default."""
    forms = [Form(Shape.BARE, (flag,), when=(state,)) for flag, state in ((on, True), (off, False)) if flag is not None]
    known = tuple(flag for flag in (off if default else on,) if flag is not None)
    return (*forms, Form(Shape.OMIT, when=(default,), beside=known, note=DEFAULT))


def option(flag: str, *, note: str = "") -> tuple[Form, ...]:
    """Return the forms of what is off unless asked for; a build without the flag cannot be doing it."""
    return (Form(Shape.BARE, (flag,), when=(True,), note=note), Form(Shape.OMIT, when=(False,), note=DEFAULT))


ONLY_FORK = "only the fork has it"
ONLY_UPSTREAM = "only upstream has it"

_FORK_KV = {"q6_0": "q5_1", "q8_KV": "q8_0"}
_OTHER_KV = {"turbo4": "q4_0", "turbo3": "q4_0", "turbo2": "q4_0"}
_KV_SUBSTITUTES = {**_FORK_KV, **_OTHER_KV}
_KV_ONLY = {**dict.fromkeys(_FORK_KV, ONLY_FORK), **dict.fromkeys(_OTHER_KV, "only further forks of upstream have it")}


def kv(setting: str, *flags: str) -> Row:
    """Return the row of a KV cache type; the dialects differ in the types that they know."""
    forms = (
        Form(
            Shape.VALUE, flags, kinds=_UPSTREAM, words=tuple(kind for kind in KV_TYPES if kind not in _KV_SUBSTITUTES)
        ),
        Form(Shape.VALUE, flags, kinds=_FORK, words=tuple(kind for kind in KV_TYPES if kind not in _OTHER_KV)),
    )
    return Row(setting, forms, substitutes=_KV_SUBSTITUTES, only=_KV_ONLY)


def layers(setting: str, *flags: str) -> Row:
    """Return the row of a number of layers on devices.

    Upstream takes `auto` and `all` since it fits (both December 2025 to January 2026); the fork takes numbers alone.
    """
    return Row(setting, (
        Form(Shape.VALUE, flags, kinds=_UPSTREAM, beside=("--fit-target=",)),
        Form(Shape.VALUE, flags, of=int),
        Form(Shape.VALUE, flags, when=("all",), spelled={"all": "999"}, note="`all` is written 999: this build takes a number only"),
        Form(Shape.VALUE, flags, when=("auto",), kinds=_FORK, spelled={"auto": "999"}, note="`auto` is written 999: without a number, older builds of the fork leave every layer in host memory"),
    ), nearest="nearest here a number of layers")  # fmt: skip


_MERGED = "what is merged is read, not mapped"

_SPLITS_FORK = ("none", "layer", "attn", "graph")
_SPLITS_UPSTREAM = ("none", "layer", "row")

PLACEMENT: tuple[Row, ...] = (
    Row("context.size", (
        Form(Shape.VALUE, ("--ctx-size",), when=(0,), beside=("--fit-ctx=",), note="an explicit 0 keeps fitting from reducing the context; leave it out to allow that"),
        Form(Shape.VALUE, ("--ctx-size",)),
    )),
    Row("context.parallel", value("--parallel"), default=1),
    Row("context.unified_kv", (
        Form(Shape.BARE, ("--kv-unified",), when=(True,)),
        Form(Shape.BARE, ("--no-kv-unified",), when=(False,)),
        Form(Shape.OMIT, when=(True,), kinds=_FORK, note="nothing to pass, this build always has one KV buffer for all slots"),
        Form(Shape.OMIT, when=(False,), beside=("--kv-unified",), note=DEFAULT),
    ), nearest_for={"ik": "it always has one KV buffer for all slots; `context.parallel = 1` gives each request all of it"}),
    Row("context.shift", (
        Form(Shape.ON_OFF, ("--context-shift",)),
        Form(Shape.BARE, ("--context-shift",), when=(True,)),
        Form(Shape.BARE, ("--no-context-shift",), when=(False,)),
        Form(Shape.OMIT, when=(True,), beside=("--no-context-shift",), note=DEFAULT),
    ), default=False, default_unless=("--context-shift!",)),
    Row("context.checkpoints", value("--ctx-checkpoints", "--swa-checkpoints")),
    Row(
        "context.checkpoint_min_step", value("--checkpoint-min-step", "--ctx-checkpoints-interval"),
        nearest="nearest here `--checkpoint-every-n-tokens` in `extra_args`, where the build has it",
    ),
    Row("context.swa_full", option("--swa-full")),
    Row("rope.scaling", value("--rope-scaling")),
    Row("rope.scale", value("--rope-scale")),
    Row("rope.freq_base", value("--rope-freq-base")),
    Row("rope.freq_scale", value("--rope-freq-scale")),
    Row("rope.original_context", value("--yarn-orig-ctx")),
    Row("rope.yarn_ext_factor", value("--yarn-ext-factor")),
    Row("rope.yarn_attn_factor", value("--yarn-attn-factor")),
    Row("rope.yarn_beta_slow", value("--yarn-beta-slow")),
    Row("rope.yarn_beta_fast", value("--yarn-beta-fast")),
    Row("batch.size", value("--batch-size")),
    Row("batch.ubatch", value("--ubatch-size")),
    Row("cpu.threads", (Form(Shape.OMIT, when=("auto",), note=DEFAULT), *value("--threads"))),
    Row("cpu.threads_batch", (Form(Shape.OMIT, when=("auto",), note=DEFAULT), *value("--threads-batch"))),
    Row("cpu.pin", (Form(Shape.OMIT, note="nothing to pass, orch binds the process itself"),)),
    Row("cpu.numa", value("--numa")),
    layers("memory.gpu_layers", "--n-gpu-layers", "--gpu-layers"),
    Row("memory.cpu_moe", option("--cpu-moe"), nearest='nearest here `memory.tensor_overrides = ["exps=CPU"]`'),
    Row("memory.n_cpu_moe", value("--n-cpu-moe"), nearest="nearest here `memory.tensor_overrides` with a regex for those layers"),
    Row("memory.n_cpu_ffn", value("--n-cpu-ffn"), nearest="nearest here `memory.tensor_overrides` with a regex for those layers"),
    Row("memory.tensor_overrides", value("--override-tensor"), nearest="nearest here `memory.n_cpu_moe`"),
    Row("memory.split", (
        Form(Shape.VALUE, ("--split-mode",), kinds=_UPSTREAM, words=_SPLITS_UPSTREAM),
        Form(Shape.VALUE, ("--split-mode",), kinds=_FORK, words=_SPLITS_FORK),
    ), substitutes={"row": "layer", "tensor": "layer", "attn": "layer", "graph": "layer"},
       only={"row": ONLY_UPSTREAM, "tensor": ONLY_UPSTREAM, "attn": ONLY_FORK, "graph": ONLY_FORK}),
    Row("memory.tensor_split", value("--tensor-split")),
    Row("memory.main_gpu", value("--main-gpu")),
    Row("memory.devices", (
        Form(Shape.VALUE, ("--device",), kinds=_FORK, forbid="-"),
        Form(Shape.VALUE, ("--device",), kinds=_UPSTREAM),
    ), nearest="nearest here CUDA_VISIBLE_DEVICES in the daemon's environment"),
    Row("memory.rpc", value("--rpc"), nearest="use a build with GGML_RPC"),
)  # fmt: skip
"""The settings that come before the load mode: context, threads and placement."""

LOAD_FLAGS: tuple[Row, ...] = (
    Row("memory.mmap", switch("--mmap", "--no-mmap", default=True)),
    Row("memory.mlock", option("--mlock")),
    Row(
        "memory.direct_io",
        option("--direct-io"),
        nearest="nearest here `memory.mmap = false` reads the file, through the page cache",
    ),
)
"""For builds without `--load-mode`."""

LOAD_MODES = ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")

FITTING: tuple[Row, ...] = (
    Row("memory.prefetch", (Form(Shape.OMIT, note="nothing to pass, orch itself goes by it"),)),
    Row("memory.require_device", (Form(Shape.OMIT, note="nothing to pass, orch itself goes by it"),)),
    Row("memory.repack", (
        Form(Shape.BARE, ("--run-time-repack",), when=(True,), note="repacking while loading reads the file instead of mapping it here"),
        Form(Shape.OMIT, when=(False,), beside=("--run-time-repack",), note=DEFAULT),
        *switch("--repack", "--no-repack", default=True),
    )),
    Row("memory.defer_experts", (
        Form(Shape.BARE, ("--defer-experts",), when=(True,), note="it turns the warm-up off"),
        Form(Shape.OMIT, when=(False,), note="nothing to pass, experts are read while loading"),
    ), nearest="nearest here `memory.mmap = true`, where the kernel reads pages when they are first touched"),
    Row("memory.lazy", (
        Form(Shape.VALUE, ("--lazy-mode",), words=("on", "auto", "off")),
        Form(Shape.OMIT, when=("off", "auto"), note="nothing to pass, this build keeps what it reads"),
    ), nearest="nearest here `memory.mmap = true`, where the kernel reads pages when they are first touched"),
    Row("memory.op_offload", switch("--op-offload", "--no-op-offload", default=True), nearest_for={"ik": "nearest here `extra_args` with `-op`, by operation"}),
    Row("memory.fused_moe", (
        Form(Shape.BARE, ("--fused-moe",), when=(True,)),
        *switch(None, "--no-fused-moe", default=True),
    ), nearest="upstream has no such kernels; drop it, or set it for the fork alone"),
    Row("memory.merge_qkv", option("--merge-qkv", note=_MERGED), nearest="upstream has no such option; set it for the fork alone"),
    Row("memory.merge_experts", option("--merge-up-gate-experts", note=_MERGED), nearest="upstream takes files whose experts are merged; set it for the fork alone"),
    Row("memory.graph_reuse", (
        *switch("--graph-reuse", "--no-graph-reuse", default=True),
        Form(Shape.OMIT, when=(True,), kinds=_UPSTREAM, note="nothing to pass, this build always reuses graphs where it can"),
    ), nearest="drop it; LLAMA_GRAPH_REUSE_DISABLE=1 in the environment turns it off in upstream"),
    Row("memory.fit_min_context", value("--fit-ctx"), nearest="drop it or use a build that fits", nearest_for={
        "ik": "this build's fit never changes the context; drop it or use upstream",
    }),
    Row("memory.fit", (
        Form(Shape.ON_OFF, ("--fit",)),
        Form(Shape.BARE, ("--fit",), when=(True,)),
        Form(Shape.OMIT, when=(False,), absent=("--fit=",), note="nothing to pass, this build does not fit unless asked"),
    ), nearest="place the model by hand with `memory.gpu_layers` and `memory.n_cpu_moe`"),
    Row("memory.fit_margin", (
        Form(Shape.VALUE, ("--fit-target",)),
        Form(Shape.VALUE, ("--fit-margin",), of=int),
        Form(Shape.INDEXED, ("--gpu-fit-margin",), of=tuple),
    ), nearest="drop it; this build has no fit", nearest_for={"ik": "nearest here one number, which holds for every device"}),
)  # fmt: skip
"""The settings between the load mode and speculation."""

REST: tuple[Row, ...] = (
    kv("kv.k", "--cache-type-k"),
    kv("kv.v", "--cache-type-v"),
    Row("kv.offload", switch("--kv-offload", "--no-kv-offload", default=True)),
    Row("kv.k_hadamard", switch("--k-cache-hadamard", None, default=False), nearest="upstream rotates quantised caches by itself where it can; drop it"),
    Row("kv.v_hadamard", switch("--v-cache-hadamard", None, default=False), nearest="upstream rotates quantised caches by itself where it can; drop it"),
    Row("attention.flash", (
        Form(Shape.VALUE, ("--flash-attn",), kinds=_FORK, when=("auto",), note="`auto` means on here"),
        Form(Shape.VALUE, ("--flash-attn",)),
        Form(Shape.BARE, ("--flash-attn",), when=(True, "on")),
        Form(Shape.BARE, ("--no-flash-attn",), when=(False, "off")),
        Form(Shape.OMIT, when=(False, "off"), beside=("--flash-attn",), absent=("--flash-attn=",), note=DEFAULT),
        Form(Shape.OMIT, when=(True, "on", "auto"), beside=("--no-flash-attn",), absent=("--flash-attn",), note=DEFAULT),
    ), nearest="nearest here `true` or `false`"),
    Row("attention.mla", value("--mla-use"), nearest="upstream chooses the mode itself; drop it"),
    Row("attention.max_batch_mib", value("--attention-max-batch"), nearest="nearest here `batch.ubatch`, which the compute buffers grow with"),
    Row("multimodal.mmproj", value("--mmproj")),
    Row("multimodal.offload", switch("--mmproj-offload", "--no-mmproj-offload", default=True)),
    Row("multimodal.device", value("--mmproj-device"), nearest="nearest here `multimodal.offload`, the first device or the CPU"),
    Row("multimodal.image_min_tokens", value("--image-min-tokens")),
    Row("multimodal.image_max_tokens", value("--image-max-tokens")),
    # Before the templates: upstream takes other than its built-in ones only when this came first.
    Row("chat.jinja", (
        Form(Shape.BARE, ("--jinja",), when=(True,)),
        Form(Shape.BARE, ("--no-jinja",), when=(False,)),
        Form(Shape.OMIT, when=(False,), beside=("--jinja",), note=DEFAULT),
    ), default=True, default_unless=("--no-jinja",)),
    Row("chat.template", value("--chat-template")),
    Row("chat.template_file", value("--chat-template-file")),
    Row("chat.template_kwargs", value("--chat-template-kwargs")),
    Row("chat.parallel_tools", (
        *option("--parallel-tool-calls")[:1],
        Form(Shape.OMIT, when=(True,), kinds=_UPSTREAM, note="nothing to pass, the template and each request decide here"),
        Form(Shape.OMIT, when=(False,), kinds=_FORK, note=DEFAULT),
    ), nearest='nearest here `"parallel_tool_calls": false` in each request', nearest_for={"ik": "use a newer build of the fork"}),
    Row("reasoning.format", (Form(Shape.VALUE, ("--reasoning-format",), words=("none", "auto", "deepseek", "deepseek-legacy")),)),
    Row("reasoning.mode", (
        Form(Shape.VALUE, ("--reasoning",), words=("on", "off", "auto")),
        Form(Shape.OMIT, when=("auto",), note="nothing to pass, the template decides here"),
    ), nearest="nearest here `reasoning.budget = 0` turns thinking off, -1 leaves it to the template"),
    Row("reasoning.budget", (
        Form(Shape.VALUE, ("--reasoning-budget",), beside=("--reasoning-budget-message=",)),  # both came together
        Form(Shape.VALUE, ("--reasoning-budget",), when=(-1, 0)),
    ), nearest="nearest here -1 (no limit) or 0 (no thinking)"),
    Row("reasoning.budget_message", value("--reasoning-budget-message"), nearest="the thinking ends without a text here"),
    Row("reasoning.preserve", (
        Form(Shape.BARE, ("--reasoning-preserve",), when=(True,)),
        Form(Shape.BARE, ("--no-reasoning-preserve",), when=(False,)),
    ), nearest="nearest here `chat.template_kwargs`, where the model's template has a word for it"),
    Row("reasoning.effort", value("--reasoning-effort"), nearest='nearest here `chat.template_kwargs = { reasoning_effort = "..." }`'),
    Row("cache.prompt_ram_mib", (
        *value("--cache-ram"),
        Form(Shape.OMIT, when=(0,), note="nothing to pass, this build keeps no prompts in host memory"),
    )),
    Row("cache.reuse", (
        *value("--cache-reuse"),
        Form(Shape.OMIT, when=(0,), note="nothing to pass, this build shifts no cached chunks"),
    ), nearest="drop it; the common beginning of prompts is reused by itself"),
    Row("sampling.temperature", value("--temp")),
    Row("sampling.top_k", value("--top-k")),
    Row("sampling.top_p", value("--top-p")),
    Row("sampling.min_p", value("--min-p")),
    Row("sampling.repeat_penalty", value("--repeat-penalty")),
    Row("sampling.presence_penalty", value("--presence-penalty")),
    Row("sampling.frequency_penalty", value("--frequency-penalty")),
    Row("sampling.repeat_last_n", value("--repeat-last-n")),
    Row("sampling.dry_multiplier", value("--dry-multiplier")),
    Row("sampling.dry_base", value("--dry-base")),
    Row("sampling.dry_allowed_length", value("--dry-allowed-length")),
    Row("sampling.dry_penalty_last_n", value("--dry-penalty-last-n")),
    Row("sampling.top_n_sigma", value("--top-n-sigma")),
    Row("sampling.samplers", (Form(Shape.VALUE, ("--samplers",), joiner=";"),)),
    Row("sampling.backend", option("--backend-sampling"), nearest="this build samples on the CPU; drop it"),
    Row("sampling.seed", value("--seed")),
    Row("sampling.max_tokens", value("--predict", "--n-predict")),
    Row("server.warmup", switch("--warmup", "--no-warmup", default=True)),
    Row("server.embeddings", (
        Form(Shape.BARE, ("--embeddings", "--embedding"), when=(True,)),
        Form(Shape.OMIT, when=(False,), note=DEFAULT),
    )),
    Row("server.reranking", (
        Form(Shape.BARE, ("--reranking", "--rerank"), when=(True,)),
        Form(Shape.OMIT, when=(False,), note=DEFAULT),
    ), nearest="use upstream"),
    Row("server.pooling", (
        Form(Shape.VALUE, ("--pooling",), kinds=_UPSTREAM),
        Form(Shape.VALUE, ("--pooling",), kinds=_FORK, words=("none", "mean", "cls", "last")),
    ), substitutes={"rank": "the file's own (leave it out)"}),
)  # fmt: skip
"""The settings after speculation."""

ADAPTERS: tuple[Row, ...] = (
    # A comma list of adapters and of overrides came in December 2025, as fitting did; the fork repeats its flags.
    Row("lora.adapters", (
        Form(Shape.VALUE, ("--lora",), beside=("--fit-target=",), forbid='"'),
        Form(Shape.REPEATED, ("--lora",)),
    )),
    Row("lora.scales", value("--lora-scaled")),
    Row("lora.apply", (
        Form(Shape.BARE, ("--lora-init-without-apply",), when=(False,)),
        Form(Shape.OMIT, when=(True,), note=DEFAULT),
    )),
)  # fmt: skip
"""The settings of LoRA adapters; `core/dialect/adapters.py` puts files and scales together."""
