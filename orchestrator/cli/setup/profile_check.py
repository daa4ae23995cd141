"""What `orch profile check` looks at beyond a profile's text: headers of its files, and the builds that are here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.adapters.config.profile_files import ResolvedProfile
    from orchestrator.core.dialect.capabilities import Kind
    from orchestrator.core.problems import Problem
    from orchestrator.core.profile.profile import EngineProfile, Profile


def look_closer(resolved: ResolvedProfile, engine: str | None, problems: list[Problem]) -> list[tuple[str, str]]:
    """Return what is without effect, file and sentence each; what a build cannot express is added to the problems."""
    from orchestrator.core.problems import Problem
    from orchestrator.core.profile.remarks import find_remarks
    from orchestrator.core.profile.rules import engine_kind, named_engines

    profile, file = resolved.profile, resolved.sources[0].path
    if profile is None:
        return []

    if engine is None:
        problems += _check_extra_args(profile, file)
        chosen_profile = profile.for_engine(profile.engine)
        problems += _header_problems(chosen_profile, _kind_of(profile.engine), file)
        found = [find_remarks(profile.for_engine(each), engine_kind(each)) for each in named_engines(profile)]
        found.append(_fit_remarks(chosen_profile))
        return [(file, message) for message in dict.fromkeys(message for each in found for message in each)]

    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.render import render_profile

    paths = find_paths()
    try:
        chosen = EngineRegistry(paths).resolve(engine)
        render_profile(paths, profile, chosen)
    except OrchError as error:
        problems += [Problem(line, file=file, hint=error.hint) for line in error.details or (error.message,)]
        return []

    problems += _header_problems(profile.for_engine(chosen.id), chosen.capabilities.kind, file)
    chosen_profile = profile.for_engine(chosen.id)
    remarks = (*find_remarks(chosen_profile, chosen.capabilities.kind), *_fit_remarks(chosen_profile))
    return [(file, message) for message in remarks]


def _kind_of(engine: str) -> Kind:
    """Return the kind of an engine: by its name, or as it says itself where a user has added it."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.profile.rules import engine_kind
    from orchestrator.engines.registry import EngineRegistry

    kind = engine_kind(engine)
    if kind != "unknown":
        return kind

    try:
        return EngineRegistry(find_paths()).resolve(engine).capabilities.kind
    except OrchError:  # it is not here: a start will say so
        return kind


def _header_problems(profile: EngineProfile, kind: Kind, file: str) -> list[Problem]:
    """Return what the headers of the profile's files say against it; nothing of files that are not there yet."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.problems import Problem
    from orchestrator.engines.model_check import MissingModelError, check_embeddings, check_fit, check_mtp, read_model
    from orchestrator.engines.model_file import model_file

    try:
        parts = read_model(profile, model_file(find_paths(), profile.model).path)
        check_fit(profile, parts, kind)
        check_mtp(profile, parts)
        check_embeddings(profile, parts[0])
    except MissingModelError:
        return []
    except OrchError as error:
        message = error.message.removeprefix(f"profile `{profile.name}`: ")
        return [Problem("; ".join((message, *error.details)), file=file, hint=error.hint)]

    return []


def _fit_remarks(profile: EngineProfile) -> tuple[str, ...]:
    """Return that a profile does not fit this machine's devices; nothing where it may, or its model is not here."""
    import os

    from orchestrator.adapters.gguf.splits import read_splits
    from orchestrator.adapters.hardware.gpu_sources import open_gpus
    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.model_file import model_file
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.start_plan import StartPlanner, known_starts

    paths = find_paths()
    try:
        path = model_file(paths, profile.model).path
        parts = read_splits(path)
    except (OrchError, OSError):  # said already, or not there yet
        return ()

    try:
        engine = EngineRegistry(paths).resolve(profile.engine)
    except OrchError:
        engine = None

    starts = known_starts(paths, engine) if engine is not None else []
    reason = StartPlanner(profile, engine, path, parts, open_gpus(os.environ).read(), starts).misfit(profile)
    if reason is None:
        return ()

    return (f"on {profile.engine} it does not fit this machine: {reason}; `orch plan {profile.name}` shows what would",)


def _check_extra_args(profile: Profile, file: str) -> list[Problem]:
    """Return what the builds that are here would refuse in `extra_args`, for each engine that the profile names."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.dialect.extra_args import find_faults
    from orchestrator.core.problems import Problem
    from orchestrator.core.profile.rules import named_engines
    from orchestrator.engines.probe import ask_arguments
    from orchestrator.engines.registry import EngineRegistry

    paths = find_paths()
    found = []
    for name in named_engines(profile):
        extra_args = profile.for_engine(name).extra_args
        try:
            chosen = EngineRegistry(paths).resolve(name) if extra_args else None
        except OrchError:
            continue  # it is not here: a start will say so

        if chosen is not None:
            faults = find_faults(extra_args, ask_arguments(chosen.path, paths, extra_args, chosen.capabilities))
            found += [Problem(f"`extra_args`: {name} {chosen.build} cannot: {fault}", file=file) for fault in faults]

    return found
