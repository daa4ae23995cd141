"""llama-swap's `filters` as variants: what is set or removed in requests, by the name that a client sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.importing.findings import ImportEntry
from orchestrator.core.importing.names import slug
from orchestrator.core.importing.yaml_nodes import YamlNode
from orchestrator.core.problems import Problems
from orchestrator.core.profile.variants import TEMPLATE_KWARGS, read_variants

_KEYS = ("stripParams", "strip_params", "setParams", "setParamsByID")


def read_filters(node: YamlNode, model: str, entry: ImportEntry, expand: Callable[[str], str]) -> None:
    """Add a variant for each name that a filter is about.

    A profile's own name has no variant: where the filter holds for every name, the profile is called `NAME-plain`
    and its names become variants.
    """
    filters = node.get("filters")
    if filters is None:
        return

    strip = [each.strip() for key in _KEYS[:2] if (found := filters.get(key)) is not None for each in _names(found)]
    common = filters.get("setParams")
    always = common.value() if common is not None and common.fields is not None else {}
    by_id = filters.get("setParamsByID")
    tables = {expand(name): found for name, found in by_id.children()} if by_id is not None else {}
    for key, found in filters.children():
        if key in _KEYS:
            entry.add("kept", f"filters.{key}", "variants", found.key_line)
        else:
            entry.add("lost", f"filters.{key}", "llama-swap has no such filter", found.key_line)

    own = [model, *entry.document.get("aliases", []), entry.name]
    named = {name: {**always, **_fields(found)} for name, found in tables.items()}
    if strip or always or any(name in own for name in named):
        for name in own:
            named.setdefault(name, dict(always))

        entry.name = slug(f"{entry.name[:58]}-plain")
        entry.document.pop("aliases", None)
        said = f"the profile is `{entry.name}`, so that its old names can be variants that change requests"
        entry.add("changed", model, said, filters.key_line)

    variants = [_variant(name, fields, strip, entry, filters.key_line) for name, fields in named.items()]
    problems = Problems()
    read_variants(variants, problems)
    if problems.found:
        entry.add("lost", "filters", problems.found[0].message, filters.key_line)
    elif variants:
        taken = {str(each["name"]) for each in variants}
        aliases = [each for each in entry.document.get("aliases", []) if each not in taken]
        entry.document["variants"] = variants
        if aliases:
            entry.document["aliases"] = aliases
        else:
            entry.document.pop("aliases", None)


def _variant(name: str, fields: Mapping[str, Any], strip: list[str], entry: ImportEntry, line: int) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    kwargs = fields.get(TEMPLATE_KWARGS)
    own = ("model", "stream", "messages", "prompt", "input")
    for key in own:
        if key in fields or key in strip:
            entry.add("lost", f"filters: {key}", "a variant does not change this field", line)

    always = {
        key: _without_null(value)
        for key, value in fields.items()
        if key not in own and value is not None and not (key == TEMPLATE_KWARGS and isinstance(kwargs, dict))
    }
    removed = [each for each in strip if each not in own and each not in always]
    if always:
        made["set"] = always

    if removed:
        made["strip"] = removed

    if isinstance(kwargs, dict) and kwargs:
        made["template_kwargs"] = _without_null(kwargs)

    return made


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}

    return [_without_null(each) for each in value if each is not None] if isinstance(value, list) else value


def _names(node: YamlNode) -> list[str]:
    return [part for text in node.words() for part in text.split(",") if part.strip()]


def _fields(node: YamlNode) -> dict[str, Any]:
    found = node.value()
    return found if isinstance(found, dict) else {}
