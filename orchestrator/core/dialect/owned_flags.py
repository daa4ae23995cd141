"""Flags that `extra_args` may not hold, because orch sets them, reads what they change, or must keep them off.

The spellings are the union of both engines' `--help` and argument parsers (upstream `common/arg.cpp` at b11434, the
fork's `common/common.cpp` of August 2026), including flags that a help does not list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.core.dialect.capabilities import normal_spelling


class RefusedFlag(NamedTuple):
    """One word of `extra_args` that is refused: its position, the flag as the engines know it, and why."""

    at: int
    flag: str
    reason: str


class _OwnedFlag(NamedTuple):
    flags: str
    reason: str


_OWNED: tuple[_OwnedFlag, ...] = (
    _OwnedFlag(
        "--host --port --reuse-port", "orch chooses where the engine listens; clients use the gateway's address"
    ),
    _OwnedFlag("--api-prefix --server-base", "the gateway and the health probe expect the API at the root"),
    _OwnedFlag(
        "--api-key --api-key-file", "orch gives each engine a key of its own; for clients set `gateway.api_key_file`"
    ),
    _OwnedFlag(
        "--ssl-key-file --ssl-cert-file", "the engine is reached on this machine alone; the gateway is the address"
    ),
    _OwnedFlag("-m --model", "use `model`"),
    _OwnedFlag("-a --alias --tags", "use `aliases`; the gateway routes by them"),
    _OwnedFlag(
        "-mu --model-url -mmu --mmproj-url -hf -hfr --hf-repo -hff --hf-file -hft --hf-token -hfd -hfrd --hf-repo-draft"
        " --spec-draft-hf -hfv -hfrv --hf-repo-v -hffv --hf-file-v --docker-repo",
        "an engine that starts must not wait for a download; use `model` with a file",
    ),
    _OwnedFlag("-dr --dry-run", "on one engine it names a repository to download, on the other it loads no weights"),
    _OwnedFlag("--offline", "orch sets it"),
    _OwnedFlag(
        "-lv --verbosity -v --verbose --log-verbose --log-verbosity -ld --logdir --minilog",
        "orch reads the engine's log and sets how much it says",
    ),
    _OwnedFlag("--path --public-path", "it serves files from this machine to clients"),
    _OwnedFlag("--slot-save-path", "it lets clients write files"),
    _OwnedFlag("--media-path", "it lets clients read files"),
    _OwnedFlag("-lcd --lookup-cache-dynamic --prompt-cache --prompt-cache-all", "it makes the engine write files"),
    _OwnedFlag("--sqlite-zstd-ext-file", "it loads a library into the engine"),
    _OwnedFlag("--sql-save-file", "it makes the engine write files"),
    _OwnedFlag("-ag --agent -no-ag --no-agent --tools --tools-runtime", "it lets clients run commands on this machine"),
    _OwnedFlag(
        "--ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy",
        "it lets clients reach other servers through this machine",
    ),
    _OwnedFlag(
        "--ui --webui --no-ui --no-webui --ui-config --webui-config --ui-config-file --webui-config-file",
        "the gateway shows the page that a build has, under /upstream/NAME/ (`gateway.page`)",
    ),
    _OwnedFlag("--rpc", "use `memory.rpc`"),
    _OwnedFlag(
        "--metrics --no-metrics --slots --no-slots --props --no-props", "orch reads these endpoints and sets them"
    ),
    _OwnedFlag("--sse-ping-interval", "orch sets it: with a long one, the engine works on for a client that has left"),
    _OwnedFlag(
        "--sleep-idle-seconds",
        "orch counts on the memory that a running engine holds; `orch down` gives it back",
    ),
    _OwnedFlag("-spf", "it changes every client's prompts over HTTP"),
    _OwnedFlag("-draft --draft-params", "it hides other flags; use the `[speculative]` table"),
    _OwnedFlag(
        "-h --help --usage --version --completion-bash -cl --cache-list --list-devices --log-test",
        "the engine prints and exits",
    ),
    # From here on: what recovery changes between two starts. An extra argument comes last and would undo it.
    _OwnedFlag("-c --ctx-size", "recovery may change it; use `context.size`"),
    _OwnedFlag("-np --parallel", "use `context.parallel`"),
    _OwnedFlag("-ctk --cache-type-k", "recovery may change it; use `kv.k`"),
    _OwnedFlag("-ctv --cache-type-v", "recovery may change it; use `kv.v`"),
    _OwnedFlag("-fit --fit", "use `memory.fit`"),
    _OwnedFlag(
        "-fitt --fit-target --fit-margin -gfm --gpu-fit-margin",
        "recovery changes it; use `memory.fit_margin`",
    ),
    _OwnedFlag("-fitc --fit-ctx", "use `memory.fit_min_context`"),
    _OwnedFlag("-fitp --fit-print", "the engine prints and does not serve"),
    _OwnedFlag("-ngl --gpu-layers --n-gpu-layers", "placement decides what recovery can do; use `memory.gpu_layers`"),
    _OwnedFlag("-cmoe --cpu-moe", "placement decides what recovery can do; use `memory.cpu_moe`"),
    _OwnedFlag("-ncmoe --n-cpu-moe", "recovery may change it; use `memory.n_cpu_moe`"),
    _OwnedFlag("-ncffn --n-cpu-ffn", "placement decides what recovery can do; use `memory.n_cpu_ffn`"),
    _OwnedFlag("-ot --override-tensor", "placement decides what recovery can do; use `memory.tensor_overrides`"),
)

_FAMILIES: tuple[tuple[str, str], ...] = (
    ("--api-key", "orch gives each engine a key of its own"),
    ("--ssl-", "the engine is reached on this machine alone; the gateway is the address"),
    (
        "--cors-",
        "no page is given permission (CORS): the gateway drops what the engine gives",
    ),
    ("--log-", "orch captures the engine's output and reads it"),
    ("--no-log-", "orch captures the engine's output and reads it"),
    ("--models-", "one engine serves one model; orch is the router"),
    ("--no-models-", "one engine serves one model; orch is the router"),
    ("--mcp", "it lets clients reach other servers through this machine"),
    ("--tools", "it lets clients run commands on this machine"),
    ("--hf-", "an engine that starts must not wait for a download; use `model` with a file"),
    ("--system-prompt-file", "it changes every client's prompts"),
    ("--fim-qwen", "it downloads a model; use `model` with a file"),
)
"""Prefixes that take in members added by later versions of an engine."""

REFUSED_FLAGS: Mapping[str, str] = {flag: owned.reason for owned in _OWNED for flag in owned.flags.split()}
"""Every spelling that is refused by name, with the reason; families refuse more."""


def flag_in_word(word: str) -> str | None:
    """Return the flag that an engine reads from a word of argv, or None when the word is not a flag.

    Some builds take `--flag=value`.
    """
    if not word.startswith("-") or word[1:2].isdigit() or word[1:2] in ("", "."):
        return None

    return normal_spelling(word.partition("=")[0])


def find_refused_flags(extra_args: Sequence[str]) -> list[RefusedFlag]:
    """Return every owned flag in `extra_args`, in any spelling; also where it could be the value of another flag."""
    found = []
    for index, word in enumerate(extra_args):
        flag = flag_in_word(word.strip())
        reason = None if flag is None else _refusal_reason(flag)
        if flag is not None and reason is not None:
            found.append(RefusedFlag(index, flag, reason))

    return found


def _refusal_reason(flag: str) -> str | None:
    known = REFUSED_FLAGS.get(flag) or REFUSED_FLAGS.get(flag.lower() if flag.startswith("--") else flag)
    if known is not None:
        return known

    lower = flag.lower()
    for prefix, reason in _FAMILIES:
        if lower.startswith(prefix):
            return reason

    if lower.startswith("--") and lower.endswith("-default") and lower != "--spec-default":
        return "it downloads a model; use `model` with a file"

    return None
