"""A start of a server as a profile: its arguments, its environment, its container."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.core.importing.findings import ImportEntry, SourceWord, put
from orchestrator.core.importing.flags.arguments import is_secret_flag, read_arguments
from orchestrator.core.importing.flags.flag_values import OFF, ON
from orchestrator.core.importing.intents import settle
from orchestrator.core.importing.names import free_name, model_name, slug
from orchestrator.core.importing.server_command import ServerCommand
from orchestrator.core.importing.words.unresolved import is_empty, readable, unresolved
from orchestrator.core.profile.free_tables import refuse_variable

_FLAG_VARIABLE = "LLAMA_ARG_"
_FLAG_OF_VARIABLE: Mapping[str, str] = {
    "N_PARALLEL": "--parallel", "BATCH": "--batch-size", "UBATCH": "--ubatch-size", "ENDPOINT_METRICS": "--metrics",
    "ENDPOINT_SLOTS": "--slots", "ENDPOINT_PROPS": "--props", "THINK": "--reasoning-format",
    "THINK_BUDGET": "--reasoning-budget", "HF_REPO": "--hf-repo", "HF_FILE": "--hf-file", "N_PREDICT": "--predict",
    "ROPE_SCALING_TYPE": "--rope-scaling", "SPEC_DRAFT_CACHE_TYPE_K": "--spec-draft-type-k", "DIO": "--direct-io",
    "SPEC_DRAFT_CACHE_TYPE_V": "--spec-draft-type-v", "SPEC_DRAFT_HF_REPO": "--spec-draft-hf",
    "HFD_REPO": "--hf-repo-draft", "STATIC_PATH": "--path", "THINK_BUDGET_MESSAGE": "--reasoning-budget-message",
    "CHECKPOINT_MIN_SPACING_NT": "--checkpoint-min-step", "CHECKPOINT_EVERY_NT": "--checkpoint-every-n-tokens",
    "KV_SPLIT": "--kv-unified", "DRAFT_MAX": "--draft-max", "MODEL_DRAFT": "--model-draft",
}  # fmt: skip
BARE_FLAGS = frozenset({
    "--metrics", "--slots", "--props", "--mlock", "--no-mmap", "--mmap", "--jinja", "--no-jinja", "--cont-batching",
    "--no-webui", "--embeddings", "--reranking", "--kv-unified", "--cpu-moe", "--no-kv-offload", "--offline",
    "--no-warmup", "--cache-idle-slots", "--cache-prompt", "--check-tensors", "--special", "--spm-infill",
    "--kv-unified-per-slot", "--prefill-assistant", "--skip-chat-parsing", "--spec-default", "--perf",
    "--mmproj-auto", "--spec-draft-backend-sampling", "--spec-draft-cpu-moe", "--models-autoload", "--reuse-port",
    "--ui-mcp-proxy", "--webui-mcp-proxy", "--log-prefix", "--log-timestamps",
})  # fmt: skip
"""Flags without a value, for which a variable or a preset file says a switch."""
_SECRET = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL).*", re.IGNORECASE)
_PLAIN_WRAPPERS = ("exec", "sudo", "nohup", "setsid", "time", "env", "&", "-E", "call", "start")
_NO_WRAPPERS = re.compile(r"[A-Za-z_]\w*=.*|.*>.*", re.DOTALL)


def import_server(
    server: ServerCommand,
    taken: Collection[str],
    *,
    name: str = "",
    fallback: str = "",
    extra: Mapping[str, Any] | None = None,
) -> ImportEntry:
    """Return what one start of a server becomes.

    :param taken: names of profiles that are used already
    :param name: what the source calls it; without, its alias or its model file does
    :param fallback: a name where neither the source nor its arguments have one
    :param extra: keys of the document that the source says beside the command
    """
    entry = ImportEntry("", server.line, engine=server.engine)
    for key, value in (extra or {}).items():
        put(entry.document, key, value)

    if server.other:
        entry.name, entry.refusal = slug(name or server.other), f"it starts no llama-server, but {server.other}"
        return entry

    _read_wrappers(server, entry)
    words = [*_read_environment(server, entry), *server.arguments]
    entry.arguments = without_secrets([readable(word.text) for word in words])
    router = next((word for word in words if word.text in ("--models-dir", "--models-preset", "-mdir")), None)
    read_arguments(words, entry, server.engine, lambda path: _locate(path, server))
    if router is not None and "model" not in entry.document:
        entry.refusal = f"`{router.text}` starts a router of many models: import its preset file, or each model"

    _choose_name(entry, name, taken, fallback)
    if not entry.refusal:
        settle(entry)

    return entry


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return arguments with stars for the values of keys and tokens."""
    shown: list[str] = []
    for at, word in enumerate(arguments):
        name, equals, _ = word.partition("=")
        if equals and name.startswith("--") and is_secret_flag(name):
            shown.append(f"{name}=***")
        elif at and is_secret_flag(arguments[at - 1]) and not word.startswith("-"):
            shown.append("***")
        else:
            shown.append(word)

    return tuple(shown)


def _choose_name(entry: ImportEntry, name: str, taken: Collection[str], fallback: str) -> None:
    aliases = [str(alias) for alias in entry.document.get("aliases", [])]
    wanted = name or (aliases[0] if aliases else model_name(str(entry.document.get("model", fallback))))
    entry.name = free_name(slug(wanted), taken)
    names = [wanted, *aliases] if name or aliases else aliases
    kept = [each for each in dict.fromkeys(names) if each != entry.name and re.fullmatch(r"[^-,\s][^,]*", each)]
    if name and name != entry.name:
        entry.add("changed", name, f"the profile is `{entry.name}`, which its rules allow; the old name is an alias")

    if kept:
        entry.document["aliases"] = kept
    else:
        entry.document.pop("aliases", None)


def _read_wrappers(server: ServerCommand, entry: ImportEntry) -> None:
    words = [word for word in server.wrappers if not _NO_WRAPPERS.fullmatch(word.text)]
    if any(word.text not in _PLAIN_WRAPPERS for word in words):
        text = " ".join(readable(word.text) for word in words)
        said = "stands in front of the server and has no setting"
        if "numactl" in text:
            said += "; `cpu.numa` is near it"
        elif "taskset" in text:
            said += "; `cpu.pin` is near it"

        entry.add("lost", text, said, words[0].line)
    elif words:
        entry.add("changed", " ".join(word.text for word in words), "not needed: orch starts the engine", words[0].line)

    if server.container:
        entry.add("changed", readable(server.program), "the engine runs without a container", server.line)
        for option in server.options:
            entry.add("changed", readable(option), "an option of the container: it has none here", server.line)


def _read_environment(server: ServerCommand, entry: ImportEntry) -> list[SourceWord]:
    """Add the variables to the document; return those that stand for flags as words, as a command line's come later."""
    words: list[SourceWord] = []
    for name, value, line in server.environment:
        if is_empty(value):
            entry.add("changed", f"{name}={readable(value)}", "empty, unless it is set from outside", line)
        elif name.startswith(_FLAG_VARIABLE):
            words += flag_of_variable(name, value, line)
        elif _SECRET.fullmatch(name):
            entry.add("lost", name, "a secret is never copied; keys of clients belong to `gateway.api_key_file`", line)
        elif unresolved(value):
            entry.add("lost", f"{name}={readable(value)}", "the source does not say its value", line)
        elif (reason := refuse_variable(name)) is not None:
            entry.add("lost", f"{name}={value}", reason, line)
        else:
            put(entry.document, f"environment.{name}", value)
            entry.add("kept", f"{name}={value}", f"environment.{name}", line)

    return words


def flag_of_variable(name: str, value: str, line: int) -> list[SourceWord]:
    """Return a `LLAMA_ARG_...` variable as the flag that it stands for."""
    key = name.removeprefix(_FLAG_VARIABLE)
    flag = _FLAG_OF_VARIABLE.get(key, "--" + key.lower().replace("_", "-"))
    if flag in BARE_FLAGS or flag.startswith("--no-"):
        if value.strip().lower() in ON or not value:
            return [SourceWord(flag, line)]

        if value.strip().lower() in OFF:
            return [] if flag.startswith("--no-") else [SourceWord("--no-" + flag[2:], line)]

    return [SourceWord(flag, line), SourceWord(value, line)]


def _locate(path: str, server: ServerCommand) -> tuple[str, str]:
    """Return a path of a container as it is on the machine."""
    if not server.container:
        return path, ""

    for inside, host in sorted(server.mounts, key=lambda mount: -len(mount[0])):
        folder = inside.rstrip("/")
        if path == folder or path.startswith(folder + "/"):
            found = host.rstrip("/") + path[len(folder) :]
            if unresolved(found) or not re.match(r"[/~.A-Za-z$]", found):
                return readable(found), f"the container's `{readable(path)}`, whose folder is `{readable(host)}`"

            return found, f"`{path}` in the container"

    return path, "the path is the container's: no volume says where that is on this machine"
