"""The capabilities of probed binaries, kept until the binary changes.

An entry holds for one (path, size, mtime, sha256) and for the libraries beside the binary: in a build with shared
libraries, those parse the arguments. An entry that cannot be read is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator

from orchestrator import __version__
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.state_file import write_atomically
from orchestrator.core.dialect.capabilities import Capabilities, Flag, Kind

VERSION = 1
"""Raised when what an entry means changes: a new flag to ask for counts."""

EMBEDDED_SCRIPT = "orch-embedded-server"
EMBEDDED_DISTRIBUTION = "xllamacpp"

_KINDS: tuple[Kind, ...] = ("upstream", "ik")


def directory(paths: Paths) -> str:
    return os.path.join(paths.cache, "probe")


def stamp_of(path: str) -> dict[str, object]:
    """Return what tells one content of a binary from another without reading it: place, size, time and libraries.

    :raises OSError: when it is gone
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    return {
        "path": path,
        "real_path": real,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "beside": list(_beside(real)),
    }


def load(paths: Paths, stamp: dict[str, object]) -> tuple[str, Capabilities] | None:
    """Return the sha256 and the capabilities kept for this stamp."""
    try:
        with open(_file(paths, stamp), "rb") as file:
            entry = json.load(file)

        if entry["version"] != VERSION or entry["stamp"] != json.loads(json.dumps(stamp)):
            return None

        return str(entry["sha256"]), _from_json(entry["capabilities"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, damaged or of another version: it is made again


def save(paths: Paths, stamp: dict[str, object], sha256: str, capabilities: Capabilities) -> None:
    entry = {"version": VERSION, "stamp": stamp, "sha256": sha256, "capabilities": _to_json(capabilities)}
    write_atomically(_file(paths, stamp), json.dumps(entry).encode())


def sha256_of(path: str) -> str:
    """:raises OSError: when it cannot be read"""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(paths: Paths, stamp: dict[str, object]) -> str:
    name = hashlib.sha256(os.fsencode(str(stamp["path"]))).hexdigest()[:32]
    return os.path.join(directory(paths), f"{name}.json")


def _beside(real: str) -> Iterator[list[object]]:
    """Return name, size and mtime of the files that the binary loads beside itself."""
    if os.path.basename(real) == EMBEDDED_SCRIPT:
        yield ["orch", __version__, 0]
        yield [EMBEDDED_DISTRIBUTION, embedded_version() or "", 0]
        yield from _listing(os.path.join(os.path.dirname(__file__), "embedded"), ".py")
        return

    here = os.path.dirname(real)
    for place in (here, os.path.join(os.path.dirname(here), "lib")):
        yield from _listing(place, "llama", "ggml", "mtmd")


def _listing(place: str, *parts: str) -> list[list[object]]:
    """Files whose names have one of these parts, and look like a library or a module."""
    found: list[list[object]] = []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                library = entry.name.endswith((".so", ".dylib", ".py")) or ".so." in entry.name
                if library and any(part in entry.name for part in parts):
                    status = entry.stat()
                    found.append([entry.name, status.st_size, status.st_mtime_ns])
    except OSError:
        return []  # no such directory, or a library was replaced just now: the next look sees the new one

    return sorted(found, key=lambda row: str(row[0]))


def embedded_version() -> str | None:
    """The installed xllamacpp, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(EMBEDDED_DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _to_json(capabilities: Capabilities) -> dict[str, object]:
    return {
        "kind": capabilities.kind,
        "version": capabilities.version,
        "build_number": capabilities.build_number,
        "commit": capabilities.commit,
        "spec_stages": capabilities.spec_stages,
        "flags": [
            [flag.name, flag.aliases, flag.value, flag.choices, flag.removed, flag.listed]
            for flag in capabilities.each()
        ],
    }


def _from_json(entry: dict[str, object]) -> Capabilities:
    """:raises ValueError: when it is not what was written; so do KeyError and TypeError"""
    rows = entry["flags"]
    kind = next((kind for kind in _KINDS if kind == entry["kind"]), None)
    if kind is None or not isinstance(rows, list):
        raise ValueError("not an entry")

    flags: dict[str, Flag] = {}
    for name, aliases, value, choices, removed, listed in rows:
        flag = Flag(name, tuple(aliases), value, None if choices is None else tuple(choices), removed, listed)
        flags.update(dict.fromkeys(flag.spellings, flag))

    number, commit = entry["build_number"], entry["commit"]
    return Capabilities(
        kind=kind,
        version=str(entry["version"]),
        build_number=number if isinstance(number, int) else None,
        commit=commit if isinstance(commit, str) else None,
        flags=flags,
        spec_stages=entry["spec_stages"] is True,
    )
