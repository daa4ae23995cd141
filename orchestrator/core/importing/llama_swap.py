"""llama-swap's configuration as profiles, variants and a table `[residency]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.core.importing.entries import import_server
from orchestrator.core.importing.findings import ImportEntry, ImportResult, SourceWord
from orchestrator.core.importing.names import free_name, slug
from orchestrator.core.importing.server_command import ServerCommand, find_servers
from orchestrator.core.importing.swap_filters import read_filters
from orchestrator.core.importing.swap_keys import MODEL_KEYS, TOP_KEYS, read_top, shown_key
from orchestrator.core.importing.words.shell_words import Command
from orchestrator.core.importing.words.unresolved import mark
from orchestrator.core.importing.words.word_reader import split_words
from orchestrator.core.importing.yaml_nodes import YamlNode

_MACRO = re.compile(r"\$\{([^{}$]+)\}")
_MOST_EXPANSIONS = 200
_SECRET = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD).*", re.IGNORECASE)


def is_llama_swap(root: YamlNode) -> bool:
    """Return whether a YAML document is llama-swap's: its models have commands."""
    models = root.get("models")
    return models is not None and any(node.get("cmd") is not None for _, node in models.children())


def import_llama_swap(root: YamlNode, text: str, variables: Mapping[str, str]) -> ImportResult:
    """Return a profile for each model whose command is a llama-server.

    :param text: the document as written, to find the lines of flags
    :param variables: what `${env.NAME}` stands for
    """
    result = ImportResult("llama-swap configuration")
    models = root.get("models")
    lines = text.splitlines()
    names: dict[str, str] = {}
    for model, node in models.children() if models is not None else ():
        entry = _import_model(model, node, root, lines, variables, [each.name for each in result.entries])
        result.entries.append(entry)
        names[model] = entry.name
        for alias in _texts(node, "aliases"):
            names.setdefault(alias, entry.name)

    made = {entry.name for entry in result.entries if not entry.refusal}
    read_top(root, names, made, result)
    for key, node in root.children():
        if key not in TOP_KEYS:
            result.add(
                "lost", f"{key}: {node.shown()[:80]}", "llama-swap has no such key, and ignores it", node.key_line
            )

    return result


def _import_model(
    model: str, node: YamlNode, root: YamlNode, lines: list[str], variables: Mapping[str, str], taken: list[str]
) -> ImportEntry:
    line = node.key_line or node.line
    command = node.get("cmd")
    if command is None or command.text is None:
        entry = ImportEntry(free_name(slug(model), taken), line)
        entry.refusal = "it has no `cmd`"
        return entry

    macros = {**_macros(root), **_macros(node), "MODEL_ID": model, "PORT": "9999"}
    expanded = _expand(_command_text(command.text), macros, variables)
    words = _locate(split_words(expanded, command.line), lines, command.line - 1, command.last)
    found = find_servers(Command(words)) if words else []
    server = found[0] if found else ServerCommand(line, "", [], other=_what_runs(words))
    for each in _texts(node, "env"):
        name, _, value = _expand(each, macros, variables).partition("=")
        server.environment.append((name, value, _line_of(each, node, lines)))
        if name == "LLAMA_ARG_MODEL" and not found and words:  # a script that starts a server with these
            first = next((at for at, word in enumerate(words) if word.text.startswith("-")), len(words))
            server.other, server.program, server.arguments = "", words[0].text, words[first:]

    head = _head(model, node)
    entry = import_server(server, taken, name=model, extra=head)
    entry.line = line
    _add_aliases(node, entry)
    if not entry.refusal:
        _read_keys(node, root, entry)
        read_filters(node, model, entry, lambda text: _expand(text, macros, variables))

    return entry


def _texts(node: YamlNode, key: str) -> list[str]:
    found = node.get(key)
    return found.words() if found is not None else []


def _head(model: str, node: YamlNode) -> dict[str, Any]:
    parts = [found.text for key in ("name", "description") if (found := node.get(key)) is not None and found.text]
    text = re.sub(r"\s+", " ", ": ".join(part for part in dict.fromkeys(parts) if part != model)).strip()
    text = "".join(char for char in text if char.isprintable())
    return {"description": text} if text else {}


def _add_aliases(node: YamlNode, entry: ImportEntry) -> None:
    found = node.get("aliases")
    if found is None:
        return

    names = [name.strip() for name in found.words() if re.fullmatch(r"[^-,\s][^,]*", name.strip())]
    for name in found.words():
        if name.strip() in names:
            entry.add("kept", f"aliases: {name}", "aliases", found.key_line)
        else:
            entry.add("lost", f"aliases: {name}", "an alias has no comma and no `-` in front", found.key_line)

    known = entry.document.get("aliases", [])
    aliases = [name for name in dict.fromkeys([*known, *names]) if name != entry.name]
    if aliases and not entry.refusal:
        entry.document["aliases"] = aliases


def _read_keys(node: YamlNode, root: YamlNode, entry: ImportEntry) -> None:
    ttl = node.get("ttl") or root.get("globalTTL")
    if ttl is not None:
        _read_ttl(ttl, entry)

    limit = node.get("concurrencyLimit")
    if limit is not None and isinstance(limit.value(), int) and 0 < limit.value() <= 4096:
        entry.document.setdefault("residency", {})["max_in_flight"] = limit.value()
        said = "residency.max_in_flight: what is more waits, where llama-swap answers 429"
        entry.add("changed", f"concurrencyLimit: {limit.text}", said, limit.key_line)

    for key, value in node.children():
        if key in MODEL_KEYS:
            fate, text = MODEL_KEYS[key]
            if fate is not None:
                entry.add(fate, shown_key(key, value), text, value.key_line)
        else:
            entry.add(
                "lost", f"{key}: {value.shown()[:80]}", "llama-swap has no such key, and ignores it", value.key_line
            )


def _read_ttl(ttl: YamlNode, entry: ImportEntry) -> None:
    value = ttl.value()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2_592_000:
        entry.document.setdefault("residency", {})["idle_unload_s"] = value
        entry.add("kept", f"ttl: {ttl.text}", "residency.idle_unload_s", ttl.key_line)
    elif value == -1:
        entry.add("kept", "ttl: -1", "`residency.idle_unload_s` of orch.toml decides", ttl.key_line)
    else:
        entry.add("lost", f"ttl: {ttl.shown()}", "it is no number of seconds", ttl.key_line)


def _macros(node: YamlNode) -> dict[str, str]:
    found = node.get("macros")
    if found is None:
        return {}

    if found.items is not None:  # a list of mappings, which keeps an order
        return {key: value.shown() for each in found.items for key, value in each.children()}

    return {key: value.shown() for key, value in found.children()}


def _command_text(text: str) -> str:
    kept = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    return "\n".join(re.sub(r"\\\s*$", " ", line) for line in kept)


def _expand(text: str, macros: Mapping[str, str], variables: Mapping[str, str]) -> str:
    for _ in range(_MOST_EXPANSIONS):
        found = _MACRO.search(text)
        if found is None:
            break

        name = found[1]
        if name.startswith("env."):
            own = name.removeprefix("env.")
            value = mark(own) if _SECRET.fullmatch(own) else variables.get(own, mark(own))
        else:
            value = _command_text(macros[name]).strip() if name in macros else mark(name)

        text = text[: found.start()] + value + text[found.end() :]
        if len(text) > 200_000:
            break

    return text


def _what_runs(words: list[SourceWord]) -> str:
    return f"`{' '.join(word.text for word in words[:3])}`" if words else "nothing"


def _locate(words: list[SourceWord], lines: list[str], start: int, last: int) -> list[SourceWord]:
    """Return the words with their lines: those of a folded text are found again, those of a macro have its use's."""
    at, found = start, []
    for word in words:
        place = next((index for index in range(at, min(last, len(lines))) if word.text in lines[index]), None)
        at = at if place is None else place
        found.append(SourceWord(word.text, at + 1))

    return found


def _line_of(text: str, node: YamlNode, lines: list[str]) -> int:
    return next((at + 1 for at in range(node.line - 1, min(node.last, len(lines))) if text in lines[at]), node.line)
