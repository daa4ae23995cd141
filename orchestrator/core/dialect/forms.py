"""One setting in one build's words: the first form of its row that the build allows, and the command line so far."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.dialect.capabilities import Capabilities, Flag
from orchestrator.core.dialect.tables import Form, Row, Shape
from orchestrator.core.profile.settings import Value

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")

_TAKES_VALUE = {Shape.VALUE: True, Shape.ON_OFF: True, Shape.INDEXED: True, Shape.REPEATED: True, Shape.BARE: False}


@dataclass(frozen=True, slots=True)
class Spelled:
    """The words of one setting on the command line; empty argv always comes with a note."""

    argv: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """The reason why a build cannot express one setting, with the nearest thing that it can do."""

    reason: str


@dataclass(slots=True)
class Sheet:
    """The command line as it is put together, with what there is to say about it.

    :param problems: what this build cannot express, as (setting, value, reason)
    """

    argv: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, Value, str]] = field(default_factory=list)

    def add(self, setting: str, value: Value, result: Spelled | Inexpressible) -> None:
        """Add the words of a setting, or the reason why there are none."""
        if isinstance(result, Inexpressible):
            self.refuse(setting, value, result.reason)
            return

        self.argv += result.argv
        if result.note:
            self.note(setting, value, result.note)

    def note(self, setting: str, value: Value, note: str) -> None:
        self.notes.append(f"{setting} = {profile_text(value)}: {note}")

    def refuse(self, setting: str, value: Value, reason: str) -> None:
        self.problems.append((setting, value, reason))


def accepts_flag(caps: Capabilities, evidence: str) -> bool:
    """Return whether a build accepts a flag: `--fit` in any form, `--fit=` with a value, `--fit!` bare."""
    flag = caps.find(evidence.rstrip("=!"))
    if flag is None:
        return False

    return flag.value if evidence.endswith("=") else not (evidence.endswith("!") and flag.value)


def spell(row: Row, value: Value, caps: Capabilities, spec_type: str = "none") -> Spelled | Inexpressible:
    """Return the words of the first form that this build allows for this value."""
    refused = ""
    for form in row.forms:
        if not _form_applies(form, value, caps, spec_type):
            continue

        if form.shape is Shape.OMIT:
            return Spelled((), form.note)

        spelling, flag = _find_flag(form, caps)
        if flag is None:
            continue

        fault = _find_fault(form, flag, value, caps)
        if fault is None:
            return Spelled(_words(form, spelling, value), form.note)

        refused = refused or fault

    return Inexpressible(_explain_refusal(row, value, caps, refused))


def _words(form: Form, spelling: str, value: Value) -> tuple[str, ...]:
    if form.shape is Shape.BARE:
        return (spelling,)

    if form.shape is Shape.REPEATED and isinstance(value, tuple):
        return tuple(word for part in value for word in (spelling, engine_text(part)))

    return spelling, _argument_text(form, value)


def engine_text(value: Value) -> str:
    """Return a value as an engine reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"

    if isinstance(value, float):
        # No exponent: `stof` refuses what a 32-bit float cannot hold.
        whole, _, decimals = f"{value:.9f}".partition(".")
        return f"{whole}.{decimals.rstrip('0') or '0'}"

    if isinstance(value, tuple):
        return ",".join(engine_text(part) for part in value)

    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    return str(value)


def profile_text(value: Value) -> str:
    """Return a value as a profile writes it, for messages."""
    if isinstance(value, bool):
        return "true" if value else "false"

    if isinstance(value, tuple):
        return "[" + ", ".join(profile_text(part) for part in value) + "]"

    return json.dumps(value, ensure_ascii=False)


def same_value(one: Value, other: Value) -> bool:
    """Return whether two values are equal and of one type: 1 is not true."""
    return type(one) is type(other) and one == other


def looks_like_flag(argument: str) -> bool:
    """Return whether an engine reads this argument as the next flag: it begins with a dash, and is no number."""
    return argument.startswith("-") and _NUMBER.fullmatch(argument) is None


def _form_applies(form: Form, value: Value, caps: Capabilities, spec_type: str) -> bool:
    if form.when is not None and not any(same_value(value, word) for word in form.when):
        return False

    return (
        (form.of is None or (isinstance(value, form.of) and not isinstance(value, bool)))
        and (form.kinds is None or caps.kind in form.kinds)
        and (form.types is None or spec_type in form.types)
        and all(accepts_flag(caps, evidence) for evidence in form.beside)
        and not any(accepts_flag(caps, evidence) for evidence in form.absent)
    )


def _find_flag(form: Form, caps: Capabilities) -> tuple[str, Flag | None]:
    for spelling in form.flags:
        flag = caps.find(spelling)
        if flag is not None and flag.value is _TAKES_VALUE[form.shape]:
            return spelling, flag

    return "", None


def _argument_text(form: Form, value: Value) -> str:
    if form.shape is Shape.INDEXED and isinstance(value, tuple):
        return engine_text(tuple(str(part) for pair in enumerate(value) for part in pair))

    if isinstance(value, tuple):
        return form.joiner.join(engine_text(part) for part in value)

    return next((word for key, word in form.spelled.items() if same_value(key, value)), engine_text(value))


def _find_fault(form: Form, flag: Flag, value: Value, caps: Capabilities) -> str | None:
    if form.shape is Shape.BARE:
        return None

    argument = _argument_text(form, value)
    if looks_like_flag(argument):
        return f"`{flag.name} {argument}` would be read as two flags, as the value begins with `-`"

    for part in value if isinstance(value, tuple) else ():
        separator = "" if form.shape is Shape.REPEATED else form.joiner
        bad = next((char for char in (separator + form.forbid) if char in str(part)), None)
        if bad is not None:
            return f"`{flag.name}` takes a list in which no element may hold `{bad}`, found {profile_text(part)}"

    allowed = _allowed_words(form, flag, caps)
    if form.shape is not Shape.VALUE or not isinstance(value, str | bool):
        return None

    if (form.listed and argument not in (flag.choices or ())) or (allowed is not None and argument not in allowed):
        return f"`{flag.name}` takes {', '.join(allowed or ())}"

    return None


def _allowed_words(form: Form, flag: Flag, caps: Capabilities) -> tuple[str, ...] | None:
    if flag.choices is None:
        return form.words

    # The fork's lists are not complete.
    extra = form.words or () if caps.kind == "ik" else ()
    return tuple(dict.fromkeys((*flag.choices, *extra)))


def _explain_refusal(row: Row, value: Value, caps: Capabilities, fault: str) -> str:
    word = value if isinstance(value, str) else ""
    parts = [row.only[word]] if word in row.only else []
    if fault:
        parts.append(fault)
    elif not parts:
        known = next((flag for form in row.forms for flag in form.flags if caps.find(flag)), None)
        parts.append(f"`{known}` does not say it here" if known else "no flag for it")

    nearest = row.nearest_for.get(caps.kind, row.nearest)
    parts.append(f"nearest here {row.substitutes[word]}" if word in row.substitutes else nearest)
    return "; ".join(parts)
