"""Where programs keep models: their directories on this machine, by their variables, settings and usual paths."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from orchestrator.adapters.paths import Paths

Layout = Literal["repositories", "hub", "llama_cache", "ollama", "tree", "flat"]
"""How files lie: `ORG/REPO/FILE`, the hub's cache, llama.cpp's cache, Ollama's store, anyhow, or beside each other."""

_OLLAMA_SERVICE = (
    "/usr/share/ollama/.ollama/models",
    "/var/lib/ollama/.ollama/models",
    "/var/lib/ollama",
    "/var/snap/ollama/common/models",
)
"""Stores of the service that Ollama's installer and distributions set up."""

_JAN_DEPTH = 4
_JAN_PATH = re.compile(r"^(?:model|mmproj)_path:[ \t]*[\"']?(/[^\n\"']+)", re.MULTILINE)

_MOST_SETTINGS_BYTES = 1 << 20


YOURS = "you"
"""The owner of directories that no program made."""


class Place(NamedTuple):
    """A directory in which models may be."""

    owner: str
    path: str
    layout: Layout


def known_places(paths: Paths, environment: Mapping[str, str]) -> tuple[Place, ...]:
    """Return every directory in which programs keep models, orch's own first; none of them need exist."""
    home = environment.get("HOME") or os.path.expanduser("~")

    def at_home(*parts: str) -> str:
        return os.path.join(home, *parts)

    data = environment.get("XDG_DATA_HOME") or at_home(".local", "share")
    found = [
        Place("orch", paths.models, "repositories"),
        Place("Hugging Face", hub_cache(environment), "hub"),
        Place("llama.cpp", llama_cache(environment), "llama_cache"),
        *(Place("LM Studio", path, "repositories") for path in _lm_studio(home)),
        *(Place("Ollama", path, "ollama") for path in _ollama(home, environment)),
        *(Place("Jan", path, "tree") for path in _jan(home, data)),
        *(Place("Jan", path, "flat") for root in _jan(home, data) for path in sorted(_linked_by_jan(root))),
        Place("KoboldCpp", at_home("koboldcpp"), "tree"),
        Place("KoboldCpp", at_home("KoboldCpp"), "tree"),
        Place("text-generation-webui", at_home("text-generation-webui", "user_data"), "tree"),
        Place("text-generation-webui", at_home("text-generation-webui", "models"), "tree"),
        Place("GPT4All", os.path.join(data, "nomic.ai", "GPT4All"), "flat"),
        Place("llama.cpp", at_home("llama.cpp", "models"), "flat"),
        Place("ik_llama.cpp", at_home("ik_llama.cpp", "models"), "flat"),
        Place(YOURS, at_home("models"), "tree"),
        Place(YOURS, at_home("Models"), "tree"),
        Place(YOURS, at_home("Downloads"), "flat"),
    ]
    usable = [place for place in found if _is_path(place.path)]
    return tuple({os.path.realpath(place.path): place for place in reversed(usable)}.values())[::-1]


def hub_cache(environment: Mapping[str, str]) -> str:
    """Return the cache of the Hugging Face hub's clients, which newer builds of llama.cpp use as well."""
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return _expanded(named, environment)

    root = environment.get("HF_HOME")
    return os.path.join(
        _expanded(root, environment) if root else os.path.join(_cache(environment), "huggingface"), "hub"
    )


def llama_cache(environment: Mapping[str, str]) -> str:
    """Return the cache of llama.cpp's `-hf`."""
    named = environment.get("LLAMA_CACHE")
    return _expanded(named, environment) if named else os.path.join(_cache(environment), "llama.cpp")


def _cache(environment: Mapping[str, str]) -> str:
    return environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", ""), ".cache")


def _expanded(path: str, environment: Mapping[str, str]) -> str:
    return os.path.join(environment.get("HOME", ""), path[2:]) if path.startswith("~/") else path


def _lm_studio(home: str) -> Iterator[str]:
    """Yield its directories of models: the one that was chosen in it, and the usual ones of its versions."""
    pointer = _text(os.path.join(home, ".lmstudio-home-pointer")).strip()
    roots = [*([pointer] if os.path.isabs(pointer) else []), os.path.join(home, ".lmstudio")]
    for root in roots:
        chosen = _json(os.path.join(root, "settings.json")).get("downloadsFolder")
        if isinstance(chosen, str) and os.path.isabs(chosen):
            yield chosen

        yield os.path.join(root, "models")

    yield os.path.join(home, ".cache", "lm-studio", "models")


def _ollama(home: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield its stores: a person's, and those of a service."""
    named = environment.get("OLLAMA_MODELS")
    if named:
        yield _expanded(named, environment)

    yield os.path.join(home, ".ollama", "models")
    yield from _OLLAMA_SERVICE


def _jan(home: str, data: str) -> Iterator[str]:
    roots = (os.path.join(data, "Jan", "data"), os.path.join(home, ".config", "Jan", "data"), os.path.join(home, "jan"))
    for root in roots:
        yield os.path.join(root, "llamacpp", "models")
        yield os.path.join(root, "models")


def _linked_by_jan(root: str) -> set[str]:
    """Return the directories of files that were given to Jan and stayed where they were: its `model.yml` names them."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        if folder.count(os.sep) - root.count(os.sep) >= _JAN_DEPTH:
            folders.clear()

        text = _text(os.path.join(folder, "model.yml")) if "model.yml" in names else ""
        found |= {os.path.dirname(match[1]) for match in _JAN_PATH.finditer(text)}

    return found


def _is_path(text: str) -> bool:
    """Return whether what a program's settings say can be a path at all."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _json(path: str) -> Mapping[str, object]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}

    return found if isinstance(found, dict) else {}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_SETTINGS_BYTES)
    except OSError:
        return ""
