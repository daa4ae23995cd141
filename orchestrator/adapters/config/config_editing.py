"""Adds to `orch.toml` what it does not say yet; its comments and its own values stay."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.profile_editing import edit_text
from orchestrator.adapters.config.text_file import read_text, write_text
from orchestrator.adapters.paths import Paths
from orchestrator.core.problems import ProblemsError


def unset_keys(paths: Paths, settings: Mapping[str, object]) -> dict[str, object]:
    """Return those settings (dotted keys) that the file does not say."""
    document: Any = tomllib.loads(_text(paths))
    return {key: value for key, value in settings.items() if not _is_set(document, key)}


def add_keys(paths: Paths, settings: Mapping[str, object]) -> None:
    """Write settings into the file; where it would be wrong with them, it is left as it was.

    :raises ProblemsError: with what is wrong
    """
    before = _text(paths)
    edited, _ = edit_text(before, tomllib.loads(before), list(settings.items()))
    write_text(paths.config_file, edited)
    try:
        load_config(paths)
    except ProblemsError:
        write_text(paths.config_file, before)
        raise


def _text(paths: Paths) -> str:
    load_config(paths)
    return read_text(paths.config_file) if os.path.lexists(paths.config_file) else ""


def _is_set(document: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            return False

        document = document[part]

    return True
