"""Variants: more names for one loaded model, each with fields that a request gets or loses on its way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.problems import Problems, did_you_mean
from orchestrator.core.profile.values import describe_type

KEY = "variants"
TEMPLATE_KWARGS = "chat_template_kwargs"
"""The field of a request that both engines hand to the chat template."""

MAX_NAME = 200
MAX_VARIANTS = 64
_MAX_DEPTH = 8
_ORCHS_OWN = ("model", "stream", "messages", "prompt", "input")
"""What a request is about and how it is answered; a variant changes how it is computed."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One more name of a profile.

    :param always: fields that every request gets, whatever it has; `absent` those that it gets where it has none
    :param strip: fields that are removed, before the others are set
    :param template_kwargs: values for the chat template, laid over the request's own
    """

    name: str
    description: str = ""
    always: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, Any] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """Return it as a profile says it."""
        said = {"name": self.name, "description": self.description, "set": self.always, "default": self.absent,
                "strip": list(self.strip), "template_kwargs": self.template_kwargs}  # fmt: skip
        return {key: value for key, value in said.items() if value}

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's body as the variant makes it."""
        kept = {name: value for name, value in body.items() if name not in self.strip}
        made = {**self.absent, **kept, **self.always}
        if self.template_kwargs:
            given = made.get(TEMPLATE_KWARGS)
            made[TEMPLATE_KWARGS] = {**(given if isinstance(given, dict) else {}), **self.template_kwargs}

        return made


_TABLES = {"set": "always", "default": "absent", "template_kwargs": "template_kwargs"}
_ALLOWED = ("name", "description", *_TABLES, "strip")


def read_variants(raw: object, problems: Problems) -> tuple[Variant, ...]:
    """Read `[[variants]]`; what is wrong is added to the problems, with its place."""
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        problems.add((KEY,), f"`{KEY}`: expected tables `[[{KEY}]]`, found {describe_type(raw)}")
        return ()

    if len(raw) > MAX_VARIANTS:
        problems.add((KEY,), f"`{KEY}`: expected at most {MAX_VARIANTS}, found {len(raw)}")
        return ()

    found: list[Variant] = []
    for index, table in enumerate(raw):
        variant = _read_one(table, index, problems)
        if variant is not None and any(variant.name == other.name for other in found):
            problems.add((KEY, index, "name"), f"`{KEY}[{index}].name`: `{variant.name}` is there twice")
        elif variant is not None:
            found.append(variant)

    return tuple(found)


def _read_one(table: Mapping[str, object], index: int, problems: Problems) -> Variant | None:
    for key in table.keys() - set(_ALLOWED):
        hint = did_you_mean(key, _ALLOWED) or f"a variant has: {', '.join(_ALLOWED)}"
        problems.add((KEY, index, key), f"unknown key `{KEY}[{index}].{key}`", hint=hint)

    name = table.get("name")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable() or "," in name:
        rule = f"expected a name of at most {MAX_NAME} printable characters without a comma"
        problems.add((KEY, index, "name"), f"`{KEY}[{index}].name`: {rule}, found {describe_type(name)}")
        return None

    description = table.get("description", "")
    if not isinstance(description, str) or not description.isprintable():
        problems.add((KEY, index, "description"), f"`{KEY}[{index}].description`: expected one line of text")
        description = ""

    tables = {to: _fields(table.get(key, {}), index, key, problems) for key, to in _TABLES.items()}
    return Variant(name, description, strip=_strip(table.get("strip", []), index, problems), **tables)


def _fields(raw: object, index: int, key: str, problems: Problems) -> Mapping[str, Any]:
    where = f"`{KEY}[{index}].{key}"
    if not isinstance(raw, dict):
        problems.add((KEY, index, key), f"{where}`: expected a table of fields, found {describe_type(raw)}")
        return {}

    for name, value in raw.items():
        if key != "template_kwargs" and name in _ORCHS_OWN:
            problems.add((KEY, index, key, name), f"{where}.{name}`: a variant does not change this field")
        elif not _is_json(value, _MAX_DEPTH):
            problems.add((KEY, index, key, name), f"{where}.{name}`: expected a value that JSON has")

    return raw


def _strip(raw: object, index: int, problems: Problems) -> tuple[str, ...]:
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not all(isinstance(each, str) for each in raw):
        problems.add((KEY, index, "strip"), f"`{KEY}[{index}].strip`: expected a list of names of fields")
        return ()

    for name in raw:
        if name in _ORCHS_OWN:
            problems.add((KEY, index, "strip"), f"`{KEY}[{index}].strip`: a variant does not change `{name}`")

    return tuple(raw)


def _is_json(value: object, depth: int) -> bool:
    """Return whether a TOML value is one of JSON, too: no date, no infinity."""
    if isinstance(value, dict):
        return depth > 0 and all(_is_json(each, depth - 1) for each in value.values())

    if isinstance(value, list):
        return depth > 0 and all(_is_json(each, depth - 1) for each in value)

    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
