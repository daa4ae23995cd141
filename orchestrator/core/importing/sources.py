"""What kind of source a text is, names that two profiles would have, and variables that an import knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from orchestrator.core.importing.compose import import_compose, is_compose
from orchestrator.core.importing.findings import ImportResult
from orchestrator.core.importing.llama_swap import import_llama_swap, is_llama_swap
from orchestrator.core.importing.router_ini import import_router_ini, is_router_ini
from orchestrator.core.importing.shell_script import import_shell
from orchestrator.core.importing.systemd_unit import import_unit, is_unit
from orchestrator.core.importing.yaml_nodes import YamlNode

_YAML_MODELS = re.compile(r"^models:\s*(#.*)?$", re.MULTILINE)
_YAML_SERVICES = re.compile(r"^services:\s*(#.*)?$", re.MULTILINE)


def import_text(text: str, variables: Mapping[str, str], read_yaml: Callable[[str], YamlNode]) -> ImportResult:
    """Return what a text starts, whatever it is.

    :param variables: what stands for names that the text does not set
    :param read_yaml: reads a YAML document
    """
    if _YAML_MODELS.search(text):
        root = read_yaml(text)
        if is_llama_swap(root):
            return import_llama_swap(root, text, variables)

    if _YAML_SERVICES.search(text):
        root = read_yaml(text)
        if is_compose(root):
            return import_compose(root, variables)

    if is_unit(text):
        return import_unit(text, variables)

    if is_router_ini(text):
        return import_router_ini(text, variables)

    return import_shell(text, variables)


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
