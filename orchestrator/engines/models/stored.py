"""The models that were fetched: listed with what uses them, removed with what lies beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.gguf.splits import split_paths
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import PREFIX, ListedModel, RepositoryFile, find_quant, quant_of, sort_files
from orchestrator.core.problems import nearest
from orchestrator.core.profile.profile import Profile
from orchestrator.core.setup.pulls import read_partial_name

_USED_KEYS = ("multimodal.mmproj", "speculative.draft_model")
"""Settings of a profile that name a file beside the model."""

_PARTIAL, _CHECKSUM = ".part", ".sha256"


@dataclass(frozen=True)
class Unfinished:
    """A file of which a part is there."""

    path: str
    kept_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine's disk.

    :param name: `hf:ORG/REPO:QUANT`, or the path of one that was not fetched
    :param path: of its first part, which need not be there
    :param files: its parts that are there, whole
    :param parts: how many there are to be
    :param beside: projectors and drafters of its repository
    :param fetched: it is in orch's directory of models
    """

    name: str
    quant: str
    path: str
    files: tuple[str, ...]
    parts: int
    beside: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]
    size_bytes: int
    used_by: tuple[str, ...]
    fetched: bool = True

    @property
    def whole(self) -> bool:
        return len(self.files) == self.parts


@dataclass(frozen=True)
class Removal:
    """What goes with a model: all that is in its repository's directory if it is the last one there."""

    model: StoredModel
    files: tuple[str, ...]
    partials: tuple[str, ...]
    size_bytes: int


def list_models(paths: Paths, profiles: Sequence[Profile]) -> tuple[StoredModel, ...]:
    """Return the models that were fetched, and those elsewhere that profiles use."""
    users = _users(profiles)
    fetched = [model for directory in _repositories(paths) for model in _models_in(paths, directory, users)]
    known = {os.path.realpath(path) for model in fetched for path in (model.path, *model.files)}
    elsewhere = {
        profile.model
        for profile in profiles
        if os.path.exists(profile.model) and os.path.realpath(profile.model) not in known
    }
    return (*fetched, *(_elsewhere(path, users) for path in sorted(elsewhere)))


def find_model(models: Sequence[StoredModel], text: str) -> StoredModel:
    """Return the model that a person means: by its name, with or without `hf:` and the quantisation, or by its path.

    :raises UsageError: when there is none, or it is not clear which
    """
    path = os.path.realpath(os.path.expanduser(text))
    for model in models:
        if path in {os.path.realpath(each) for each in (model.path, *model.files)}:
            return model

    fetched = [model for model in models if model.fetched]
    repository, _, quant = text.removeprefix(PREFIX).partition(":")
    there = [model for model in fetched if _repository(model).lower() == repository.lower()]
    listed = {id(model): ListedModel(model.quant, (RepositoryFile(os.path.basename(model.path)),)) for model in there}
    wanted = find_quant(list(listed.values()), quant) if quant else tuple(listed.values())
    found = [model for model in there if any(listed[id(model)] is each for each in wanted)]
    if len(found) == 1:
        return found[0]

    names = [model.name for model in found or fetched]
    near = nearest(PREFIX + text.removeprefix(PREFIX), names) or (names[0] if names else None)
    raise UsageError(
        f"`{text}` means {len(found)} models" if found else f"there is no model `{text}`",
        details=tuple(names[:12]),
        hint=f"for example `orch models remove {near}`" if near else "nothing was fetched yet: see `orch pull --help`",
    )


def plan_removal(models: Sequence[StoredModel], model: StoredModel) -> Removal:
    """Return what goes with a model.

    :raises UsageError: when orch did not fetch it
    """
    if not model.fetched:
        raise UsageError(
            f"{model.path} was not fetched by orch", hint="remove the file yourself, and the profile that names it"
        )

    last = sum(other.fetched and _repository(other) == _repository(model) for other in models) == 1
    files = (*model.files, *(path for path in model.beside if last))
    partials = tuple(each.path for each in model.unfinished)
    size = sum(_disk_bytes(path) for path in (*files, *partials))
    return Removal(model, files, partials, size)


def remove(paths: Paths, removal: Removal) -> None:
    """Delete the files of a model, and directories that are empty then.

    :raises OrchError: when one is being fetched just now, or cannot be deleted
    """
    from orchestrator.adapters.hub.partial import remove_partial

    for path in removal.partials:
        if not remove_partial(path):
            raise OrchError(
                f"{removal.model.name} is being fetched just now", details=(path,), hint="end that `orch pull` first"
            )

    for path in removal.files:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OrchError("a model cannot be removed", details=(f"{path}: {error.strerror}",)) from error

        with contextlib.suppress(OSError):
            os.unlink(path + _CHECKSUM)

    for path in (*removal.files, *removal.partials):
        folder = os.path.dirname(path)
        with contextlib.suppress(OSError):  # something is in it still
            while folder.startswith(paths.models + os.sep):
                os.rmdir(folder)
                folder = os.path.dirname(folder)


def _repositories(paths: Paths) -> Iterator[str]:
    """Yield `ORG/REPO` of each directory of fetched models."""
    for org in _folders(paths.models):
        yield from (f"{org}/{repository}" for repository in _folders(os.path.join(paths.models, org)))


def _folders(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _models_in(paths: Paths, repository: str, users: Mapping[str, tuple[str, ...]]) -> Iterator[StoredModel]:
    directory = os.path.join(paths.models, *repository.split("/"))
    whole: dict[str, str] = {}
    partial: dict[str, list[Unfinished]] = {}
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            path = os.path.join(folder, name)
            parsed = read_partial_name(name)
            if parsed is not None:
                inside = os.path.relpath(os.path.join(folder, parsed.name), directory)
                partial.setdefault(inside, []).append(Unfinished(path, _disk_bytes(path), parsed.size_bytes))
            elif name.lower().endswith(".gguf"):
                whole[os.path.relpath(path, directory)] = path

    contents = sort_files(RepositoryFile(path) for path in {*whole, *partial})
    extras = [file.path for file in (*contents.projectors, *contents.drafters)]
    beside = tuple(whole[path] for path in extras if path in whole)
    half_beside = [each for path in extras for each in partial.get(path, ())]
    listed = contents.models or tuple(ListedModel(quant_of(path), (RepositoryFile(path),)) for path in extras)
    quants = [model.quant for model in listed]
    for model in listed:
        parts = [file.path for file in model.files]
        files = tuple(whole[path] for path in parts if path in whole)
        own = [each for path in parts for each in partial.get(path, ())]
        alone = quants.count(model.quant) == 1
        first = split_paths(os.path.join(directory, parts[0]))[0]
        used = (user for path in (first, *files) for user in users.get(os.path.realpath(path), ()))
        used_beside = (user for path in beside for user in users.get(os.path.realpath(path), ()))
        last = len(listed) == 1
        yield StoredModel(
            f"{PREFIX}{repository}:{model.quant if alone else parts[0]}",
            model.quant,
            first,
            files,
            len(model.files) + len(model.missing),
            beside if contents.models else (),
            (*own, *(half_beside if last and contents.models else ())),
            sum(map(_disk_bytes, files)) + sum(each.kept_bytes for each in own),
            tuple(dict.fromkeys((*used, *(used_beside if last else ())))),
        )


def _elsewhere(path: str, users: Mapping[str, tuple[str, ...]]) -> StoredModel:
    parts = split_paths(path)
    files = tuple(part for part in parts if os.path.exists(part))
    used = users.get(os.path.realpath(path), ())
    return StoredModel(
        path, quant_of(os.path.basename(path)), path, files, len(parts), (), (), sum(map(_disk_bytes, files)), used,
        fetched=False,
    )  # fmt: skip


def _users(profiles: Sequence[Profile]) -> dict[str, tuple[str, ...]]:
    """Return for each file that profiles name the names of those profiles."""
    users: dict[str, tuple[str, ...]] = {}
    for profile in profiles:
        settings = [profile.settings, *(override.settings for override in profile.overrides.values())]
        beside = (each[key] for each in settings for key in _USED_KEYS if key in each)
        for path in {os.path.realpath(str(value)) for value in (profile.model, *beside)}:
            users[path] = (*users.get(path, ()), profile.name)

    return users


def _repository(model: StoredModel) -> str:
    return model.name.removeprefix(PREFIX).partition(":")[0]


def _disk_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
