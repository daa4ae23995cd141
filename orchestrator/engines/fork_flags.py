"""What the fork is asked besides its help, because the help is incomplete and in part out of date.

The fork reads its arguments from left to right and `--version` ends it at once: `BIN FLAG [VALUE] --version` prints
the version if and only if everything before was accepted (common/common.cpp, `gpt_params_find_arg`). No flag here
reads a file or opens a connection.
"""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A flag to try: its spellings, and a value that every build with the flag takes (None: it takes none)."""

    spellings: tuple[str, ...]
    sample: str | None = None


STAGE = Question(("--spec-type",), "mtp:n_max=1,p_min=0.0")
"""Accepted since stages exist (b4557)."""

UNLISTED: tuple[Question, ...] = (
    Question(("--alias", "-a"), "name"),
    Question(("--n-gpu-layers", "-ngl", "--gpu-layers"), "1"),
    Question(("--n-gpu-layers-draft", "-ngld", "--gpu-layers-draft"), "1"),
    Question(("--main-gpu", "-mg"), "0"),
    Question(("--max-gpu",), "1"),
    Question(("--split-mode", "-sm"), "layer"),
    Question(("--tensor-split", "-ts"), "1"),
    Question(("--device", "-dev"), "CUDA0"),
    Question(("--device-draft", "-devd"), "CUDA0"),
    Question(("--override-tensor", "-ot"), "exps=CPU"),
    Question(("--offload-policy", "-op"), "0,1"),
    Question(("--no-offload-only-active-experts", "-no-ooae")),
    Question(("--cpu-moe", "-cmoe")),
    Question(("--n-cpu-moe", "-ncmoe"), "1"),
    Question(("--run-time-repack", "-rtr")),
    Question(("--transparent-huge-pages", "-thp")),
    Question(("--defer-experts",)),
    Question(("--prefetch-experts",)),
    Question(("--prefetch-experts-threads",), "1"),
    Question(("--fit",)),
    Question(("--fit-margin",), "1024"),
    Question(("--gpu-fit-margin", "-gfm"), "0,1024"),
    Question(("--fused-moe", "-fmoe")),
    Question(("--graph-reuse", "-gr")),
    Question(("--no-graph-reuse", "-no-gr")),
    Question(("--rope-cache", "-rcache")),
    Question(("--graph-attn-precision", "-gap"), "f16"),
    Question(("--indexer-cache-type-k", "-ictk"), "f16"),
    Question(("--mtp-requantize-output-tensor", "-mtprot"), "q6_0"),
    Question(("--spec-ckpt-mode", "--recurrent-ckpt-mode"), "auto"),
    Question(("--spec-autotune",)),
    Question(("--ctx-checkpoints", "-ctx-ckpt"), "1"),
    Question(("--ctx-checkpoints-interval", "-ctx-ckpt-i"), "512"),
    Question(("--reasoning", "-rea"), "auto"),
    Question(("--reasoning-budget-message",), "enough"),
    Question(("--skip-chat-parsing",)),
    Question(("--parallel-tool-calls", "-ptcall")),
    Question(("--swa-compress",)),
    Question(("--threads-mtmd", "-tm"), "1"),
    Question(("--no-mmproj-offload",)),
    Question(("--n-predict", "--predict", "-n"), "1"),
    Question(("--timeout", "-to"), "600"),
)

LEGACY: tuple[Question, ...] = (
    Question(("--multi-token-prediction", "-mtp")),
    Question(("--no-multi-token-prediction", "-no-mtp")),
    Question(("--draft-max", "--draft", "--draft-n"), "3"),
    Question(("--draft-min", "--draft-n-min"), "1"),
    Question(("--draft-p-min",), "0.5"),
    Question(("--spec-ngram-size-n",), "12"),
    Question(("--spec-ngram-size-m",), "48"),
    Question(("--spec-ngram-min-hits",), "1"),
)
"""Since June 2026 the fork knows these only to refuse them (`legacy speculative option ... is disabled`)."""
