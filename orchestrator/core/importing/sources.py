"""What kind of source a text is, names that two profiles would have, and variables that an import knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise

from orchestrator.core.errors import OrchError
from orchestrator.core.importing.compose import import_compose, is_compose
from orchestrator.core.importing.findings import ImportResult, SourceWord
from orchestrator.core.importing.llama_swap import import_llama_swap, is_llama_swap
from orchestrator.core.importing.names import free_name
from orchestrator.core.importing.router_ini import import_router_ini, is_router_ini
from orchestrator.core.importing.shell_script import import_shell
from orchestrator.core.importing.systemd_unit import import_unit, is_unit
from orchestrator.core.importing.words.shell_words import ReadBeside, no_files
from orchestrator.core.importing.yaml_nodes import YamlNode

_YAML_MODELS = re.compile(r"^models:\s*(#.*)?$", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n(.*?)^[ \t]*(?:```|~~~)", re.MULTILINE | re.DOTALL)
_MOST_BLOCKS = 100
_YAML_SERVICES = re.compile(r"^services:\s*(#.*)?$", re.MULTILINE)


def import_text(
    text: str,
    variables: Mapping[str, str],
    read_yaml: Callable[[str], YamlNode],
    read_beside: ReadBeside = no_files,
) -> ImportResult:
    """Return what a text starts, whatever it is.

    :param variables: what stands for names that the text does not set
    :param read_yaml: reads a YAML document
    :param read_beside: reads a file that the text names
    """
    result = _import_text(text, variables, read_yaml, read_beside)
    for entry in list(result.entries):
        named = [word for flag, word in pairwise(entry.arguments) if flag == "--models-preset"]
        preset = read_beside(named[-1]) if named and entry.refusal else None
        if preset is not None:
            result.entries.remove(entry)
            over = [SourceWord(word, entry.line) for word in _for_each_model(entry.arguments)]
            _add(result, import_router_ini(preset, over))

    return result


def _for_each_model(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments of a router that hold for each of its models."""
    at = 0
    while at < len(arguments):
        own = arguments[at].startswith(("--models-", "--no-models-"))
        at += 1
        if not own:
            yield arguments[at - 1]
        elif at < len(arguments) and not arguments[at].startswith("-"):
            at += 1


def _import_text(
    text: str, variables: Mapping[str, str], read_yaml: Callable[[str], YamlNode], read_beside: ReadBeside
) -> ImportResult:
    try:
        found = _import_yaml(text, variables, read_yaml, read_beside)
    except OrchError:
        # YAML inside of a note, or in a script that writes it.
        result = ImportResult("notes")
        for block in _fenced(text):
            with suppress(OrchError):
                _add(result, import_text(block, variables, read_yaml, read_beside))

        if not result.entries:
            result = import_shell(text, variables, read_beside)

        if not result.entries:
            raise

        return result

    if found is not None:
        return found

    if is_unit(text):
        return import_unit(text, variables, read_beside)

    if is_router_ini(text):
        return import_router_ini(text)

    return import_shell(text, variables, read_beside)


def _import_yaml(
    text: str, variables: Mapping[str, str], read_yaml: Callable[[str], YamlNode], read_beside: ReadBeside
) -> ImportResult | None:
    models, services = _YAML_MODELS.search(text), _YAML_SERVICES.search(text)
    if text.startswith("#!") or not (models or services):
        return None

    root = read_yaml(text)
    if is_llama_swap(root):
        return import_llama_swap(root, text, variables)

    return import_compose(root, variables, read_beside) if is_compose(root) else None


def _fenced(text: str) -> Iterator[str]:
    """Yield each fenced block of a note, with empty lines instead of everything before it."""
    for found in islice(_FENCED.finditer(text), _MOST_BLOCKS):
        yield "\n" * text.count("\n", 0, found.start(1)) + found[1]


def _add(result: ImportResult, more: ImportResult) -> None:
    taken = [entry.name for entry in result.entries]
    for entry in more.entries:
        entry.name = free_name(entry.name, taken)
        taken.append(entry.name)

    result.entries += more.entries
    result.findings += more.findings
    result.config |= more.config


def settle_names(result: ImportResult, taken: Mapping[str, str]) -> None:
    """Take away aliases and variants that would mean another profile.

    :param taken: names that clients send now, and the profile that each means
    """
    owners = dict(taken)
    made = [entry for entry in result.entries if not entry.refusal]
    for entry in made:
        owners[entry.name] = entry.name

    for entry in made:
        aliases = [str(alias) for alias in entry.document.get("aliases", [])]
        kept = [alias for alias in aliases if owners.setdefault(alias, entry.name) == entry.name]
        for alias in aliases:
            if alias not in kept:
                entry.add("lost", f"alias {alias}", f"it means the profile `{owners[alias]}`")

        _set(entry.document, "aliases", kept)
        variants = entry.document.get("variants", [])
        own = {entry.name, *kept}
        rest = [each for each in variants if owners.setdefault(each["name"], entry.name) == entry.name]
        rest = [each for each in rest if each["name"] not in own]
        for each in variants:
            if each not in rest:
                entry.add("lost", f"variant {each['name']}", f"it means the profile `{owners[each['name']]}`")

        _set(entry.document, "variants", rest)


def _set(document: dict[str, object], key: str, value: Collection[object]) -> None:
    if value:
        document[key] = value
    else:
        document.pop(key, None)
