"""Compose files: each service that runs a llama-server."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.core.importing.entries import import_server
from orchestrator.core.importing.findings import ImportResult, SourceWord
from orchestrator.core.importing.server_command import ServerCommand, enter_image, read_mount
from orchestrator.core.importing.words.expansion import Variables, expand
from orchestrator.core.importing.words.shell_words import ReadBeside, environment_pairs, no_files
from orchestrator.core.importing.words.unresolved import EMPTY, mark
from orchestrator.core.importing.words.word_reader import split_words
from orchestrator.core.importing.yaml_nodes import YamlNode

_LLAMA = re.compile(r"llama|gguf", re.IGNORECASE)


def is_compose(root: YamlNode) -> bool:
    """Return whether a document has services with images."""
    services = root.get("services")
    return services is not None and any(node.fields is not None for _, node in services.children())


def import_compose(root: YamlNode, variables: Mapping[str, str], read_beside: ReadBeside = no_files) -> ImportResult:
    """Return a profile for each service that runs a llama-server."""
    result = ImportResult("compose file")
    known: Variables = {**dict(environment_pairs(read_beside(".env") or "")), **variables}
    services = root.get("services")
    for name, written in services.children() if services is not None else ():
        node = _extended(written, services)
        server = _read_service(node, known, read_beside)
        if server is None:
            result.add("lost", f"services.{name}", "it runs no llama-server: nothing was read from it", node.key_line)
            continue

        taken = [entry.name for entry in result.entries]
        entry = import_server(server, taken, fallback=name)
        entry.line = node.key_line
        for key in ("env_file", "healthcheck", "restart", "ports", "deploy", "depends_on", "cpuset", "ulimits"):
            found = node.get(key)
            if found is not None:
                fate, text = _KEYS.get(key, ("changed", "orch does it in its own way"))
                entry.add("lost" if fate == "lost" else "changed", key, text, found.key_line)

        result.entries.append(entry)

    return result


def _extended(node: YamlNode, services: YamlNode | None, depth: int = 0) -> YamlNode:
    """Return a service with what it takes from another one of the file (`extends`)."""
    named = node.get("extends")
    parent = named.get("service") or named if named is not None else None
    other = services.get(parent.text) if services is not None and parent is not None and parent.text else None
    if other is None or depth > _MOST_EXTENSIONS:
        return node

    base = _extended(other, services, depth + 1)
    fields = {**(base.fields or {}), **(node.fields or {})}
    for key in ("environment", "volumes"):
        own, theirs = node.get(key), base.get(key)
        if own is not None and theirs is not None:
            fields[key] = _joined(theirs, own)

    return YamlNode(node.line, node.last, fields=fields, key_line=node.key_line)


def _joined(first: YamlNode, second: YamlNode) -> YamlNode:
    if first.fields is not None and second.fields is not None:
        return YamlNode(second.line, second.last, fields={**first.fields, **second.fields}, key_line=second.key_line)

    items = [each for node in (first, second) for each in _as_items(node)]
    return YamlNode(second.line, second.last, items=items, key_line=second.key_line)


def _as_items(node: YamlNode) -> list[YamlNode]:
    if node.fields is None:
        return node.items or []

    return [YamlNode(each.key_line, each.last, text=f"{key}={each.text or ''}") for key, each in node.children()]


_MOST_EXTENSIONS = 8
_KEYS = {
    "env_file": ("changed", "its variables are read where the file lies beside this one; give others with `--var`"),
    "cpuset": ("lost", "orch binds an engine to no list of CPUs; `cpu.pin` is near"),
    "deploy": ("changed", "the engine sees every device of the machine; `[environment]` can hide some"),
    "ulimits": ("changed", "limits are those of the daemon"),
    "ports": ("changed", "`gateway.port` is the address of all models"),
}


def _text(text: str, known: Variables) -> str:
    return expand(text.replace("$$", "\x03"), known, quoted=True)


def _words(node: YamlNode | None, known: Variables) -> list[SourceWord]:
    """Return a command: a text is split, the elements of a list are words."""
    if node is None:
        return []

    if node.items is not None:
        return [SourceWord(_text(each.text or "", known), each.line) for each in node.items if each.text is not None]

    return split_words(_text(node.text or "", known), node.line)


def _read_service(node: YamlNode, known: Variables, read_beside: ReadBeside) -> ServerCommand | None:
    image = node.get("image")
    name = _text(image.text or "", known) if image is not None else ""
    command, entrypoint = _words(node.get("command"), known), _words(node.get("entrypoint"), known)
    environment = [*_files_of(node, read_beside), *_environment(node.get("environment"), known)]
    flags = [word.text for word in command if word.text in ("-m", "--model", "-hf", "--hf-repo", "-ngl", "--ctx-size")]
    says = any(key.startswith("LLAMA_ARG_") for key, _, _ in environment)
    words = " ".join(word.text for word in (*entrypoint, *command))
    if not (_LLAMA.search(name) or says or "llama-server" in words or (len(flags) > 1 and name)):
        return None

    server = ServerCommand(node.key_line, name, [], environment, container=True)
    volumes = node.get("volumes")
    for each in volumes.items or [] if volumes is not None else []:
        if each.text is not None:
            mount = read_mount("-v", _text(each.text, known))
        else:
            parts = {key: found.text or "" for key, found in each.children()}
            source, target = _text(parts.get("source", ""), known), parts.get("target", "")
            mount = (target, source) if source and target else None

        if mount is not None:
            server.mounts.append(mount)

    if entrypoint and re.fullmatch(r"(.*/)?(ba|da|a)?sh", entrypoint[0].text):
        # A script with `"$@"` gets the command behind it.
        script = next((word for word in entrypoint if " " in word.text or "\n" in word.text), None)
        if script is not None and command and any(each.text.startswith("-") for each in command[:2]):
            server.arguments, server.program = command, name
            return server

        enter_image(server, [*entrypoint, *command], name, "")
    else:
        enter_image(server, command, name, " ".join(word.text for word in entrypoint))

    return server


def _files_of(node: YamlNode, read_beside: ReadBeside) -> list[tuple[str, str, int]]:
    """Return the variables of a service's `env_file`, of those files that lie beside the source."""
    named = node.get("env_file")
    found = []
    for each in (named.items or [named]) if named is not None else ():
        path = each.get("path") or each
        for name, value in environment_pairs(read_beside(path.text or "") or ""):
            found.append((name, value, each.line))

    return found


def _environment(node: YamlNode | None, known: Variables) -> list[tuple[str, str, int]]:
    if node is None:
        return []

    if node.items is not None:
        pairs = [(_text(each.text or "", known).partition("="), each.line) for each in node.items]
        return [(name, value if equals else mark(name + EMPTY), line) for (name, equals, value), line in pairs]

    return [(key, _text(value.text or "", known), value.key_line) for key, value in node.children()]
