"""Finds an engine by name: at the place that the user named, then among the builds that orch installed, then on PATH
and in the usual directories.

Programs called `llama-server` that merely lie around are told apart by probing them, not by their directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.errors import OrchError
from orchestrator.core.profile.profile import is_name
from orchestrator.engines.probe import Build, NotAnEngineError, probe
from orchestrator.engines.probe_cache import EMBEDDED_SCRIPT, embedded_version

PROGRAM = "llama-server"

BUILT_IN: Mapping[str, Kind] = {"upstream": "upstream", "ik-fork": "ik", "embedded": "upstream"}
"""The engines that orch knows by itself, and what each has to be."""

ENV_PREFIX = "ORCH_ENGINE_"

_CHECKOUTS = ("llama.cpp", "ik_llama.cpp")
_PARENTS = ("~", "~/src", "~/git", "~/code", "~/projects", "/opt", "/usr/local/src")
_DIRECTORIES = (
    "~/.local/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
)


class FoundProgram(NamedTuple):
    """A program that was found, and the reason why it was looked for there."""

    path: str
    source: str


class EngineMissingError(OrchError):
    """Raised when an engine is nowhere."""


def variable_of(engine: str) -> str:
    """Return the environment variable that names an engine's program: `ik-fork` is in `ORCH_ENGINE_IK_FORK`."""
    return ENV_PREFIX + re.sub(r"[^A-Z0-9]", "_", engine.upper())


def locate(
    engine: str, paths: Paths, env: Mapping[str, str], *, added: str | None = None
) -> tuple[FoundProgram, Build]:
    """Return the first place that holds this engine, and its build.

    :param added: the path that the user gave with `orch engines add`
    :raises NotAnEngineError: when a place that was named on purpose holds something else
    :raises EngineMissingError: when nothing was found; it lists the places
    """
    named = named_program(engine, paths, env, added)
    if named is not None:
        build = probe(named.path, paths)
        _check_kind(engine, named, build)
        return named, build

    looked: list[str] = []
    if engine == "embedded":
        looked.append("the Python package xllamacpp: not installed")
    elif engine in BUILT_IN:
        for found in _unnamed(env):
            try:
                build = probe(found.path, paths)
            except NotAnEngineError as error:
                looked.append(error.message)
                continue

            if build.capabilities.kind == BUILT_IN[engine]:
                return found, build

            looked.append(f"{found.path} is {_described(build.capabilities.kind)}")

    raise _missing(engine, env, looked)


def named_program(engine: str, paths: Paths, env: Mapping[str, str], added: str | None = None) -> FoundProgram | None:
    """Return the program at the first place that was named on purpose; it is not run. None where nothing was named."""
    return next(_named(engine, paths, env, added), None)


def installed_program(name: str, paths: Paths) -> FoundProgram:
    """Return the program of `ENGINE@BUILD`, one of the builds that orch installed; it is not run.

    :raises EngineMissingError: when this build is not installed
    """
    engine, _, build = name.partition("@")
    path = os.path.join(paths.data, "engines", engine, build, "bin", PROGRAM)
    if not is_name(engine) or os.path.basename(build) != build or not os.path.isfile(path):
        raise EngineMissingError(
            f"engine `{engine}` has no installed build `{build}`",
            details=(path,),
            hint="`orch engines list --builds` shows them",
        )

    return FoundProgram(path, "installed")


def _named(engine: str, paths: Paths, env: Mapping[str, str], added: str | None) -> Iterator[FoundProgram]:
    if added is not None:
        yield FoundProgram(added, "added")

    variable = variable_of(engine)
    if env.get(variable):
        yield FoundProgram(os.path.abspath(_expanded(env[variable], env)), variable)

    current = os.path.join(paths.data, "engines", engine, "current")
    for path in (os.path.join(current, "bin", PROGRAM), os.path.join(current, PROGRAM)):
        if os.path.exists(path):
            yield FoundProgram(path, "installed")

    if engine == "embedded" and embedded_version() is not None:
        # Not the real path: beside a virtual environment's interpreter are that environment's scripts.
        script = os.path.join(os.path.dirname(sys.executable), EMBEDDED_SCRIPT)
        if os.path.exists(script):
            yield FoundProgram(script, "package xllamacpp")


def _unnamed(env: Mapping[str, str]) -> Iterator[FoundProgram]:
    seen: set[str] = set()
    for source, directories in (("PATH", _on_path(env)), ("usual place", usual_places(env))):
        for directory in directories:
            path = os.path.join(directory, PROGRAM)
            real = os.path.realpath(path)
            if os.path.isfile(path) and real not in seen:
                seen.add(real)
                yield FoundProgram(path, source)


def search_path(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the directories in which an engine that nobody named is looked for."""
    yield from _on_path(env)
    yield from usual_places(env)


def _on_path(env: Mapping[str, str]) -> Iterator[str]:
    for directory in env.get("PATH", "").split(os.pathsep):
        if os.path.isabs(directory):  # an empty or relative entry depends on where one stands
            yield directory


def usual_places(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the directories in which people have a llama-server, most likely first."""
    for parent in _PARENTS:
        for checkout in _CHECKOUTS:
            for inside in ("build/bin", "bin", ""):
                yield os.path.join(_expanded(parent, env), checkout, inside).rstrip("/")

    for directory in _DIRECTORIES:
        yield _expanded(directory, env)


def _expanded(path: str, env: Mapping[str, str]) -> str:
    home = env.get("HOME") or os.path.expanduser("~")
    return os.path.join(home, path[2:]) if path.startswith("~/") else home if path == "~" else path


def _check_kind(engine: str, found: FoundProgram, build: Build) -> None:
    wanted = BUILT_IN.get(engine)
    kind = build.capabilities.kind
    if wanted is not None and kind != wanted:
        raise NotAnEngineError(
            f"engine `{engine}` is to be {_described(wanted)}, and {found.path} is {_described(kind)}",
            details=(f"the path comes from: {found.source}",),
            hint=f"run `orch engines add NAME {found.path}` to use it under a name of its own",
        )


def _described(kind: Kind) -> str:
    return {"upstream": "upstream llama.cpp", "ik": "ik_llama.cpp", "unknown": "no engine"}[kind]


def _missing(engine: str, env: Mapping[str, str], looked: list[str]) -> EngineMissingError:
    if engine == "embedded":
        return EngineMissingError(
            "engine `embedded` is not installed",
            details=tuple(looked),
            hint='run `pip install "llama-orch[embedded]"`',
        )

    places = [
        f"{variable_of(engine)} is not set",
        "none was added or installed",
        f"{PROGRAM} in PATH: {env.get('PATH', '')}",
        f"{PROGRAM} in {', '.join(list(usual_places(env))[:4])}, ... ",
    ]
    return EngineMissingError(
        f"engine `{engine}` was not found",
        details=(*(place.strip() for place in places), *looked),
        hint=f"run `orch engines build {engine}` or `orch engines add {engine} PATH`, or use `--engine embedded`",
    )
