"""The options of the embedded server, and a parser from a command line to assignments to `xllamacpp.CommonParams`.

Parsing needs no xllamacpp: enumerators travel by name and are looked up when they are assigned. Order, arity, `_` for
`-` in long flags, and the texts of errors follow upstream's `common/arg.cpp`, because the same probe and the same
failure classifier read them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.errors import UsageError

Command = Literal["help", "version", "devices"]
Section = Literal["common", "sampling", "speculative", "example-specific"]

_TRUE = ("on", "enabled", "true", "1")
_FALSE = ("off", "disabled", "false", "0")
_AUTO = ("auto", "-1")


@dataclass(frozen=True, slots=True)
class Enumerator:
    """A member of one of xllamacpp's enumerations, by name."""

    enumeration: str
    member: str


Value = bool | int | float | str | Enumerator | list[int] | list[float] | list[str] | list[Enumerator] | dict[str, str]


@dataclass(frozen=True, slots=True)
class Assignment:
    """`value` for the attribute at a dotted path; `add` joins it to what other options put there."""

    path: str
    value: Value
    add: bool = False


Reading = Callable[[str], Sequence[Assignment]]


@dataclass(frozen=True, slots=True)
class Option:
    """One entry of the help.

    :param flags: every spelling, in the order of the help
    :param doc: one sentence or more; line breaks are kept
    :param read: turns the value (`on` where there is none) into assignments, or raises ValueError in upstream's words
    :param hint: how the help shows the value; None for a bare flag
    :param off: spellings that mean the opposite; `read` is given `off`
    :param command: done as soon as it is read, and nothing after it is looked at
    """

    section: Section
    flags: tuple[str, ...]
    doc: str
    read: Reading
    hint: str | None = None
    off: tuple[str, ...] = ()
    command: Command | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    assignments: tuple[Assignment, ...]
    command: Command | None = None


class ArgumentError(UsageError):
    """Raised when the command line is refused; the message is upstream's line."""


def parse(argv: Sequence[str], options: Sequence[Option]) -> Parsed:
    """Read a command line from left to right; a later value replaces an earlier one.

    :raises ArgumentError: at the first flag or value that is refused
    """
    by_flag = {flag: option for option in options for flag in (*option.flags, *option.off)}
    found: list[Assignment] = []
    words = iter(argv)
    for word in words:
        flag = word.replace("_", "-") if word.startswith("--") else word
        option = by_flag.get(flag)
        if option is None:
            raise ArgumentError(f"error: invalid argument: {word}")

        if option.command is not None:
            return Parsed(tuple(found), option.command)

        value = "off" if flag in option.off else "on"
        if option.hint is not None:
            given = next(words, None)
            if given is None:
                raise ArgumentError(f'error while handling argument "{word}": expected value for argument')

            value = given

        try:
            found += option.read(value)
        except (ValueError, OSError) as error:
            raise ArgumentError(f'error while handling argument "{word}": {error}') from error

    return Parsed(tuple(found))


def apply(assignments: Sequence[Assignment], params: object, module: object) -> None:
    """Set the attributes of a `CommonParams`.

    :param module: xllamacpp, where the enumerations are
    :raises ArgumentError: when the library refuses a value
    """
    values: dict[str, Value] = {}
    for assignment in assignments:
        before = values.get(assignment.path)
        values[assignment.path] = _joined(before, assignment.value) if assignment.add else assignment.value

    for path, value in values.items():
        *owners, name = path.split(".")
        target = params
        for owner in owners:
            target = getattr(target, owner)

        try:
            setattr(target, name, _resolved(value, module))
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"error: invalid argument: {path} = {value}: {error}") from error


def text(path: str) -> Reading:
    return lambda value: [Assignment(path, value)]


def integer(path: str) -> Reading:
    return lambda value: [Assignment(path, int_of(value))]


def number(path: str) -> Reading:
    return lambda value: [Assignment(path, float_of(value))]


def flag(path: str, *, inverted: bool = False) -> Reading:
    """A bare flag, or a pair with its opposite: sets a bool."""
    return lambda value: [Assignment(path, (value == "on") != inverted)]


def constant(path: str, value: Value) -> Reading:
    """A bare flag that sets something else than a bool."""
    return lambda _: [Assignment(path, value)]


def switch(path: str, what: str) -> Reading:
    """`on` or `off` as a value."""

    def read(value: str) -> Sequence[Assignment]:
        if value in _TRUE:
            return [Assignment(path, True)]

        if value in _FALSE:
            return [Assignment(path, False)]

        raise ValueError(f"error: unknown value for {what}: '{value}'")

    return read


def three_way(what: str, on: Sequence[Assignment], off: Sequence[Assignment], auto: Sequence[Assignment]) -> Reading:
    """`on`, `off` or `auto` as a value."""

    def read(value: str) -> Sequence[Assignment]:
        for words, found in ((_TRUE, on), (_FALSE, off), (_AUTO, auto)):
            if value in words:
                return found

        raise ValueError(f"error: unknown value for {what}: '{value}'")

    return read


def choice(path: str, enumeration: str, members: Mapping[str, str], refusal: str = "invalid value") -> Reading:
    """A word that stands for an enumerator.

    :param refusal: upstream's text; `{}` stands for the word
    """

    def read(value: str) -> Sequence[Assignment]:
        if value not in members:
            raise ValueError(refusal.format(value))

        return [Assignment(path, Enumerator(enumeration, members[value]))]

    return read


def listed(path: str) -> Reading:
    """Words separated by commas, joined to those given before."""
    return lambda value: [Assignment(path, [word for word in value.split(",") if word], add=True)]


def int_of(value: str) -> int:
    try:
        found = int(value)
    except ValueError:
        raise ValueError("stoi") from None  # what upstream's std::stoi says

    if not -(2**31) <= found < 2**31:
        raise ValueError("stoi")

    return found


def float_of(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        raise ValueError("stof") from None

    if not math.isfinite(found):
        raise ValueError("stof")

    return found


def file_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        raise ValueError(f"error: failed to open file '{path}'") from None


def json_texts(value: str) -> dict[str, str]:
    """The members of a JSON object, each as JSON text: how upstream keeps template arguments."""
    found = json.loads(value)
    if not isinstance(found, dict):
        raise ValueError("must be a valid json object string")

    return {key: json.dumps(member) for key, member in found.items()}


def _joined(before: Value | None, value: Value) -> Value:
    if before is None:
        return value

    if isinstance(before, list) and isinstance(value, list):
        return [*before, *value]

    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **value}

    return f"{before},{value}"


def _resolved(value: Value, module: object) -> object:
    if isinstance(value, Enumerator):
        return getattr(module, value.enumeration)[value.member]

    if isinstance(value, list):
        return [_resolved(item, module) for item in value]

    return value
