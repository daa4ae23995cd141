"""Every model on this machine's disk: in orch's directory, in those of other programs, and beside those of profiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import UsageError
from orchestrator.core.profile.profile import DEMO_MODEL, Profile
from orchestrator.core.setup.found_models import FoundModel, merge_same, models_of
from orchestrator.engines.models.ollama import ollama_models
from orchestrator.engines.models.places import YOURS, Place, known_places
from orchestrator.engines.models.scan import Scanner

PROFILES = "your profiles"


@dataclass(frozen=True)
class Finds:
    """What was found, in the order in which it was looked for.

    :param notes: what could not be read, what is not whole, and what belongs to no model; one line each
    """

    models: tuple[FoundModel, ...]
    notes: tuple[str, ...]


def find_models(paths: Paths, environment: Mapping[str, str], profiles: Sequence[Profile] = ()) -> Finds:
    """Return every model in the directories in which models usually are; no header is read."""
    beside = {os.path.dirname(profile.model) for profile in profiles if profile.model != DEMO_MODEL}
    mine = (Place(PROFILES, directory, "flat") for directory in sorted(beside))
    return _found((*known_places(paths, environment), *mine))


def find_below(path: str) -> Finds:
    """Return the models in a directory that a person named, or the one that a file is.

    :raises UsageError: when there is nothing at this path
    """
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(full):
        return _found((Place(YOURS, full, "tree"),))

    if not os.path.exists(full):
        raise UsageError(
            f"there is no file or directory {full}",
            hint="a repository's model is named `hf:ORG/REPO`; without a name the usual places are searched",
        )

    finds = _found((Place(YOURS, os.path.dirname(full), "flat"),))
    identity = (os.stat(full).st_dev, os.stat(full).st_ino)
    models = [model for model in finds.models if identity in {file.identity for file in model.files}]
    if not models:
        raise UsageError(f"{full} is no model", hint="a model's file is called `NAME.gguf`, a projector's `mmproj-...`")

    return Finds(tuple(models), ())


def find_pulled(paths: Paths, path: str) -> FoundModel:
    """Return the model that was fetched to a path, with what was fetched beside it."""
    finds = _found((Place("orch", paths.models, "repositories"),))
    return next(model for model in finds.models if path in {file.path for file in model.files})


def _found(places: Iterable[Place]) -> Finds:
    scanner = Scanner()
    models: list[FoundModel] = []
    alone: list[str] = []
    for place in places:
        if place.layout == "ollama":
            models += ollama_models(place.path, scanner.notes)
            continue

        for group in scanner.groups(place):
            found = models_of(group)
            models += found.models
            alone += [f"{file.path}: belongs to no model here, by its name" for file in found.alone]

    merged = merge_same(models)
    known = {path for model in merged for path in (model.projector, model.drafter)}
    return Finds(merged, (*scanner.notes, *(each for each in alone if each.partition(": ")[0] not in known)))
