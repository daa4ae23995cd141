"""The keys of llama-swap that are no command: what orch has for each, or why nothing is needed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from orchestrator.core.importing.findings import Fate, ImportResult
from orchestrator.core.importing.yaml_nodes import YamlNode

_READ = (None, "")
_LISTED = "nothing has it here; clients see the profile with its description"

MODEL_KEYS: Mapping[str, tuple[Fate | None, str]] = {
    **dict.fromkeys(("cmd", "macros", "env", "aliases", "ttl", "filters", "concurrencyLimit"), _READ),
    "name": ("kept", "description"), "description": ("kept", "description"),
    "proxy": ("changed", "orch chooses the engine's address"),
    "cmdStop": ("changed", "orch ends the engine: SIGTERM, then SIGKILL after `daemon.stop_grace_s`"),
    "checkEndpoint": ("changed", "orch asks the engine in its own way"),
    "healthCheckTimeout": ("changed", "`daemon.load_stall_s` bounds a load without progress, not a long one"),
    "useModelName": ("changed", "the engine is given the profile's name"),
    "unlisted": ("lost", "every profile is listed in `/v1/models`"),
    "metadata": ("lost", _LISTED), "capabilities": ("lost", _LISTED), "tags": ("lost", _LISTED),
    "recommended_use": ("lost", _LISTED), "compat": ("lost", _LISTED),
    "sendLoadingState": ("changed", "a stream that waits gets comments from the gateway"),
    "timeouts": ("changed", "`gateway.hold_timeout_s` and `daemon.stall_s` are orch's times"),
}  # fmt: skip
"""Key to what becomes of it; those without a fate are read elsewhere."""

TOP_KEYS: Mapping[str, tuple[Fate | None, str]] = {
    **dict.fromkeys(("models", "macros", "globalTTL", "groups", "hooks"), _READ),
    **dict.fromkeys(("matrix", "routing", "apiKeys", "profiles"), _READ),
    "healthCheckTimeout": ("changed", "`daemon.load_stall_s` bounds a load without progress, not a long one"),
    "startPort": ("changed", "orch chooses the engines' ports"),
    "logLevel": ("changed", "orch has its own log: `orch logs`, `orch events`"),
    "logToStdout": ("changed", "orch has its own log: `orch logs`"),
    "logTimeFormat": ("changed", "orch has its own log"),
    "logRequests": ("changed", "`orch requests` and `orch stats` show them"),
    "metricsMaxInMemory": ("changed", "orch keeps its history on disk: `orch stats`"),
    "performance": ("lost", "orch measures by itself"), "captureBuffer": ("lost", "orch keeps no texts of requests"),
    "store": ("lost", "orch has its own history"),
    "includeAliasesInList": ("changed", "`/v1/models` has a profile's aliases as a field"),
    "sendLoadingState": ("changed", "a stream that waits gets comments from the gateway"),
    "peers": ("lost", "orch serves the models of this machine alone"),
    "selectors": ("lost", "nothing chooses among models by the request"), "headers": ("lost", "orch sends its own"),
    "ui": ("lost", "orch has its own page"), "upstream": ("lost", "nothing has it here"),
}  # fmt: skip


def shown_key(key: str, node: YamlNode) -> str:
    """Return a key with its value, for a report; secrets without."""
    secret = re.search(r"key|token|secret|password|headers", key, re.IGNORECASE)
    return key if secret else f"{key}: {node.shown()[:80]}"


def read_top(root: YamlNode, names: Mapping[str, str], made: Collection[str], result: ImportResult) -> None:
    """Add what the keys beside the models mean.

    :param names: ids and aliases of the source to names of profiles
    :param made: the profiles that there are
    """
    for key, node in root.children():
        fate, text = TOP_KEYS.get(key, _READ)
        if fate is not None:
            result.add(fate, shown_key(key, node), text, node.key_line)

    keys = root.get("apiKeys")
    if keys is not None:
        said = "secrets are never copied: put them into a file of their own and name it with `gateway.api_key_file`"
        result.add("lost", "apiKeys", said, keys.key_line)

    pins = root.get("profiles")
    if pins is not None:
        result.add("lost", "profiles", "it meant two things over the versions; see `residency.preload`", pins.key_line)

    _read_preload(root, names, made, result)
    matrix = root.get("matrix") or root.get("routing")
    if matrix is not None:
        said = "orch keeps loaded what fits into memory; sets of models have no other form than `residency.exclusive`"
        result.add("lost", "matrix", said, matrix.key_line)

    _read_groups(root, names, made, result, plain=matrix is None)


def _read_preload(root: YamlNode, names: Mapping[str, str], made: Collection[str], result: ImportResult) -> None:
    hooks = root.get("hooks")
    startup = hooks.get("on_startup") if hooks is not None else None
    preload = startup.get("preload") if startup is not None else None
    if preload is None:
        if hooks is not None:
            result.add("lost", "hooks", "orch has no other hook than `residency.preload`", hooks.key_line)

        return

    found = [names[each] for each in preload.words() if names.get(each) in made]
    for each in preload.words():
        known = names.get(each) in made
        text = "residency.preload" if known else "there is no such profile"
        result.add("kept" if known else "lost", f"preload: {each}", text, preload.key_line)

    if found:
        result.config["residency.preload"] = list(dict.fromkeys(found))


def _read_groups(
    root: YamlNode, names: Mapping[str, str], made: Collection[str], result: ImportResult, *, plain: bool
) -> None:
    groups = root.get("groups")
    if groups is None:
        if plain and len(made) > 1 and len(result.config.get("residency.preload", ())) < 2:
            result.config["residency.policy"] = "one"
            result.add("kept", "no groups", 'residency.policy = "one": llama-swap loads one model at a time then')

        return

    exclusive: list[list[str]] = []
    for group, node in groups.children():
        members = node.get("members")
        ids = members.words() if members is not None else []
        found = [name for each in ids if (name := names.get(each)) in made and name is not None]
        for each in ids:
            if names.get(each) not in made:
                result.add("lost", f"groups.{group}: {each}", "there is no such profile", node.key_line)

        swap, persistent, alone = (_flag(node, key, default) for key, default in _GROUP_KEYS.items())
        if swap and len(found) > 1:
            exclusive.append(list(dict.fromkeys(found)))
            result.add("kept", f"groups.{group}: swap", "residency.exclusive", node.key_line)
        elif not swap:
            text = "its members stay beside one another where memory allows it, which is what orch does"
            result.add("kept", f"groups.{group}: swap: false", text, node.key_line)

        if persistent:
            for entry in result.entries:
                if entry.name in found and not entry.refusal:
                    entry.document.setdefault("residency", {})["pinned"] = True

            result.add("kept", f"groups.{group}: persistent", "residency.pinned of its members", node.key_line)
        elif alone:
            text = "orch unloads models of other groups where memory is short, not each time"
            result.add("changed", f"groups.{group}: exclusive", text, node.key_line)

    if exclusive:
        result.config["residency.exclusive"] = exclusive
        _keep_one_of_a_group(exclusive, result)


def _keep_one_of_a_group(exclusive: list[list[str]], result: ImportResult) -> None:
    """Of profiles that exclude one another, the first is loaded at the start."""
    kept: list[str] = []
    for name in result.config.get("residency.preload", []):
        if any(name in group and other in group for group in exclusive for other in kept):
            result.add("lost", f"preload: {name}", "it is never loaded beside the one before it")
        else:
            kept.append(name)

    if kept:
        result.config["residency.preload"] = kept


_GROUP_KEYS = {"swap": True, "persistent": False, "exclusive": True}
"""Keys of a group, and what holds without them."""


def _flag(node: YamlNode, key: str, default: bool) -> bool:
    found = node.get(key)
    return default if found is None or not isinstance(found.value(), bool) else bool(found.value())
