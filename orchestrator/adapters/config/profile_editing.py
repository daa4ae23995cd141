"""Changes to profile files that keep comments and order, and never leave an invalid file behind."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.config.text_file import read_text, write_text
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.problems import Key, dotted
from orchestrator.core.profile.profile import NAME_RULE, is_name
from orchestrator.core.terminal import quote_text


class Change(NamedTuple):
    """One key: what it was and what it is now; None where it is not set."""

    key: str
    before: object
    after: object


class Edited(NamedTuple):
    """The result of an edit.

    :param path: the file that was written
    :param copied_from: the shipped profile that it was first copied from, if it was
    """

    path: str
    changes: tuple[Change, ...]
    copied_from: str | None


class Draft(NamedTuple):
    """An edit that is not written yet.

    :param path: the file that would be written; `before` is its text, or that of the shipped profile it is copied from
    """

    path: str
    before: str
    after: str
    changes: tuple[Change, ...]
    copied_from: str | None


def set_values(
    store: ProfileStore,
    name_or_file: str,
    pairs: Sequence[tuple[str, object]],
    comments: Mapping[str, str] | None = None,
) -> Edited:
    """Set keys of a profile, or remove those whose value is None; a shipped profile is copied to the user's first.

    :param pairs: dotted keys as TOML writes them, and values as `tomllib` gives them
    :param comments: by those keys, what is written behind the values
    :raises ProblemsError: when the result would be invalid; nothing is written then
    """
    draft = draft_values(store, name_or_file, pairs, comments)
    if draft.after != draft.before or draft.copied_from is not None:
        write_text(draft.path, draft.after)

    return Edited(draft.path, draft.changes, draft.copied_from)


def draft_values(
    store: ProfileStore,
    name_or_file: str,
    pairs: Sequence[tuple[str, object]],
    comments: Mapping[str, str] | None = None,
) -> Draft:
    """Return what `set_values` would write; nothing is written."""
    source = store.source(name_or_file)
    text = read_text(source.path)
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        store.resolve(name_or_file)  # says where, with line and column
        raise

    edited, changes = edit_text(text, before, pairs, comments or {})
    path = source.path if not source.shipped else store.path_of(source.name)
    store.resolve(name_or_file, edited)
    return Draft(path, text, edited, changes, source.path if source.shipped else None)


def new_profile_path(store: ProfileStore, name: str) -> str:
    """Return where a new profile is to be written.

    :raises UsageError: when the name is taken or not allowed
    """
    if not is_name(name):
        raise UsageError(f"`{quote_text(name, 80)}` cannot be a profile's name", details=(f"allowed: {NAME_RULE}",))

    if name in store.names():
        raise UsageError(
            f"there is a profile `{name}` already",
            details=(f"in {store.source(name).path}",),
            hint=f"choose another name, or run `orch profile set {name} KEY=VALUE`",
        )

    path = store.path_of(name)
    if os.path.lexists(path):  # a dangling link: a name that is listed nowhere, and leads somewhere else
        raise UsageError(f"{path} exists already")

    return path


def create_profile(store: ProfileStore, name: str, text: str) -> str:
    """Write a new profile into the user's directory, and return its path.

    :raises UsageError: when the name is taken or not allowed
    """
    path = new_profile_path(store, name)
    store.resolve(path, text)
    write_text(path, text)
    return path


def parse_value(text: str) -> object:
    """Return a value as written on a command line: TOML, or else the words themselves."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text

    # More than one key: the text held a line break and went on. It is a string then.
    return document["value"] if list(document) == ["value"] else text


def _parse_key(text: str) -> Key:
    try:
        document: object = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        document = {}

    parts: list[str] = []
    while isinstance(document, dict):
        if len(document) != 1:
            raise UsageError(f"`{text}` is not a key", hint="keys look like `memory.fit_margin`")

        [(part, document)] = document.items()
        parts.append(part)

    return tuple(parts)


def edit_text(
    text: str,
    before: Mapping[str, Any],
    pairs: Sequence[tuple[str, object]],
    comments: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, tuple[Change, ...]]:
    """Return a document with keys set, or removed where the value is None, its comments and order kept.

    :param before: the text as `tomllib` reads it
    :param pairs: dotted keys and their values
    :param comments: by those keys, what is written behind the values
    """
    said = {_parse_key(key): comment for key, comment in comments.items()}
    return _edit(text, before, [(_parse_key(key), value) for key, value in pairs], said)


def _edit(
    text: str, before: Mapping[str, Any], pairs: Sequence[tuple[Key, object]], comments: Mapping[Key, str]
) -> tuple[str, tuple[Change, ...]]:
    expected = copy.deepcopy(dict(before))
    changes = []
    try:
        document = tomlkit.parse(text)
        for key, value in pairs:
            comment = comments.get(key)
            key = _spread_engine(document, expected, key)
            changes.append(Change(dotted(key), _get_value(expected, key), value))
            _set_value(document, key, value if comment is None else tomlkit.item(value).comment(comment))
            _set_value(expected, key, value)

        edited = tomlkit.dumps(document)
        same = tomllib.loads(edited) == expected
    except (TOMLKitError, tomllib.TOMLDecodeError) as error:
        raise _cannot_edit(str(error)) from error

    if not same:
        raise _cannot_edit("the edited text would not say what was asked for")

    return edited, tuple(changes)


def _cannot_edit(why: str) -> OrchError:
    return OrchError("the file is laid out in a way that cannot be edited", details=(why,), hint="edit it by hand")


def _spread_engine(document: Any, expected: dict[str, Any], key: Key) -> Key:
    """Make room for a key of `[engine]`, and return the key to set.

    `engine = "ID"` and `[engine.ID]` cannot stand in one document: the default moves into the table.
    """
    if key == ("engine",) and isinstance(expected.get("engine"), dict):
        return ("engine", "default")

    default = expected.get("engine")
    if key[0] == "engine" and len(key) > 1 and isinstance(default, str):
        for target in (document, expected):
            del target["engine"]
            _set_value(target, ("engine", "default"), default)

    return key


def _get_value(document: Any, key: Key) -> object:
    for part in key:
        if not isinstance(document, Mapping) or part not in document:
            return None

        document = document[part]

    return document


def _set_value(document: Any, key: Key, value: object) -> None:
    *tables, name = key
    for depth, part in enumerate(tables, start=1):
        child = document.get(part)
        if child is None:
            if value is None:
                return

            document[part] = _new_table(document, only_tables=depth < len(tables))
            child = document[part]
        elif not isinstance(child, Mapping):
            raise UsageError(f"`{dotted(key[:depth])}` is a value, and has no keys below it")

        document = child

    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


def _new_table(document: Any, *, only_tables: bool) -> Any:
    from tomlkit.items import InlineTable, Item

    if isinstance(document, InlineTable):
        return tomlkit.inline_table()

    is_tomlkit = isinstance(document, (Item, tomlkit.TOMLDocument))
    return tomlkit.table(is_super_table=only_tables) if is_tomlkit else {}
