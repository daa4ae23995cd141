"""The flags that the fork is asked for besides its help, because the help is incomplete and in part out of date.

The fork reads its arguments from left to right and `--version` ends it at once: `BIN FLAG [VALUE] --version` prints
the version if and only if everything before was accepted (common/common.cpp, `gpt_params_find_arg`). No flag here
reads a file or opens a connection.
"""

from __future__ import annotations

from typing import NamedTuple


class FlagQuestion(NamedTuple):
    """A flag to try: its spellings, and a value that every build with the flag takes (None: it takes none)."""

    spellings: tuple[str, ...]
    sample: str | None = None


STAGE = FlagQuestion(("--spec-type",), "mtp:n_max=1,p_min=0.0")
"""Accepted since stages exist (b4557)."""

UNLISTED: tuple[FlagQuestion, ...] = (
    FlagQuestion(("--alias", "-a"), "name"),
    FlagQuestion(("--n-gpu-layers", "-ngl", "--gpu-layers"), "1"),
    FlagQuestion(("--n-gpu-layers-draft", "-ngld", "--gpu-layers-draft"), "1"),
    FlagQuestion(("--main-gpu", "-mg"), "0"),
    FlagQuestion(("--max-gpu",), "1"),
    FlagQuestion(("--split-mode", "-sm"), "layer"),
    FlagQuestion(("--tensor-split", "-ts"), "1"),
    FlagQuestion(("--device", "-dev"), "CUDA0"),
    FlagQuestion(("--device-draft", "-devd"), "CUDA0"),
    FlagQuestion(("--override-tensor", "-ot"), "exps=CPU"),
    FlagQuestion(("--offload-policy", "-op"), "0,1"),
    FlagQuestion(("--no-offload-only-active-experts", "-no-ooae")),
    FlagQuestion(("--cpu-moe", "-cmoe")),
    FlagQuestion(("--n-cpu-moe", "-ncmoe"), "1"),
    FlagQuestion(("--run-time-repack", "-rtr")),
    FlagQuestion(("--transparent-huge-pages", "-thp")),
    FlagQuestion(("--defer-experts",)),
    FlagQuestion(("--prefetch-experts",)),
    FlagQuestion(("--prefetch-experts-threads",), "1"),
    FlagQuestion(("--fit",)),
    FlagQuestion(("--fit-margin",), "1024"),
    FlagQuestion(("--gpu-fit-margin", "-gfm"), "0,1024"),
    FlagQuestion(("--fused-moe", "-fmoe")),
    FlagQuestion(("--graph-reuse", "-gr")),
    FlagQuestion(("--no-graph-reuse", "-no-gr")),
    FlagQuestion(("--rope-cache", "-rcache")),
    FlagQuestion(("--graph-attn-precision", "-gap"), "f16"),
    FlagQuestion(("--indexer-cache-type-k", "-ictk"), "f16"),
    FlagQuestion(("--mtp-requantize-output-tensor", "-mtprot"), "q6_0"),
    FlagQuestion(("--spec-ckpt-mode", "--recurrent-ckpt-mode"), "auto"),
    FlagQuestion(("--spec-autotune",)),
    FlagQuestion(("--ctx-checkpoints", "-ctx-ckpt"), "1"),
    FlagQuestion(("--ctx-checkpoints-interval", "-ctx-ckpt-i"), "512"),
    FlagQuestion(("--reasoning", "-rea"), "auto"),
    FlagQuestion(("--reasoning-budget-message",), "enough"),
    FlagQuestion(("--skip-chat-parsing",)),
    FlagQuestion(("--parallel-tool-calls", "-ptcall")),
    FlagQuestion(("--swa-compress",)),
    FlagQuestion(("--threads-mtmd", "-tm"), "1"),
    FlagQuestion(("--no-mmproj-offload",)),
    FlagQuestion(("--n-predict", "--predict", "-n"), "1"),
    FlagQuestion(("--timeout", "-to"), "600"),
    FlagQuestion(("--override-kv", "-okv"), "general.name=str:x"),
    FlagQuestion(("--dry-multiplier",), "0"),
    FlagQuestion(("--dry-base",), "1.75"),
    FlagQuestion(("--dry-allowed-length",), "2"),
    FlagQuestion(("--dry-penalty-last-n",), "64"),
    FlagQuestion(("--logit-bias",), "1+0"),
    FlagQuestion(("--warmup-batch", "-wb")),
    FlagQuestion(("--ctx-checkpoints-tolerance", "-ctx-ckpt-t"), "5"),
    FlagQuestion(("--ctx-checkpoints-eviction", "-ctx-ckpt-e"), "auto"),
)

LEGACY: tuple[FlagQuestion, ...] = (
    FlagQuestion(("--multi-token-prediction", "-mtp")),
    FlagQuestion(("--no-multi-token-prediction", "-no-mtp")),
    FlagQuestion(("--draft-max", "--draft", "--draft-n"), "3"),
    FlagQuestion(("--draft-min", "--draft-n-min"), "1"),
    FlagQuestion(("--draft-p-min",), "0.5"),
    FlagQuestion(("--spec-ngram-size-n",), "12"),
    FlagQuestion(("--spec-ngram-size-m",), "48"),
    FlagQuestion(("--spec-ngram-min-hits",), "1"),
)
"""Since June 2026 the fork knows these only to refuse them (`legacy speculative option ... is disabled`)."""
