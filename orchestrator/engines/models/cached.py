"""The file that an engine's `-hf ORG/REPO:QUANT` would load: fetched by orch, or in another program's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.core.plan.repository import RepositoryFile, find_quant, sort_files
from orchestrator.engines.models.places import hub_cache, llama_cache

_USUAL = "Q4_K_M"
"""The quantisation that the engines take when none is named."""


class CachedModel(NamedTuple):
    """A model on this machine's disk, its first part if it has several; the projector is empty where there is none."""

    path: str
    projector: str


def find_cached(
    paths: Paths, environment: Mapping[str, str], repository: str, quant: str, file: str = ""
) -> CachedModel | None:
    """Return the model that a repository's name means on this machine; None where it is not here, or unclear.

    :param repository: `ORG/REPO`
    :param file: its path in the repository, where that is known
    """
    for files in _places(paths, environment, repository):
        contents = sort_files(RepositoryFile(name) for name in files)
        models = [model for model in contents.models if not model.missing]
        wanted = file or quant
        found = find_quant(models, wanted or _USUAL)
        if not found and not wanted and len(models) == 1:
            found = tuple(models)

        if len(found) == 1:
            projectors = sorted(contents.projectors, key=lambda each: ("f16" not in each.path.lower(), each.path))
            return CachedModel(files[found[0].files[0].path], files[projectors[0].path] if projectors else "")

    return None


def _places(paths: Paths, environment: Mapping[str, str], repository: str) -> Iterator[dict[str, str]]:
    """Yield the files of a repository in each place that has some: path in the repository to path on the disk."""
    org, _, name = repository.partition("/")
    if not org or not name or any(part in ("", ".", "..") for part in repository.split("/")):
        return

    yield _walk(os.path.join(paths.models, org, name))
    snapshots = os.path.join(hub_cache(environment), f"models--{org}--{name}", "snapshots")
    try:
        newest = sorted(os.scandir(snapshots), key=lambda each: -each.stat().st_mtime)
    except OSError:
        newest = []

    for each in newest:
        yield _walk(each.path)

    prefix = f"{org}_{name}_"
    kept = _walk(llama_cache(environment)).items()
    yield {key.removeprefix(prefix): path for key, path in kept if key.startswith(prefix)}


def _walk(directory: str) -> dict[str, str]:
    return {
        os.path.relpath(os.path.join(folder, name), directory): os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if name.lower().endswith(".gguf") and os.path.exists(os.path.join(folder, name))
    }
