"""From the words of a command line to what is benched, and the profiles that carry settings for a bench.

`ENGINE`, `PROFILE`, `PROFILE@ENGINE`, each with `+key=value,...` behind it; an engine may be `ENGINE@BUILD`, one of its
installed builds. Settings over a profile become a profile file of their own, which extends it: so they are checked as
any profile is, and the daemon needs to know nothing of benches. The file is removed when the bench ends, and after a
crash by the daemon or the next bench.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from orchestrator.adapters.config.profile_editing import parse_value, set_values
from orchestrator.adapters.config.profile_files import SUFFIX, ProfileStore
from orchestrator.adapters.config.text_file import write_text
from orchestrator.adapters.config.trial_profiles import HEADING
from orchestrator.adapters.gguf.reader import GgufError, read_gguf
from orchestrator.adapters.paths import Paths
from orchestrator.core.bench.conditions import BenchSide
from orchestrator.core.dialect.tensor_types import type_name
from orchestrator.core.errors import UsageError
from orchestrator.core.problems import did_you_mean
from orchestrator.core.profile.profile import EngineProfile, engine_of, split_target
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import EngineRegistry

_PAIR = re.compile(r"""((?:[^,"'\[\]]|"[^"]*"|'[^']*'|\[[^\]]*\])+)(?:,|$)""")


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """What is benched: a profile on an engine, with settings laid over it.

    :param text: as it was written
    :param base: the user's profile; `profile` is what is started: another one where there are settings
    """

    text: str
    base: str
    engine: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def profile(self) -> str:
        if not self.settings:
            return self.base

        text = "\0".join([self.base, self.engine, *(f"{key}={value}" for key, value in self.settings)])
        return f"bench-{sha256(text.encode()).hexdigest()[:12]}"

    @property
    def switch_text(self) -> str:
        return f"{self.profile}@{self.engine}"


def parse_target(paths: Paths, text: str, running: tuple[str, str] | None) -> BenchTarget:
    """Return what a target's text stands for.

    :param running: profile and engine that run, or ran last: an engine alone means that profile
    :raises UsageError: when it stands for nothing
    """
    base, plus, words = text.partition("+")
    settings = tuple(_settings(text, words)) if plus else ()
    store, registry = ProfileStore(paths), EngineRegistry(paths)
    name, engine = split_target(base)
    engine_alone = base in registry.ids() or (
        engine is not None and name in registry.ids() and name not in store.names()
    )
    if engine is not None and not engine_alone:
        store.load(name)
        return BenchTarget(text, name, engine, settings)

    if engine_alone:
        if running is None:
            raise UsageError(
                f"`{base}` is an engine, and no profile runs or ran that could be benched on it",
                hint=f"name one: `orch bench PROFILE@{base} ...`; `orch profile list` shows them",
            )

        return BenchTarget(text, running[0], base, settings)

    names = store.names()
    if base not in names:
        known = [*names, *registry.ids()]
        raise UsageError(
            f"`{base}` is neither an engine nor a profile",
            details=("a target is ENGINE, PROFILE or PROFILE@ENGINE, each with `+key=value,...` behind it",),
            hint=did_you_mean(base, known) or "`orch profile list` and `orch engines list` show what there is",
        )

    return BenchTarget(text, base, store.load(base).engine, settings)


def _settings(text: str, words: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(words) or at == 0:
        found = _PAIR.match(words, at)
        if found is None:
            raise UsageError(f"`{text}`: settings are expected after the `+`", hint="for example `+context.size=8192`")

        key, equals, value = found[1].partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"`{text}`: `{found[1]}` is no setting", hint="for example `+context.size=8192,kv.k=q8_0`")

        yield key.strip(), value.strip()
        at = found.end()


@contextlib.contextmanager
def bench_profiles(paths: Paths, targets: Sequence[BenchTarget]) -> Iterator[None]:
    """Have the profiles there that carry the targets' settings, until the block ends.

    One that is there already is that of a block around this one: what a killed bench has left was removed before.

    :raises ProblemsError: when a setting is wrong; nothing is left then
    """
    made = []
    try:
        for target in {each.profile: each for each in targets if each.settings}.values():
            path = _profile_path(paths, target.profile)
            if not os.path.exists(path):
                made.append(path)
                _write_profile(paths, target)

        yield
    finally:
        for path in made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _write_profile(paths: Paths, target: BenchTarget) -> None:
    path = _profile_path(paths, target.profile)
    os.makedirs(paths.profiles, exist_ok=True)
    text = f'{HEADING}\n# {target.base}@{target.engine} with other settings.\nschema = 1\nextends = "{target.base}"\n'
    write_text(path, text)
    # In the engine's own table: what the profile says for this engine alone would go before it elsewhere.
    pairs = [
        (
            f'engine."{engine_of(target.engine)}".{key}' if "." in key and not key.startswith("engine.") else key,
            parse_value(value),
        )
        for key, value in target.settings
    ]
    set_values(ProfileStore(paths), target.profile, pairs)


def _profile_path(paths: Paths, name: str) -> str:
    return os.path.join(paths.profiles, name + SUFFIX)


def shown_settings(profile: EngineProfile) -> dict[str, str]:
    """Return all settings of a profile as the text that is kept of them."""
    return {key: str(value) for key, value in profile.settings.items()}


def describe_target(paths: Paths, target: BenchTarget, verified: str | None) -> BenchSide:
    """Return what is known of a target before it runs: its build, and its model's file.

    :raises OrchError: when the engine or the model is not there
    """
    engine = EngineRegistry(paths).resolve(target.engine)
    profile = ProfileStore(paths).load(target.profile).for_engine(target.engine)
    path = model_file(paths, profile.model).ensure()
    model_type, layers, size = "", 0, 0
    with contextlib.suppress(GgufError, OSError):
        header = read_gguf(path)
        size = header.file_size
        layers = header.number("block_count") or 0
        bytes_of: dict[int, int] = {}
        for tensor in header.tensors:
            bytes_of[tensor.type] = bytes_of.get(tensor.type, 0) + tensor.size_bytes

        model_type = "+".join(type_name(each) for each in sorted(bytes_of, key=lambda kind: -bytes_of[kind])[:3])

    return BenchSide(
        name=target.text,
        profile=target.base,
        engine=target.engine,
        build=engine.build,
        sha256=engine.sha256,
        settings=dict(target.settings),
        model=path,
        model_bytes=size,
        model_type=model_type,
        layers=layers,
        all_settings=shown_settings(profile),
        verified=verified,
    )
