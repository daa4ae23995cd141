"""Which files on a disk are one model, and which projector and drafter belong to it, by names alone.

Headers are read later, of the few models that are looked at closer: a disk may hold ten thousand files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestrator.core.plan.repository import (
    Contents,
    ListedModel,
    RepositoryFile,
    beside_whom,
    family_of,
    quant_of,
    sort_files,
    title_of,
)
from orchestrator.core.setup.pulls import extras_for

MOST_UNNAMED = 4
"""Projectors whose names fit every model: so many headers are compared with that of a model."""

MOST_INEXACT = 64
"""Names alike that are compared with a model's: more of them begin with one word only in a heap of files."""

_WORD_END = re.compile(r"[^A-Z0-9]")
_SAYS_NOTHING = re.compile(r"(?:ggml-)?(?:model|file)?", re.IGNORECASE)
"""Names of files that are called alike for every model; the directory's name tells more."""

_NO_CHAT = re.compile(
    r"embed|rerank|(?:^|[-_./])(?:bge|e5|gte|minilm|colbert|jina|snowflake-arctic)[-_]|minilm|whisper|flux|stable-diffusion",
    re.IGNORECASE,
)


class FoundFile(NamedTuple):
    """A file on the disk.

    :param name: its path inside its group, with `/`
    :param identity: device and inode of the file behind all links: two names of one file have one
    """

    path: str
    name: str
    size_bytes: int
    identity: tuple[int, int]


class FileGroup(NamedTuple):
    """Files among which projectors and drafters are looked for.

    :param owner: the program whose directory it is
    :param label: what a person calls it, `ORG/REPO` or a directory's name
    :param repository: all that is in it was published together; else only what lies in one directory or is called alike
    """

    owner: str
    label: str
    files: tuple[FoundFile, ...]
    repository: bool


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine's disk.

    :param title: its name for people, without the quantisation
    :param label: the repository or directory that it is in
    :param files: its parts that are there, the first one first
    :param missing: names of parts that are not
    :param projector: that belongs to it by its name
    :param drafter: that drafts for it by its name, of several parts the first
    :param unnamed: projectors that belong to one of several models here: only headers tell
    :param also: other programs that have the same file
    :param problem: why it cannot be used, as far as that is known
    """

    title: str
    quant: str
    owner: str
    label: str
    files: tuple[FoundFile, ...]
    missing: tuple[str, ...] = ()
    projector: str | None = None
    drafter: str | None = None
    unnamed: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def path(self) -> str:
        return self.files[0].path

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def usable(self) -> bool:
        return not self.missing and self.problem is None

    @property
    def may_chat(self) -> bool:
        """Return whether its name speaks of a model that answers, rather than one that measures or ranks texts."""
        return _NO_CHAT.search(f"{self.label}/{self.title}") is None


class Sorted(NamedTuple):
    """The models of a group, and what lies beside them and belongs to none by its name."""

    models: tuple[FoundModel, ...]
    alone: tuple[FoundFile, ...]


def models_of(group: FileGroup) -> Sorted:
    """Return the models of a group, each with what belongs to it."""
    by_name = {file.name: file for file in group.files}
    contents = sort_files(RepositoryFile(file.name, file.size_bytes) for file in group.files)
    mates = _Mates(group, contents)
    models = tuple(_model(group, by_name, listed, mates) for listed in contents.models)
    taken = {each for model in models for each in (model.projector, model.drafter, *model.unnamed)}
    beside = (by_name[file.path] for file in (*contents.projectors, *contents.drafters) if file.path in by_name)
    return Sorted(models, tuple(file for file in beside if file.path not in taken))


def merge_same(found: Iterable[FoundModel]) -> tuple[FoundModel, ...]:
    """Return each model once, however many names its file has; the first of them, with the owners of the others."""
    kept: dict[tuple[int, int], FoundModel] = {}
    for model in found:
        key = model.files[0].identity
        first = kept.get(key)
        if first is None:
            kept[key] = model
            continue

        others = {each for each in (*first.also, model.owner, *model.also) if each != first.owner}
        kept[key] = replace(
            first,
            also=tuple(sorted(others)),
            projector=first.projector or model.projector,
            drafter=first.drafter or model.drafter,
            unnamed=first.unnamed or model.unnamed,
        )

    return tuple(kept.values())


def rank(models: Sequence[FoundModel], memory_bytes: int) -> tuple[FoundModel, ...]:
    """Return the models in the order in which they are proposed, by names and sizes alone.

    First what can be used and answers; of these what fits in memory, the largest first, then the rest, the smallest
    first; of equal ones the one found first.
    """

    def place(model: FoundModel) -> tuple[int, int, int]:
        fits = model.size_bytes <= memory_bytes
        return (
            0 if model.usable and model.may_chat else 1 if model.usable else 2,
            0 if fits else 1,
            -model.size_bytes if fits else model.size_bytes,
        )

    return tuple(sorted(models, key=place))


class _Mates:
    """Which projectors and drafters of a group belong to which of its models."""

    def __init__(self, group: FileGroup, contents: Contents) -> None:
        self._repository = group.repository
        self._families = {family_of(model.files[0].path) for model in contents.models}
        self._families_in: Mapping[str, set[str]] = defaultdict(set)
        for model in contents.models:
            self._families_in[_folder(model.files[0].path)].add(family_of(model.files[0].path))

        self._named: dict[str, tuple[list[RepositoryFile], list[RepositoryFile]]] = {}
        self._unnamed: dict[str, tuple[list[RepositoryFile], list[RepositoryFile]]] = {}
        for role, files in enumerate((contents.projectors, contents.drafters)):
            for file in files:
                whose = beside_whom(file.path)
                key, kept = (whose, self._named) if whose else (self._home(file.path), self._unnamed)
                kept.setdefault(key, ([], []))[role].append(file)

        self._inexact: Mapping[str, list[str]] = defaultdict(list)
        for whose in self._named:
            if whose not in self._families:
                alone = self._repository and self._is_alone("")
                self._inexact["" if alone else _first_word(whose)].append(whose)

    def of(self, model: ListedModel) -> tuple[Contents, tuple[RepositoryFile, ...]]:
        """Return what belongs to a model, and projectors that may belong to it."""
        path = model.files[0].path
        family = family_of(path)
        projectors, drafters = (list(files) for files in self._named.get(family, ((), ())))
        everything = self._repository and self._is_alone("")
        candidates = self._inexact.get("" if everything else _first_word(family), ())[:MOST_INEXACT]
        for whose in candidates if not projectors or not drafters else ():
            if everything or _alike(whose, family):
                projectors += self._named[whose][0]
                drafters += self._named[whose][1]

        home = self._home(path)
        unnamed = self._unnamed.get(home, ((), ()))
        if self._is_alone(home):
            return Contents((), (*projectors, *unnamed[0]), (*drafters, *unnamed[1])), ()

        return Contents((), tuple(projectors), tuple(drafters)), tuple(unnamed[0][:MOST_UNNAMED])

    def _home(self, name: str) -> str:
        return "" if self._repository else _folder(name)

    def _is_alone(self, home: str) -> bool:
        """Return whether one model is all that a file without a name of its own can belong to."""
        return len(self._families if self._repository else self._families_in[home]) == 1


def _model(group: FileGroup, by_name: Mapping[str, FoundFile], listed: ListedModel, mates: _Mates) -> FoundModel:
    name = listed.files[0].path
    beside, unnamed = mates.of(listed)
    extras = extras_for(listed, beside)
    title = title_of(name)
    if _SAYS_NOTHING.fullmatch(title):
        title = _folder(name).rpartition("/")[2] or group.label.rpartition("/")[2]

    quant = quant_of(name)
    return FoundModel(
        title,
        "" if quant == name.rpartition("/")[2].rpartition(".")[0] else quant,
        group.owner,
        group.label if group.repository else "/".join(filter(None, (group.label, _folder(name)))),
        tuple(by_name[file.path] for file in listed.files),
        listed.missing,
        by_name[extras.projector.path].path if extras.projector is not None else None,
        by_name[extras.drafter[0].path].path if extras.drafter else None,
        () if extras.projector is not None else tuple(by_name[file.path].path for file in unnamed),
    )


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _first_word(name: str) -> str:
    return _WORD_END.split(name, maxsplit=1)[0]


def _alike(whose: str, family: str) -> bool:
    """Return whether one of two names goes on where the other ends: `QWEN2.5-VL-7B` and `QWEN2.5-VL-7B-INSTRUCT`."""
    short, long = sorted((whose, family), key=len)
    return bool(short) and long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()
