"""Profiles that come from elsewhere: written with what was guessed as comments, never over those that are there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.config.text_file import write_text
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.profile import SCHEMA_VERSION
from orchestrator.core.terminal import quote_text

_FIRST = ("description", "model", "aliases")
_MOST_COMMENT = 110


def profile_text(document: Mapping[str, Any], engine: str, comments: Sequence[str]) -> str:
    """Return a document as the text of a profile.

    :param comments: lines for people, in front of everything
    """
    text = tomlkit.document()
    for line in comments:
        for part in _wrapped(quote_text(line)):
            text.add(tomlkit.comment(part))

    text["schema"] = SCHEMA_VERSION
    overrides = document.get("engine", {})
    for key in _FIRST:
        if key in document:
            text[key] = document[key]

    if not overrides:
        text["engine"] = engine

    for key, value in document.items():
        if key not in (*_FIRST, "engine", "variants"):
            text[key] = value

    if overrides:
        text["engine"] = {"default": engine, **overrides}

    if document.get("variants"):
        tables = tomlkit.aot()
        for each in document["variants"]:
            tables.append(tomlkit.item(each))

        text["variants"] = tables

    return tomlkit.dumps(text)


def write_profiles(store: ProfileStore, texts: Mapping[str, str], *, force: bool) -> dict[str, str]:
    """Write profiles into the user's directory, all or none; return their paths by name.

    :param force: those that are there are replaced
    :raises UsageError: when one is there already, or is not valid
    """
    paths = {name: store.path_of(name) for name in texts}
    known = set(store.names())
    there = [name for name, path in paths.items() if os.path.lexists(path) or name in known]
    if there and not force:
        raise UsageError(
            f"{len(there)} of these profiles exist already: nothing was written",
            details=tuple(f"{name}: {store.source(name).path}" for name in there if name in known),
            hint="add `--force` to replace them",
        )

    for name, path in paths.items():
        store.resolve(path, texts[name])

    for name, path in paths.items():
        write_text(path, texts[name])

    return paths


def _wrapped(line: str) -> list[str]:
    lines = [""]
    for word in line.split():
        if lines[-1] and len(lines[-1]) + len(word) > _MOST_COMMENT:
            lines.append("  ")

        lines[-1] += ("" if not lines[-1].strip() else " ") + word

    return lines
