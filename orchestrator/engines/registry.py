"""The engines by name: those that orch knows by itself, and those that the user added (`engines.toml`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.adapters.config.text_file import read_text, write_text
from orchestrator.adapters.config.toml_lines import line_finder, parse_toml
from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.errors import UsageError
from orchestrator.core.identities import build_name
from orchestrator.core.problems import Problems, did_you_mean
from orchestrator.core.profile.profile import engine_of, is_name
from orchestrator.engines.locate import BUILT_IN, ENV_PREFIX, installed_program, locate, named_program, variable_of
from orchestrator.engines.probe import Build, NotAnEngineError, probe


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine that is there and was probed.

    :param build: a short label of the build, `b11434 (1234567)`
    :param source: why this program: `added`, a variable's name, `installed`, `package xllamacpp`, `PATH`,
        `usual place`, or `path` when the path itself was asked for
    :param changed: an added program that is not the one that was added: it was built anew, or exchanged
    """

    id: str
    path: str
    capabilities: Capabilities
    build: str
    source: str
    sha256: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Added:
    path: str
    sha256: str


class EngineRegistry:
    """Finds engines by name or path. Blocking; probing is cached.

    :param env: the environment to look into, by default this process's
    """

    def __init__(self, paths: Paths, env: Mapping[str, str] | None = None) -> None:
        self._paths = paths
        self._env = os.environ if env is None else env

    def ids(self) -> tuple[str, ...]:
        """Return every name: built-in, added, and named by a variable alone; found or not."""
        known = [*BUILT_IN, *self._added()]
        variables = {variable_of(name) for name in known}
        only_there = sorted(
            name.removeprefix(ENV_PREFIX).lower().replace("_", "-")
            for name in self._env
            if name.startswith(ENV_PREFIX) and name not in variables and self._env[name]
        )
        return tuple(dict.fromkeys([*known, *only_there]))

    def resolve(self, id_or_path: str) -> Engine:
        """Return the engine of this name, or the program at this path (anything with a slash is one).

        `ENGINE@BUILD` is one of the builds that orch installed, whether or not it is the current one.

        :raises OrchError: when there is none, with where it was looked for
        """
        if os.sep in id_or_path:
            build = probe(id_or_path, self._paths)
            return _engine(_id_for(build), build, "path")

        if "@" in id_or_path:
            program = installed_program(id_or_path, self._paths)
            return _engine(engine_of(id_or_path), probe(program.path, self._paths), program.source)

        added = self._added()
        if id_or_path not in self.ids():
            raise self._unknown(id_or_path)

        entry = added.get(id_or_path)
        program, build = locate(id_or_path, self._paths, self._env, added=entry.path if entry else None)
        changed = entry is not None and program.source == "added" and entry.sha256 != build.sha256
        return _engine(id_or_path, build, program.source, changed=changed)

    def place(self, name: str) -> str | None:
        """Return the program that was named on purpose for an engine; it is not run. None where it is searched for.

        :raises OrchError: when a build is named that is not installed
        """
        if "@" in name and os.sep not in name:
            return installed_program(name, self._paths).path

        entry = self._added().get(name)
        found = named_program(name, self._paths, self._env, entry.path if entry else None)
        return found.path if found is not None else None

    def was_added(self, name: str) -> bool:
        return name in self._added()

    def add(self, name: str, path: str) -> Engine:
        """Remember a program under a name, after probing it. The name of a built-in engine may be given.

        :raises UsageError: when the name cannot be one
        :raises NotAnEngineError: when the program is no engine, or not of the kind that the name promises
        """
        if not is_name(name):
            raise UsageError(
                f"`{name}` cannot be the name of an engine",
                details=("allowed: lower-case letters, digits, `.`, `_` and `-`, 64 at most, no path",),
                hint=f"run `orch engines add my-build {path}`",
            )

        build = probe(path, self._paths)
        wanted = BUILT_IN.get(name)
        if wanted is not None and build.capabilities.kind != wanted:
            right = _id_for(build)
            raise NotAnEngineError(
                f"{build.path} cannot be `{name}`: by its help it is `{right}`",
                hint=f"run `orch engines add {right} {path}`, or choose a name of your own",
            )

        document = self._document()
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        document[name] = {"path": build.path, "sha256": build.sha256, "added": now}
        self._write(document)
        return _engine(name, build, "added")

    def remove(self, name: str) -> None:
        """Forget an added engine; the program itself stays.

        :raises UsageError: when it was not added
        """
        document = self._document()
        if name not in document:
            hint = did_you_mean(name, document) or "run `orch engines list` to see where each was found"
            raise UsageError(f"no engine `{name}` was added", hint=hint)

        del document[name]
        self._write(document)

    def _unknown(self, name: str) -> UsageError:
        return UsageError(
            f"there is no engine `{name}`",
            details=(f"known: {', '.join(self.ids())}",),
            hint=did_you_mean(name, self.ids()) or f"run `orch engines add {name} PATH`",
        )

    def _added(self) -> dict[str, _Added]:
        added: dict[str, _Added] = {}
        for name, entry in self._document().items():
            added[name] = _Added(entry["path"], entry.get("sha256", ""))

        return added

    def _document(self) -> dict[str, dict[str, str]]:
        """:raises ProblemsError: with every line that is wrong"""
        file = self._paths.engines_file
        if not os.path.exists(file):
            return {}

        text = read_text(file)
        problems = Problems(file, line_finder(text))
        document: dict[str, dict[str, str]] = {}
        for name, entry in (parse_toml(text, problems) or {}).items():
            if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
                problems.add((name,), f"`{name}` is to be a table of strings: path, sha256, added")
            elif not os.path.isabs(entry.get("path", "")):
                problems.add((name,), f"`{name}` needs an absolute `path`")
            else:
                document[name] = entry

        problems.raise_if_any(f"{file} has mistakes", hint="correct them, or add the engines again")
        return document

    def _write(self, document: Mapping[str, dict[str, str]]) -> None:
        import tomlkit

        # Edited rather than written anew, so that a person's comments stay.
        file = self._paths.engines_file
        text = tomlkit.parse(read_text(file) if os.path.exists(file) else "")
        for name in [name for name in text if name not in document]:
            del text[name]

        for name, entry in document.items():
            table = tomlkit.table()
            table.update(entry)
            if text.get(name) != entry:
                text[name] = table

        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        write_text(file, tomlkit.dumps(text))


def engine_key(engine: Engine) -> str:
    """Return what tells an engine's build from others."""
    return build_name(engine.build, engine.sha256)


def build_label(capabilities: Capabilities, sha256: str) -> str:
    """Return the name of a build: its number and commit; without either, its version or a digest of its content."""
    number, commit = capabilities.build_number, capabilities.commit
    if number is not None:
        return f"b{number} ({commit})" if commit else f"b{number}"

    if commit is not None:
        return f"commit {commit}"

    word = capabilities.version.split(" ")[0]
    content = f"sha256:{sha256[:8]}"
    return f"{word} {content}" if "." in word else content


def _engine(name: str, build: Build, source: str, *, changed: bool = False) -> Engine:
    label = build_label(build.capabilities, build.sha256)
    return Engine(name, build.path, build.capabilities, label, source, build.sha256, changed)


def _id_for(build: Build) -> str:
    """Return the built-in name whose settings in a profile fit a program without a name."""
    return "ik-fork" if build.capabilities.kind == "ik" else "upstream"
