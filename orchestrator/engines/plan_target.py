"""What `orch plan` is asked about: a profile, a file, or a model in a repository; with its engine and headers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader, Spans
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.model_fit import model_misfit
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import (
    PREFIX,
    ListedModel,
    RepositoryFile,
    choose_model,
    family_of,
    parse_reference,
    quant_of,
    sort_files,
)
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.engines.locate import BUILT_IN, EngineMissingError
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import Engine, EngineRegistry

USUAL_CONTEXT = 32768
"""Tokens; for a model without a profile, whose own context is rarely what a card has room for."""

FILE_ENGINES = ("upstream", "ik-fork", "embedded")
"""For a model without a profile, the first of these that is installed."""

READERS = 8
"""Files of a repository that are read at the same time."""


@dataclass(frozen=True)
class PlanTarget:
    """A model with the settings of its start.

    :param model: what a person calls it: the path, or `hf:ORG/REPO/FILE`
    :param quant: its quantisation
    :param engine: None where none is installed
    :param source: the profile; None for a model without one
    :param beside: projectors and drafters of its repository, which are not planned
    """

    model: str
    quant: str
    profile: EngineProfile
    engine: Engine | None
    parts: tuple[GgufHeader, ...]
    source: Profile | None = None
    beside: tuple[RepositoryFile, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(part.file_size for part in self.parts)


def find_target(paths: Paths, text: str, engine: str | None = None, context: int | None = None) -> PlanTarget:
    """Return what is to be planned.

    :param engine: to plan for; by default the profile's, or the first that is installed
    :param context: tokens, instead of the profile's
    :raises OrchError: when the profile, the file or the model cannot be read, or nobody knows the engine
    """
    if text.startswith(PREFIX):
        from orchestrator.engines.remote_model import look_into, read_remote

        reference = parse_reference(text)
        contents = look_into(reference.repository)
        model = choose_model(reference, contents)
        parts = read_remote(reference.repository, model)
        target = _without_profile(paths, parts, model.quant, engine, context)
        return replace(target, beside=(*contents.projectors, *contents.drafters))

    name, _, named_engine = text.partition("@")
    engine = engine or named_engine or None
    if name.lower().endswith(".gguf"):
        path = os.path.abspath(os.path.expanduser(name))
        if not os.path.isfile(path):
            raise UsageError(f"there is no file {path}", hint="run `orch plan --help`")

        return _without_profile(paths, read_splits(path), quant_of(path), engine, context)

    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.engines.model_check import read_model

    profile = ProfileStore(paths).load(name)
    wanted = engine or profile.engine
    found = _engine(paths, (wanted,))
    chosen = profile.for_engine(found.id if found else wanted)
    parts = read_model(chosen, model_file(paths, chosen.model).ensure())
    return _asked(PlanTarget(chosen.model, quant_of(parts[0].path), chosen, found, parts, profile), context)


def find_alike(
    paths: Paths, text: str, engine: str | None = None, context: int | None = None
) -> tuple[list[PlanTarget], list[str]]:
    """Return a model in every quantisation that lies beside it, from small to large: in its folder or its repository.

    :return: also why others were left out
    :raises OrchError: as `find_target`, when nothing can be read
    """
    if not text.startswith(PREFIX):
        target = find_target(paths, text, engine, context)
        return list(_beside(target)) or [target], []

    from concurrent.futures import ThreadPoolExecutor

    from orchestrator.engines.remote_model import look_into, read_remote

    reference = parse_reference(text)
    contents = look_into(reference.repository)
    models = list(contents.models) if contents.models and not reference.quant else [choose_model(reference, contents)]
    spans: Spans = {}

    def read(model: ListedModel) -> PlanTarget | OrchError:
        try:
            parts = read_remote(reference.repository, model, spans)
            return _without_profile(paths, parts, model.quant, engine, context)
        except OrchError as error:
            return error

    # The first one alone: the others need not fetch the vocabulary again.
    with ThreadPoolExecutor(READERS) as pool:
        answers = [*map(read, models[:1]), *pool.map(read, models[1:])]

    found = [answer for answer in answers if isinstance(answer, PlanTarget)]
    failures = [answer for answer in answers if isinstance(answer, OrchError)]
    if not found:
        raise failures[0]

    return found, [error.message for error in failures]


def _without_profile(
    paths: Paths, parts: tuple[GgufHeader, ...], quant: str, engine: str | None, context: int | None
) -> PlanTarget:
    found = _engine(paths, (engine,) if engine else FILE_ENGINES)
    misfit = model_misfit(parts, found.capabilities.kind if found else "unknown")
    if misfit is not None:
        raise UsageError(misfit.message, details=(misfit.detail,), hint=misfit.hint)

    name = os.path.basename(parts[0].path).removesuffix(".gguf")
    profile = Profile(name, parts[0].path, parts[0].path, found.id if found else engine or FILE_ENGINES[0])
    size = context or min(USUAL_CONTEXT, parts[0].context_length or USUAL_CONTEXT)
    return _asked(PlanTarget(parts[0].path, quant, profile.for_engine(profile.engine), found, parts), size)


def _asked(target: PlanTarget, context: int | None) -> PlanTarget:
    if context is None:
        return target

    settings = {**target.profile.settings, "context.size": context}
    return replace(target, profile=replace(target.profile, settings=settings))


def _engine(paths: Paths, names: tuple[str, ...]) -> Engine | None:
    """Return the first of these that is installed; None where all of them are engines that orch knows without.

    :raises OrchError: when one of them is nowhere, and its name does not tell its kind
    """
    registry = EngineRegistry(paths)
    for name in names:
        try:
            return registry.resolve(name)
        except EngineMissingError:
            if name not in BUILT_IN:
                raise

    return None


def _beside(target: PlanTarget) -> Iterator[PlanTarget]:
    """Yield a model in the quantisations of its folder: files that are called like it, of the same layers."""
    path = target.parts[0].path
    folder = os.path.dirname(path)
    listed = [RepositoryFile(entry.name, entry.stat().st_size) for entry in os.scandir(folder) if entry.is_file()]
    for model in sort_files(listed).models:
        name = model.files[0].path
        if family_of(name) != family_of(path) or model.missing:
            continue

        try:
            parts = read_splits(os.path.join(folder, name))
        except GgufError:
            continue

        if all(parts[0].number(key) == target.parts[0].number(key) for key in ("block_count", "embedding_length")):
            yield replace(target, model=parts[0].path, quant=model.quant, parts=parts)
