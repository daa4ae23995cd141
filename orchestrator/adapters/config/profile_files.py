"""Profiles on disk: the user's directory first, then the profiles that orch ships."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.adapters.config.text_file import read_text
from orchestrator.adapters.config.toml_lines import line_finder, parse_toml
from orchestrator.adapters.paths import Paths, packaged_directory
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import Key, Problem, Problems, ProblemsError, did_you_mean
from orchestrator.core.profile.profile import NAME_RULE, Profile, is_name
from orchestrator.core.profile.reading import Layer, build_profile, may_lack_model, merge_layers, read_layer
from orchestrator.core.profile.rules import engine_kind, find_conflicts, named_engines
from orchestrator.core.profile.settings import Value
from orchestrator.core.terminal import quote_text

SUFFIX = ".toml"

MAX_QUOTED = 80
"""Characters of a name that a message shows."""


@dataclass(frozen=True, slots=True)
class ProfileSource:
    """The file of one profile: `shipped` ones are not edited in place."""

    name: str
    path: str
    shipped: bool


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """A profile with the files that it is made of, its own first.

    :param profile: None when the file has no model, and is there to be extended
    """

    profile: Profile | None
    sources: tuple[ProfileSource, ...]
    values: Mapping[Key, Value]
    origins: Mapping[Key, ProfileSource]


@dataclass(slots=True)
class _Chain:
    """A profile's file and its parents', nearest first; `complete` when all of them could be read."""

    layers: list[Layer] = field(default_factory=list)
    sources: list[ProfileSource] = field(default_factory=list)
    problems: list[Problems] = field(default_factory=list)
    complete: bool = True

    def found(self) -> list[Problem]:
        return [problem for each in self.problems for problem in each.found]

    def add_missing_model(self) -> None:
        own = self.problems[0]
        said = any(problem.key == "model" for problem in self.found())
        if self.complete and not said and not may_lack_model(self.sources[0].name):
            own.add(("model",), "`model` is missing", hint="only a profile named `base-...` may lack it")

    def add_combinations(self, profile: Profile, origins: Mapping[Key, ProfileSource]) -> None:
        """Add what cannot work together, in the file that says it; once, whichever engines it holds for."""
        by_path = {problems.file: problems for problems in self.problems}
        had_problems = bool(self.found())
        messages: set[str] = set()
        for engine in named_engines(profile):
            for finding in find_conflicts(profile.for_engine(engine), engine_kind(engine)):
                if finding.message in messages or (finding.missing and had_problems):
                    continue

                messages.add(finding.message)
                places: list[Key] = [place for key in finding.keys for place in (("engine", engine, *key), key)]
                place = next((place for place in places if place in origins), ())
                file = origins[place].path if place else self.sources[0].path
                by_path[file].add(place, finding.message)


def shipped_directory() -> str:
    """Return the directory of the profiles that orch ships."""
    return packaged_directory("profiles")


class ProfileStore:
    """Finds, reads and checks profiles. Nothing is cached: an edited file counts at the next call."""

    def __init__(self, paths: Paths, shipped: str | None = None) -> None:
        self.directory = paths.profiles
        self.shipped = shipped if shipped is not None else shipped_directory()

    def path_of(self, name: str) -> str:
        """Return the file that a profile of the user's has by this name, whether it is there or not."""
        return os.path.join(self.directory, name + SUFFIX)

    def names(self) -> list[str]:
        """Return the name of every profile that has a valid one, each once, also of those that can only be extended."""
        return sorted({name for directory in (self.directory, self.shipped) for name in _stems(directory)})

    def source(self, name_or_file: str) -> ProfileSource:
        """Find the file of a profile.

        :param name_or_file: a name, or a path: what contains a `/` or ends in `.toml`
        :raises UsageError: when there is none, or the name could leave the directory
        """
        is_path = "/" in name_or_file or name_or_file.endswith(SUFFIX)
        if is_path and "\0" not in name_or_file:
            path = os.path.abspath(os.path.expanduser(name_or_file))
            stem = os.path.basename(path).removesuffix(SUFFIX)
            return ProfileSource(stem if is_name(stem) else _name_of(path), path, self._is_shipped(path))

        if is_path or not is_name(name_or_file):
            raise UsageError(
                f"`{quote_text(name_or_file, MAX_QUOTED)}` is not the name of a profile",
                details=(f"allowed: {NAME_RULE}",),
                hint="a file is named by a path with a `/`, e.g. `./my.toml`",
            )

        for directory, shipped in ((self.directory, False), (self.shipped, True)):
            path = os.path.join(directory, name_or_file + SUFFIX)
            if os.path.lexists(path):
                _refuse_outside(path, directory)
                return ProfileSource(name_or_file, path, shipped)

        raise UsageError(
            f"there is no profile `{name_or_file}`",
            details=(f"looked in {self.directory}", f"and in {self.shipped}"),
            hint=did_you_mean(name_or_file, self.names()) or "run `orch profile list`",
        )

    def load(self, name_or_file: str) -> Profile:
        """Load one profile, its parents merged in.

        :raises ProblemsError: with everything that is wrong with it and its parents
        :raises UsageError: when there is no such profile, or it has no model
        """
        resolved = self.resolve(name_or_file)
        if resolved.profile is None:
            raise UsageError(
                f"profile `{resolved.sources[0].name}` has no model: it is there to be extended",
                details=(f"read from {resolved.sources[0].path}",),
                hint="run `orch profile list` for those that can be started",
            )

        return resolved.profile

    def resolve(self, name_or_file: str, text: str | None = None) -> ResolvedProfile:
        """Load a profile with the origin of each value; one without a model is no error.

        :raises ProblemsError, UsageError: as `load`

        :param text: read this instead of the file's own text
        """
        source = self.source(name_or_file)
        chain = self._read_chain(source, text)
        values, layers = merge_layers(chain.layers)
        by_layer = {id(layer): each for layer, each in zip(chain.layers, chain.sources, strict=True)}
        origins = {key: by_layer[id(layer)] for key, layer in layers.items()}
        profile = build_profile(chain.layers)
        if profile is None:
            chain.add_missing_model()
        else:
            chain.add_combinations(profile, origins)

        found = chain.found()
        if found:
            count = "a problem" if len(found) == 1 else f"{len(found)} problems"
            raise ProblemsError(f"profile `{source.name}` has {count}", tuple(found))

        return ResolvedProfile(profile, tuple(chain.sources), values, origins)

    def load_all(self) -> tuple[tuple[Profile, ...], tuple[Problem, ...]]:
        """Load every profile that can be started; the problems are those of the others, and between them."""
        profiles: list[Profile] = []
        problems: list[Problem] = [*_find_misnamed(self.directory)]
        for name in self.names():
            try:
                profile = self.resolve(name).profile
            except ProblemsError as error:
                problems += (problem for problem in error.problems if problem not in problems)
            except UsageError as error:
                problems.append(Problem(error.message, hint=error.hint))
            except (OSError, ValueError, ArithmeticError, RuntimeError) as error:  # of one file that somebody put there
                problems.append(Problem(f"profile `{name}` cannot be read: {error}"))
            else:
                profiles += [] if profile is None else [profile]

        problems += _find_alias_clashes(profiles)
        return tuple(profiles), tuple(problems)

    def find_by_model_name(self, name: str) -> Profile | None:
        """Return the profile that a client means by `"model"`: by its name, else by an alias."""
        profiles, _ = self.load_all()
        by_alias = (profile for profile in profiles if name in profile.names)
        return next((profile for profile in profiles if profile.name == name), None) or next(by_alias, None)

    def read_text(self, name_or_file: str) -> str:
        """Return the text of a profile's file."""
        return read_text(self.source(name_or_file).path)

    def _read_chain(self, source: ProfileSource, text: str | None) -> _Chain:
        chain = _Chain()
        step: ProfileSource | None = source
        while step is not None:
            layer, problems, complete = _read_one(step, text if step is source else None)
            chain.layers.append(layer)
            chain.sources.append(step)
            chain.problems.append(problems)
            chain.complete &= complete
            step = self._parent(layer, chain, problems)

        return chain

    def _parent(self, layer: Layer, chain: _Chain, problems: Problems) -> ProfileSource | None:
        if layer.extends is None or not is_name(layer.extends):
            return None  # a bad name is said where it was read

        try:
            parent = self.source(layer.extends)
        except UsageError as error:
            problems.add(("extends",), f"`extends`: {error.message}", hint=error.hint)
            chain.complete = False
            return None

        if parent.path in [each.path for each in chain.sources]:
            circle = " -> ".join([*(each.name for each in chain.sources), parent.name])
            problems.add(("extends",), f"`extends` goes in a circle: {circle}")
            chain.complete = False
            return None

        return parent

    def _is_shipped(self, path: str) -> bool:
        return os.path.dirname(os.path.realpath(path)) == os.path.realpath(self.shipped)


def _read_one(source: ProfileSource, text: str | None) -> tuple[Layer, Problems, bool]:
    """Return one file's layer, its problems so far, and whether it could be read at all."""
    problems = Problems(source.path)
    try:
        text = read_text(source.path) if text is None else text
    except UsageError as error:
        problems.add((), error.message, hint=error.hint)
        return Layer(source.name, source.path, {}, None), problems, False

    document = parse_toml(text, problems)
    if document is None:
        return Layer(source.name, source.path, {}, None), problems, False

    problems.line_of = line_finder(text)
    directory = os.path.dirname(source.path)
    layer = read_layer(document, source.name, source.path, problems, lambda path: _absolute(path, directory))
    return layer, problems, True


def _name_of(path: str) -> str:
    """Return a name for a profile given by its path, which need not be named as those in the directories are."""
    stem = os.path.basename(path).removesuffix(SUFFIX).lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:64] or "profile"


def _absolute(path: str, directory: str) -> str:
    return os.path.normpath(os.path.join(directory, os.path.expanduser(path)))


def _find_alias_clashes(profiles: list[Profile]) -> list[Problem]:
    """Return the problems of profiles that answer to one name: a client's request could mean either."""
    owners = {profile.name: profile for profile in profiles}
    problems = []
    for profile in profiles:
        own = {profile.name, *profile.aliases}
        for key, name in [*(("aliases", each) for each in profile.aliases),
                          *(("variants", each.name) for each in profile.variants)]:  # fmt: skip
            owner = owners.setdefault(name, profile)
            if owner is not profile or (key == "variants" and name in own):
                message = f"`{key}`: `{name}` already means the profile `{owner.name}` ({owner.file})"
                problems.append(Problem(message, profile.file, _line_in(profile.file, (key,)), key))

    return problems


def _line_in(path: str, key: Key) -> int | None:
    try:
        return line_finder(read_text(path))(key)
    except UsageError:  # gone, or being written, since it was read
        return None


def _files(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX) and not name.startswith("."))
    except OSError:
        return []  # a directory that is not there yet has no profiles


def _stems(directory: str) -> list[str]:
    return [name.removesuffix(SUFFIX) for name in _files(directory) if is_name(name.removesuffix(SUFFIX))]


def _find_misnamed(directory: str) -> list[Problem]:
    return [
        Problem(
            f"the file's name: expected {NAME_RULE}, found `{quote_text(name, MAX_QUOTED)}`",
            os.path.join(directory, name),
        )
        for name in _files(directory)
        if not is_name(name.removesuffix(SUFFIX))
    ]


def _refuse_outside(path: str, directory: str) -> None:
    root = os.path.realpath(directory)
    if os.path.commonpath([os.path.realpath(path), root]) != root:
        raise UsageError(
            f"{path} is a link out of the profile directory",
            details=(f"it leads to {os.path.realpath(path)}",),
            hint="copy the file, or name it by its path",
        )
