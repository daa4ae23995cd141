"""Builds installed side by side, the link `current` to one of them, and the check of their files by sha256.

<data>/engines/<engine>/<build>/bin/...      the programs and their libraries
<data>/engines/<engine>/<build>/manifest.json
<data>/engines/<engine>/current -> <build>   replaced whole, never edited
<data>/engines/<engine>/previous -> <build>  what `rollback` goes back to
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.exclusive import exclusive_lock
from orchestrator.adapters.store.state_file import write_atomically
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.problems import did_you_mean
from orchestrator.core.setup.build_plan import SERVER

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

_CURRENT = "current"
_PREVIOUS = "previous"
PARTIAL = ".partial"

_Stamp = tuple[int, int, int, int]

_verified: dict[str, tuple[_Stamp, str]] = {}
"""Path to the stamp and sha256 as they were when this process last read the file."""


class Install(NamedTuple):
    """One installed build.

    :param manifest: as it was written: `version`, `source`, `backend`, `files`, ...
    """

    engine: str
    build: str
    directory: str
    current: bool
    previous: bool
    manifest: dict[str, Any]

    @property
    def server(self) -> str:
        return os.path.join(self.directory, "bin", SERVER)

    @property
    def size_bytes(self) -> int:
        return int(self.manifest.get("size_bytes", 0))


def root_of(engine: str, paths: Paths) -> str:
    return os.path.join(paths.data, "engines", engine)


def installed(engine: str, paths: Paths) -> tuple[Install, ...]:
    """Return the builds of an engine, the newest first. A directory without a manifest was never finished."""
    root = root_of(engine, paths)
    current, previous = _target(root, _CURRENT), _target(root, _PREVIOUS)
    found: list[Install] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) or entry.name.endswith(PARTIAL):
                continue

            manifest = _manifest(entry.path)
            if manifest is not None:
                name = entry.name
                found.append(Install(engine, name, entry.path, name == current, name == previous, manifest))

    return tuple(sorted(found, key=lambda each: str(each.manifest.get("built_at", "")), reverse=True))


def current(engine: str, paths: Paths) -> Install | None:
    return next((each for each in installed(engine, paths) if each.current), None)


def find(engine: str, build: str, paths: Paths) -> Install:
    """:raises UsageError: when this build is not installed"""
    builds = installed(engine, paths)
    for each in builds:
        if each.build == build:
            return each

    names = [each.build for each in builds]
    raise UsageError(
        f"engine `{engine}` has no installed build `{build}`",
        details=(f"installed: {', '.join(names) or 'none'}",),
        hint=did_you_mean(build, names) or "run `orch engines list --builds`",
    )


def make_current(engine: str, build: str, paths: Paths) -> None:
    """Point `current` to a build, and `previous` to what it was. A reader sees one or the other, never neither."""
    root = root_of(engine, paths)
    before = _target(root, _CURRENT)
    if before == build:
        return

    if before is not None and _manifest(os.path.join(root, before)) is not None:
        _point(root, _PREVIOUS, before)

    _point(root, _CURRENT, build)


def rollback(engine: str, paths: Paths) -> tuple[str, str]:
    """Go back to the build before; a second time goes forth again.

    :return: the build that was current, and the one that is
    :raises OrchError: when there is no other, or its files are not those that were installed
    """
    with locked(engine, paths):
        builds = installed(engine, paths)
        now = next((each for each in builds if each.current), None)
        before = next((each for each in builds if each.previous and not each.current), None)
        if before is None:
            raise OrchError(
                f"engine `{engine}` has no earlier build to go back to",
                details=(f"installed: {', '.join(each.build for each in builds) or 'none'}",),
                hint="run `orch engines list --builds`",
            )

        _check_files(before, "the earlier build")
        make_current(engine, before.build, paths)
        return (now.build if now else "none", before.build)


def use(engine: str, build: str, paths: Paths) -> tuple[str, str]:
    """Make an installed build current, whatever its gate said.

    :return: the build that was current, and the one that is
    :raises OrchError: when it is not there, or its files are not those that were installed
    """
    with locked(engine, paths):
        chosen = find(engine, build, paths)
        now = current(engine, paths)
        _check_files(chosen, f"the build `{build}`")
        make_current(engine, build, paths)
        return (now.build if now else "none", build)


def _check_files(install: Install, what: str) -> None:
    """:raises OrchError: when the files are not those that were installed"""
    reason = verify(install.server)
    if reason is not None:
        raise OrchError(f"{what} cannot be used: {reason}", hint=f"run `orch engines build {install.engine}`")


def remove(engine: str, paths: Paths, build: str | None = None) -> tuple[Install, ...]:
    """Delete one build that is not current, or all of them. Whoever runs one keeps its files until it ends.

    :return: what was removed
    :raises UsageError: when it is not there, or is the current one
    """
    with locked(engine, paths):
        if build is not None:
            chosen: tuple[Install, ...] = (find(engine, build, paths),)
            if chosen[0].current:
                raise UsageError(
                    f"`{build}` is the current build of `{engine}`",
                    hint=f"run `orch engines rollback {engine}` first, or `orch engines remove {engine}` for all",
                )
        else:
            chosen = installed(engine, paths)
            if not chosen:
                raise UsageError(f"engine `{engine}` has no installed build", hint="run `orch engines list`")

        root = root_of(engine, paths)
        for each in chosen:
            for link in (_CURRENT, _PREVIOUS):
                if _target(root, link) == each.build:
                    os.unlink(os.path.join(root, link))

            # Renamed first: what is half deleted is no build.
            gone = f"{each.directory}{PARTIAL}"
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(each.directory, gone)
            shutil.rmtree(gone)

        return chosen


def verify(path: str) -> str | None:
    """Return why the program at this path is not as it was installed; None when it is, or when orch did not install it.

    Everything beside it counts: a library there is loaded into it. A file is read once for each process and content.
    """
    real = os.path.realpath(path)
    directory = os.path.dirname(os.path.dirname(real))
    if not os.path.exists(os.path.join(directory, MANIFEST)):
        return None

    manifest = _manifest(directory)
    if manifest is None:
        return f"{os.path.join(directory, MANIFEST)} cannot be read"

    wanted: dict[str, str] = manifest["files"]
    links: dict[str, str] = manifest["links"]
    found = set(_files(directory))
    if os.path.relpath(real, directory) not in wanted:
        return f"{real} is not a file of the build that it lies in"

    for name in sorted(found ^ (wanted.keys() | links.keys())):
        return f"{os.path.join(directory, name)} {'was added' if name in found else 'is missing'}"

    for name, target in links.items():
        full = os.path.join(directory, name)
        if not os.path.islink(full) or os.readlink(full) != target:
            return f"{full} is not the link to {target} that was installed"

    for name, sha256 in wanted.items():
        full = os.path.join(directory, name)
        try:
            same = not os.path.islink(full) and _sha256(full) == sha256
        except OSError as error:
            return f"{full} cannot be read: {error.strerror}"

        if not same:
            return f"{full} is not the file that was installed: its sha256 differs"

    return None


def describe(directory: str) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the files of a build with their sha256, the links with their targets, and the size in bytes."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    size = 0
    for name in sorted(_files(directory)):
        full = os.path.join(directory, name)
        if os.path.islink(full):
            links[name] = os.readlink(full)
        else:
            files[name] = _sha256(full)
            size += os.path.getsize(full)

    return files, links, size


def write_manifest(directory: str, manifest: dict[str, object]) -> None:
    text = json.dumps({"manifest": MANIFEST_VERSION, **manifest}, indent=2) + "\n"
    write_atomically(os.path.join(directory, MANIFEST), text.encode(), mode=0o644)


def locked(engine: str, paths: Paths) -> contextlib.AbstractContextManager[None]:
    """Hold the lock for changes to an engine's builds.

    :raises OrchError: when another orch holds it
    """
    lock = os.path.join(root_of(engine, paths), ".lock")
    text = f"another orch is building or changing `{engine}`"
    return exclusive_lock(lock, OrchError(text, details=(lock,), hint="wait until it is done"))


def _target(root: str, link: str) -> str | None:
    try:
        return os.readlink(os.path.join(root, link))
    except OSError:
        return None


def _point(root: str, link: str, build: str) -> None:
    temporary = os.path.join(root, f".{link}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)

    os.symlink(build, temporary)
    os.replace(temporary, os.path.join(root, link))


def _manifest(directory: str) -> dict[str, Any] | None:
    """:raises UsageError: when a newer orch wrote it"""
    try:
        with open(os.path.join(directory, MANIFEST), encoding="utf-8") as file:
            manifest = json.load(file)
    except (OSError, ValueError):
        return None

    version = manifest.get("manifest") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        # Not as if nothing were there: an unfinished build may be replaced, this one may not.
        raise UsageError(
            f"{directory} was built by a newer orch",
            details=(f"manifest version {version}, this orch reads up to {MANIFEST_VERSION}",),
            hint="upgrade orch, or move the directory away",
        )

    right = version == MANIFEST_VERSION
    shaped = right and isinstance(manifest.get("files"), dict) and isinstance(manifest.get("links"), dict)
    return manifest if shaped else None


def _files(directory: str) -> Iterator[str]:
    for here, directories, names in os.walk(directory):
        linked = [name for name in directories if os.path.islink(os.path.join(here, name))]
        for name in (*names, *linked):
            relative = os.path.relpath(os.path.join(here, name), directory)
            if relative != MANIFEST:
                yield relative


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        # ctime besides mtime: anyone who writes a file can set its mtime back.
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        kept = _verified.get(path)
        if kept is not None and kept[0] == stamp:
            return kept[1]

        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    _verified[path] = (stamp, sha256)
    return sha256
