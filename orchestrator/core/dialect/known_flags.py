"""What well-known flags are called in a profile: for hints, and to tell a flag of the other engine from a slip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from orchestrator.core.dialect.capabilities import normal_spelling
from orchestrator.core.dialect.owned_flags import REFUSED_FLAGS
from orchestrator.core.dialect.speculative import ROWS as SPECULATIVE_ROWS
from orchestrator.core.dialect.speculative import TYPE
from orchestrator.core.dialect.tables import ADAPTERS, FITTING, LOAD_FLAGS, PLACEMENT, REST

_OTHER_SPELLINGS: Mapping[str, str] = {
    "-t": "cpu.threads", "-tb": "cpu.threads_batch", "-b": "batch.size", "-ub": "batch.ubatch",
    "-fa": "attention.flash", "-sm": "memory.split", "-ts": "memory.tensor_split", "-mg": "memory.main_gpu",
    "-dev": "memory.devices", "-md": "speculative.draft_model", "--draft-model": "speculative.draft_model",
    "-ngld": "speculative.draft_gpu_layers", "-devd": "speculative.draft_devices",
    "-ctkd": "speculative.kv_k", "-ctvd": "speculative.kv_v", "--draft": "speculative.draft_max",
    "--draft-n": "speculative.draft_max", "--draft-n-min": "speculative.draft_min", "-mtp": "speculative.type",
    "--multi-token-prediction": "speculative.type", "--spec-stage": "speculative.type",
    "-mm": "multimodal.mmproj", "-mmdev": "multimodal.device", "-s": "sampling.seed", "-n": "sampling.max_tokens",
    "--temperature": "sampling.temperature", "--n-predict": "sampling.max_tokens",
    "--max-tokens": "sampling.max_tokens", "--repetition-penalty": "sampling.repeat_penalty",
    "--top-nsigma": "sampling.top_n_sigma", "-bs": "sampling.backend", "-nkvo": "kv.offload", "-kvo": "kv.offload",
    "-kvu": "context.unified_kv", "-no-kvu": "context.unified_kv", "-ctxcp": "context.checkpoints",
    "-ctx-ckpt": "context.checkpoints", "-cms": "context.checkpoint_min_step",
    "-ctx-ckpt-i": "context.checkpoint_min_step", "--checkpoint-every-n-tokens": "context.checkpoint_min_step",
    "-cpent": "context.checkpoint_min_step", "-cram": "cache.prompt_ram_mib", "-rea": "reasoning.mode",
    "-rtr": "memory.repack", "-nr": "memory.repack", "-fmoe": "memory.fused_moe", "-no-fmoe": "memory.fused_moe",
    "-gr": "memory.graph_reuse", "-no-gr": "memory.graph_reuse", "-mla": "attention.mla",
    "-amb": "attention.max_batch_mib", "-khad": "kv.k_hadamard", "-vhad": "kv.v_hadamard",
    "-mqkv": "memory.merge_qkv", "-muge": "memory.merge_experts", "-ptcall": "chat.parallel_tools",
    "-dio": "memory.direct_io", "-lm": "memory.mmap", "--load-mode": "memory.mmap",
    "--no-direct-io": "memory.direct_io",
    "-ndio": "memory.direct_io", "-lzm": "memory.lazy", "--lora-scaled": "lora.scales", "--lora-base": "lora.adapters",
    "-okv": "override_kv", "--override-kv": "override_kv", "--embedding": "server.embeddings",
    "--rerank": "server.reranking", "-c": "context.size", "-np": "context.parallel", "-ngl": "memory.gpu_layers",
    "-ot": "memory.tensor_overrides", "-cmoe": "memory.cpu_moe", "-ncmoe": "memory.n_cpu_moe", "-ctk": "kv.k",
    "-ctv": "kv.v", "-fit": "memory.fit", "-fitt": "memory.fit_margin", "-fitc": "memory.fit_min_context",
    "-m": "model", "--model": "model", "-a": "aliases", "--alias": "aliases",
}  # fmt: skip
"""Short, older and mistaken spellings, and what no row of the tables has."""

_ON_ANYWAY = "both engines do it by themselves: drop it"
_COMMAND_LINE_TOOL = "it is for the command line program, no server reads it: drop it"

NEEDLESS: Mapping[str, str] = {
    "-cb": _ON_ANYWAY, "--cont-batching": _ON_ANYWAY,
    "--no-mmproj": "it matters with downloads alone: drop it, or drop `multimodal.mmproj`",
    "--no-mmproj-auto": "it matters with downloads alone: drop it",
    **dict.fromkeys(
        (
            "-p", "--prompt", "-f", "--file", "-cnv", "--conversation", "-no-cnv", "-i", "--interactive", "--color",
            "-co", "--verbose-prompt", "--no-display-prompt", "--display-prompt", "-st", "--single-turn", "-e",
            "--simple-io", "--reverse-prompt", "-r", "-sys", "--system-prompt",
        ),
        _COMMAND_LINE_TOOL,
    ),
}  # fmt: skip
"""Flags that are often copied and say nothing to a server."""

_UPSTREAM = (
    "--adaptive-decay --adaptive-target --cache-idle-slots --cache-prompt --check-tensors --control-vector"
    " --control-vector-layer-range --control-vector-scaled --cpu-mask --cpu-mask-batch --cpu-range --cpu-range-batch"
    " --cpu-strict --cpu-strict-batch --dry-sequence-breaker --dynatemp-exp --dynatemp-range --embd-normalize --grammar"
    " --grammar-file --json-schema --json-schema-file --keep --kv-unified-per-slot --logit-bias --lookup-cache-static"
    " --mirostat --mirostat-ent --mirostat-lr --mtmd-batch-max-tokens --no-cache-idle-slots --no-cache-prompt"
    " --no-cont-batching --no-host --no-prefill-assistant --poll --poll-batch --prefill-assistant --prio --prio-batch"
    " --sampler-seq --sampling-seq --skip-chat-parsing --slot-prompt-similarity --spec-draft-backend-sampling"
    " --spec-draft-p-split --spec-default --special --spm-infill --sse-ping-interval --threads-http --timeout --typical"
    " --typical-p --xtc-probability --xtc-threshold"
    " -l -nocb -sps -to -C -Cr -Cb -Crb -lcs"
)
_FORK = (
    "--adaptive-decay --adaptive-target --ctx-checkpoints-eviction --ctx-checkpoints-tolerance --cuda-params"
    " --dsa-top-k --fused-delta-net --fused-indexer-topk --graph-attn-precision --graph-reduce-type"
    " --grouped-expert-routing --indexer-cache-type-k --max-extra-alloc --max-gpu --mtmd-kq-type"
    " --mtp-requantize-output-tensor --no-fused-mul-multiadd --no-fused-up-gate --no-offload-only-active-experts"
    " --offload-only-active-experts --offload-policy --prefetch-experts --prefetch-experts-threads"
    " --scheduler-async --smart-expert-reduction --split-mode-f16 --split-mode-graph-scheduling --suffix-corpus"
    " --suffix-max-depth --swa-compress --threads-mtmd --transparent-huge-pages --warmup-batch"
    " -dsatk -fdn -fidx -gap -ger -grt -ictk -mtprot -no-fug -no-mmad -no-ooae -ooae -op -sas -ser -smf16 -smgs -thp"
    " -tm -cuda -wb -ctx-ckpt-e -ctx-ckpt-t"
)
ENGINES_OF: Mapping[str, tuple[str, ...]] = {
    flag: tuple(engine for engine, flags in (("upstream", _UPSTREAM), ("ik-fork", _FORK)) if flag in flags.split())
    for flag in f"{_UPSTREAM} {_FORK}".split()
}
"""Flags that have no setting, and the engines that know them: for `[engine.ID] extra_args`."""


@cache
def settings_of_flags() -> Mapping[str, str]:
    """Return every known spelling of a flag with the setting that means it."""
    rows = (*PLACEMENT, *LOAD_FLAGS, *FITTING, TYPE, *SPECULATIVE_ROWS, *REST, *ADAPTERS)
    # The first row of a flag is its own: some are forms of a second setting as well.
    from_rows: dict[str, str] = {}
    for row in rows:
        for flag in (flag for form in row.forms for flag in form.flags):
            from_rows.setdefault(flag, row.setting)

    return {**_OTHER_SPELLINGS, **from_rows}


def explain_flag(flag: str) -> str | None:
    """Return what to write instead of a flag, wherever somebody tried it; None for one that is not known."""
    flag = normal_spelling(flag)
    setting = settings_of_flags().get(flag)
    if setting is not None:
        return f"`{flag}` is said by `{setting}`"

    if flag in NEEDLESS:
        return f"`{flag}`: {NEEDLESS[flag]}"

    if flag in REFUSED_FLAGS:
        return f"`{flag}` belongs to orch: {REFUSED_FLAGS[flag]}"

    engines = ENGINES_OF.get(flag)
    if engines is not None:
        places = " or ".join(f"`[engine.{engine}] extra_args`" for engine in engines)
        return f"no key for `{flag}`: put it into {places}"

    return None


def explain_key(table: str, key: str) -> str | None:
    """Return what a key means that no profile has: it may be a flag's name, its table's included, or a short form."""
    for flag in _flags_of(table, key):
        found = explain_flag(flag)
        if found is not None:
            return found

    return None


def _flags_of(table: str, key: str) -> Iterator[str]:
    word = key.lower().replace("_", "-").strip("-")
    yield f"--{word}"
    yield f"-{word}"
    if table:
        yield f"--{table.replace('_', '-')}-{word}"

    meant = _MEANT.get(word)
    if meant is not None:
        yield meant


_MEANT: Mapping[str, str] = {
    "original-context": "--yarn-orig-ctx", "orig-ctx": "--yarn-orig-ctx", "original-ctx": "--yarn-orig-ctx",
    "yarn": "--rope-scaling", "rope-factor": "--rope-scale", "factor": "--rope-scale", "rope-theta": "--rope-freq-base",
    "rope-base": "--rope-freq-base", "freq-base": "--rope-freq-base", "freq-scale": "--rope-freq-scale",
    "ext-factor": "--yarn-ext-factor", "attn-factor": "--yarn-attn-factor", "beta-fast": "--yarn-beta-fast",
    "beta-slow": "--yarn-beta-slow",
    "scale": "--rope-scale", "adapter": "--lora", "adapters": "--lora", "lora-adapters": "--lora",
    "lora-scale": "--lora-scaled", "kv-override": "--override-kv", "kv-overrides": "--override-kv",
    "metadata": "--override-kv", "n-ctx": "--ctx-size", "ctx": "--ctx-size", "context-length": "--ctx-size",
    "context-size": "--ctx-size", "num-ctx": "--ctx-size", "max-context": "--ctx-size", "slots": "--parallel",
    "max-concurrency": "--parallel", "n-gpu": "--n-gpu-layers", "gpu-layers-draft": "--spec-draft-ngl",
    "num-gpu": "--n-gpu-layers", "offload-layers": "--n-gpu-layers", "n-threads": "--threads",
    "num-thread": "--threads", "n-batch": "--batch-size", "n-ubatch": "--ubatch-size", "num-batch": "--batch-size",
    "flash-attention": "--flash-attn", "flash-attn": "--flash-attn", "kv-type": "--cache-type-k",
    "cache-type": "--cache-type-k", "type-k": "--cache-type-k", "type-v": "--cache-type-v",
    "penalty-freq": "--frequency-penalty", "frequency": "--frequency-penalty", "presence": "--presence-penalty",
    "dry": "--dry-multiplier", "max-new-tokens": "--predict", "num-predict": "--predict", "projector": "--mmproj",
    "vision": "--mmproj", "image-tokens": "--image-max-tokens", "min-image-tokens": "--image-min-tokens",
    "max-image-tokens": "--image-max-tokens", "draft": "--spec-draft-model", "drafter": "--spec-draft-model",
    "spec-model": "--spec-draft-model", "mtp": "--spec-type", "n-max": "--spec-draft-n-max",
    "num-speculative-tokens": "--spec-draft-n-max", "pooling-type": "--pooling", "ubatch-size": "--ubatch-size",
    "parallel-tools": "--parallel-tool-calls", "thinking-budget": "--reasoning-budget",
    "thinking": "--reasoning", "enable-thinking": "--reasoning", "jinja-template": "--chat-template-file",
    "preserve-thinking": "--reasoning-preserve", "merge-experts": "--merge-up-gate-experts",
}  # fmt: skip
"""Words that people try, from other programs and other documents, and the flag that does it."""
