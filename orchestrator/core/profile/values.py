"""Checks one TOML value against its row of a table, in TOML's words."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from orchestrator.core.problems import Key, Problems, did_you_mean, dotted
from orchestrator.core.profile.settings import Setting, Type, Value
from orchestrator.core.terminal import quote_text

MAX_STRING = 65536
"""Characters: an argument of a process may hold 128 KiB (MAX_ARG_STRLEN, execve(2))."""

MAX_QUOTED = 60
"""Characters of a wrong value that a message shows."""

_EXPECTED: Mapping[Type, str] = {
    "bool": "a boolean",
    "int": "an integer",
    "float": "a number",
    "string": "a string",
    "path": "a string",
    "ints": "an array of integers",
    "floats": "an array of numbers",
    "strings": "an array of strings",
    "paths": "an array of strings",
    "groups": "an array of arrays of strings",
    "table": "a table",
}

_ELEMENT: Mapping[Type, Type] = {
    "ints": "int", "floats": "float", "strings": "string", "paths": "path", "groups": "strings",
}  # fmt: skip

# In this order: a boolean is an int to Python, and a date-time is a date.
_FOUND: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
    (datetime.datetime, "a date-time"),
    (datetime.date, "a date"),
    (datetime.time, "a time"),
)


def describe_type(raw: object) -> str:
    """Return the TOML type of a parsed value, with its article: "a string", "a date-time"."""
    return next((words for kind, words in _FOUND if isinstance(raw, kind)), type(raw).__name__)


def read_value(
    setting: Setting, raw: object, key: Key, problems: Problems, *, allow_empty: bool = False
) -> Value | None:
    """Return a value as the setting holds it; None when it is not allowed, which is added to the problems.

    :param raw: a value as `tomllib` gives it
    :param key: where it stands in the document
    :param allow_empty: an array may have no elements (an engine's argument cannot be an empty list)
    """
    before = len(problems.found)
    if isinstance(raw, list):
        array = next((kind for kind in setting.types if kind in _ELEMENT), None)
        if array == "groups":
            return _read_groups(setting, raw, key, problems)

        if array is not None and not raw and not allow_empty:
            problems.add(key, f"`{dotted(key)}`: expected at least one element")
            return None

        if array is not None:
            elements = [_read_element(setting, _ELEMENT[array], item, (*key, at)) for at, item in enumerate(raw)]
            for at, (_, message, hint) in enumerate(elements):
                if message:
                    problems.add((*key, at), message, hint=hint)

            return None if len(problems.found) > before else cast(Value, tuple(value for value, _, _ in elements))

    value, message, hint = _read_scalar(setting, raw, key)
    if message:
        problems.add(key, message, hint=hint)

    return value


def _read_groups(setting: Setting, raw: list[object], key: Key, problems: Problems) -> Value | None:
    """Read an array of arrays, which no setting of an engine is: whoever has one casts it back."""
    before = len(problems.found)
    inner = replace(setting, types=("strings",))
    groups = [read_value(inner, group, (*key, at), problems, allow_empty=True) for at, group in enumerate(raw)]
    return None if len(problems.found) > before else cast(Value, tuple(groups))


_Read = tuple[Value | None, str | None, str | None]
"""The value, or a message and perhaps a hint."""


def _read_element(setting: Setting, kind: Type, raw: object, key: Key) -> _Read:
    if not _fits(kind, raw):
        return None, f"`{dotted(key)}`: expected {_EXPECTED[kind]}, found {describe_type(raw)}", None

    return _check_bounds(setting, raw, key)


def _read_scalar(setting: Setting, raw: object, key: Key) -> _Read:
    scalars = [kind for kind in setting.types if kind not in _ELEMENT]
    if any(_fits(kind, raw) for kind in scalars):
        return _check_bounds(setting, raw, key)

    expected = " or ".join(dict.fromkeys(_EXPECTED[kind] for kind in setting.types))
    hint = None
    if isinstance(raw, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?|true|false", raw.strip()):
        hint = "remove the quotes"

    return None, f"`{dotted(key)}`: expected {expected}, found {describe_type(raw)}", hint


def _fits(kind: Type, raw: object) -> bool:
    match kind:
        case "bool":
            return isinstance(raw, bool)
        case "int":
            return isinstance(raw, int) and not isinstance(raw, bool)
        case "float":
            return isinstance(raw, (int, float)) and not isinstance(raw, bool)
        case "string" | "path":
            return isinstance(raw, str)
        case "table":
            return isinstance(raw, dict)
        case _:
            return False


def _check_bounds(setting: Setting, raw: object, key: Key) -> _Read:
    if isinstance(raw, bool):
        return raw, None, None

    if isinstance(raw, (int, float)):
        return _check_number(setting, raw, key)

    if isinstance(raw, str):
        return _check_text(setting, raw, key)

    table = cast(dict[str, object], raw)
    where = _find_non_json(table, ())
    if where is not None:
        return None, f"`{dotted((*key, *where))}`: has no form in JSON, which it is handed on as", None

    return table, None, None


def _check_number(setting: Setting, raw: int | float, key: Key) -> _Read:
    low, high = setting.minimum, setting.maximum
    if not math.isfinite(raw) or (low is not None and raw < low) or (high is not None and raw > high):
        instead = setting.instead.get(int(raw)) if math.isfinite(raw) and int(raw) == raw else None
        hint = None if instead is None else f"orch writes {instead}"
        return None, f"`{dotted(key)}`: expected {_words_beside(setting)}{range_words(low, high)}, found {raw}", hint

    return (float(raw) if "int" not in setting.types and "ints" not in setting.types else raw), None, None


def _words_beside(setting: Setting) -> str:
    """Return the words that are allowed beside a number, for a message: "`auto`, `all` or "."""
    words = ", ".join(f'`"{choice}"`' for choice in setting.choices or ())
    return f"{words} or " if words else ""


def range_words(low: float | None, high: float | None) -> str:
    """Return a range of numbers in words, for messages and documentation."""
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"

    if low is not None:
        return f"at least {_plain(low)}"

    return f"at most {_plain(high)}" if high is not None else "a finite number"


def _plain(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"


def _check_text(setting: Setting, raw: str, key: Key) -> _Read:
    name = dotted(key)
    if setting.choices is not None:
        if raw in setting.choices:
            return raw, None, None

        allowed = ", ".join(f"`{choice}`" for choice in setting.choices)
        return (
            None,
            f"`{name}`: expected one of {allowed}, found `{quote_text(raw, MAX_QUOTED)}`",
            did_you_mean(raw, setting.choices),
        )

    if "\0" in raw or len(raw) > MAX_STRING:
        return None, f"`{name}`: expected at most {MAX_STRING} characters and no NUL", None

    if setting.form is not None and re.fullmatch(setting.form[0], raw) is None:
        return None, f"`{name}`: expected {setting.form[1]}, found `{quote_text(raw, MAX_QUOTED)}`", None

    return raw, None, None


def _find_non_json(value: object, where: Key) -> Key | None:
    """Return the place in a table of the first value that JSON has no form for (a date, infinity); None without one."""
    if isinstance(value, dict):
        children = [_find_non_json(child, (*where, str(name))) for name, child in value.items()]
    elif isinstance(value, list):
        children = [_find_non_json(child, (*where, at)) for at, child in enumerate(value)]
    else:
        plain = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
        return None if plain else where

    return next((child for child in children if child is not None), None)
