"""Looks for GGUF files in a directory: links are followed once, and what cannot be read is told."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestrator.core.setup.found_models import FileGroup, FoundFile
from orchestrator.engines.models.places import Place

MOST_ENTRIES = 200_000
"""Of one place. Somebody's home with a link to a file server is not looked through for minutes."""

MOST_DEPTH = 8

_SNAPSHOTS = "snapshots"


class _DirectoryEntry(NamedTuple):
    path: str
    is_directory: bool


class Scanner:
    """Goes through places one after the other; a directory that was seen is not entered again, whatever leads there."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        self._left = MOST_ENTRIES

    def groups(self, place: Place) -> list[FileGroup]:
        """Return the files of a place, those together that may belong together; none where there is no such place."""
        self._left = MOST_ENTRIES
        if not os.path.isdir(place.path):
            return []

        match place.layout:
            case "repositories":
                return list(self._repositories(place))
            case "hub":
                return list(self._hub(place.owner, place.path))
            case "llama_cache":
                return [*self._hub(place.owner, place.path), *self._llama_cache(place)]
            case _:
                depth = 1 if place.layout == "flat" else MOST_DEPTH
                return list(_grouped(place.owner, place.path, self.files(place.path, depth), repository=False))

    def files(self, directory: str, depth: int = MOST_DEPTH) -> list[FoundFile]:
        """Return the GGUF files below a directory, with their paths in it.

        :param depth: 1 for those that lie in it alone
        """
        found: list[FoundFile] = []
        waiting = [(directory, 1)]
        while waiting:
            folder, level = waiting.pop()
            if not self._enter(folder):
                continue

            deeper = []
            for entry in self._entries(folder):
                if entry.is_directory:
                    if level < depth:
                        deeper.append((entry.path, level + 1))
                elif (file := self._file(entry.path, directory)) is not None:
                    found.append(file)

            waiting += reversed(deeper)

        return found

    def _repositories(self, place: Place) -> Iterator[FileGroup]:
        """Yield `ORG/REPO` with all that is in it, and what lies outside of any."""
        if not self._enter(place.path):
            return

        loose: list[FoundFile] = []
        for org in self._entries(place.path):
            if not org.is_directory:
                loose += filter(None, (self._file(org.path, place.path),))
                continue

            if not self._enter(org.path):
                continue

            for repository in self._entries(org.path):
                if repository.is_directory:
                    label = os.path.relpath(repository.path, place.path)
                    yield from _grouped(place.owner, label, self.files(repository.path), repository=True)
                else:
                    loose += filter(None, (self._file(repository.path, place.path),))

        yield from _grouped(place.owner, place.path, loose, repository=False)

    def _hub(self, owner: str, cache: str) -> Iterator[FileGroup]:
        """Yield the repositories of a cache of the hub's: of each its snapshots, the newest first."""
        for entry in self._entries(cache, only_directories="models--"):
            label = os.path.basename(entry.path).removeprefix("models--").replace("--", "/")
            root = os.path.join(entry.path, _SNAPSHOTS)
            snapshots = [each.path for each in self._entries(root) if each.is_directory] if os.path.isdir(root) else []
            for snapshot in sorted(snapshots, key=_changed_at, reverse=True):
                yield from _grouped(owner, label, self.files(snapshot), repository=True)

    def _llama_cache(self, place: Place) -> Iterator[FileGroup]:
        """Yield the repositories of llama.cpp's own cache, whose files are called `ORG_REPO_FILE.gguf`."""
        repositories: dict[str, str] = {}
        for name in self._names(place.path):
            manifest = name.split("=")
            if manifest[0] == "manifest" and len(manifest) >= 4:
                repositories[f"{manifest[1]}_{manifest[2]}_"] = f"{manifest[1]}/{manifest[2]}"

        kept: dict[str, list[FoundFile]] = {}
        for file in self.files(place.path, 1):
            prefix = next((each for each in repositories if file.name.startswith(each)), "") or _guessed(file.name)
            repositories.setdefault(prefix, prefix.strip("_").replace("_", "/", 1))
            kept.setdefault(prefix, []).append(file._replace(name=file.name.removeprefix(prefix)))

        for prefix, files in kept.items():
            label = repositories[prefix] if prefix else place.path
            yield from _grouped(place.owner, label, files, repository=bool(prefix))

    def _enter(self, directory: str) -> bool:
        try:
            found = os.stat(directory)
        except OSError as error:
            self._cannot(directory, error)
            return False

        identity = (found.st_dev, found.st_ino)
        if identity in self._seen:
            return False

        self._seen.add(identity)
        return True

    def _names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except OSError:  # told by who goes through it
            return []

    def _entries(self, directory: str, only_directories: str = "") -> list[_DirectoryEntry]:
        """Return directories and what is called like a GGUF file, in the order of their names; hidden ones left out.

        :param only_directories: nothing else than directories whose names begin so
        """
        found = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._left -= 1
                    if self._left < 0:
                        self._say_unfinished(directory)
                        break

                    is_gguf = entry.name.lower().endswith(".gguf") and not only_directories
                    if entry.name.startswith(only_directories or ".") != bool(only_directories):
                        continue

                    if is_gguf or self._asked(entry.is_dir):
                        found.append(_DirectoryEntry(entry.path, not is_gguf or self._asked(entry.is_dir)))
        except OSError as error:
            self._cannot(directory, error)

        return sorted(found)

    def _asked(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except OSError:  # a link that leads to itself
            return False

    def _file(self, path: str, root: str) -> FoundFile | None:
        try:
            found = os.stat(path)
        except OSError as error:
            self._cannot(path, error)
            return None

        if not stat.S_ISREG(found.st_mode):
            return None

        if not _is_text(path):
            self.notes.append(f"{path!a}: left out, its name is no UTF-8")
            return None

        return FoundFile(path, os.path.relpath(path, root), found.st_size, (found.st_dev, found.st_ino))

    def _cannot(self, path: str, error: OSError) -> None:
        what = "a link that leads nowhere" if os.path.islink(path) and isinstance(error, FileNotFoundError) else None
        self.notes.append(f"{path}: {what or error.strerror or error}")

    def _say_unfinished(self, directory: str) -> None:
        text = f"{directory}: not looked at further, after {MOST_ENTRIES} files and directories"
        if self._left == -1:
            self.notes.append(text)


def _grouped(owner: str, label: str, files: list[FoundFile], *, repository: bool) -> Iterator[FileGroup]:
    if files:
        yield FileGroup(owner, label, tuple(files), repository)


def _guessed(name: str) -> str:
    """Return `ORG_REPO_` of a file's name in llama.cpp's cache, where no manifest tells; repositories end with GGUF."""
    org, first, rest = name.partition("_")
    end = rest.upper().find("-GGUF_")
    return f"{org}{first}{rest[: end + len('-GGUF_')]}" if first and end > 0 else ""


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False

    return True
