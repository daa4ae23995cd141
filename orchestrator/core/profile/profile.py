"""A profile: a model, engine-neutral settings, and what one engine does differently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.profile.free_tables import ENVIRONMENT, free_values
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.variants import Variant

SCHEMA_VERSION = 1

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Names of profiles and engines: no path can be spelled with them (`..` is refused besides)."""

NAME_RULE = "1 to 64 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or a digit, without `..`"

DEFAULT_ENGINE = "upstream"

DEMO_MODEL = "orch:demo"
"""Stands for the model that orch generates; the daemon knows where. Not a path: kept as written."""


def is_name(text: str) -> bool:
    """Return whether a profile or an engine may have this name (`NAME_RULE`)."""
    return NAME_PATTERN.fullmatch(text) is not None and ".." not in text


def engine_of(name: str) -> str:
    """Return the engine of `ENGINE@BUILD`, which is one of its installed builds; of an engine, itself."""
    return name.partition("@")[0]


def split_target(text: str) -> tuple[str, str | None]:
    """Return the profile and the engine of `PROFILE[@ENGINE[@BUILD]]`; a profile's file may have an `@` in its path."""
    name, at, engine = text.rpartition("@")
    if not at:
        return text, None

    profile, build_follows, before = name.rpartition("@")
    return (profile, f"{before}@{engine}") if build_follows and is_name(before) else (name, engine)


@dataclass(frozen=True, slots=True)
class Recovery:
    """The steps that may be tried when memory runs out.

    :param margins: device memory to keep free, MiB, in the order tried
    :param then: steps allowed after the last margin, `kv:q4_0` or `context:65536` or `n_cpu_moe:+4`
    :param max_attempts: starts in one recovery at most
    """

    margins: tuple[int, ...] = ()
    then: tuple[str, ...] = ()
    max_attempts: int = 6


@dataclass(frozen=True, slots=True)
class EngineOverride:
    """The part of a profile that holds for one engine only."""

    settings: Mapping[str, Value] = field(default_factory=dict)
    recovery: Recovery | None = None
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """One validated profile, `extends` already merged in.

    :param name: the file's stem
    :param file: where it was read from
    :param model: absolute path of the GGUF (of the first split), `~` expanded; it need not exist; or `DEMO_MODEL`
    :param settings: dotted key to value, only what is set
    :param overrides: engine id to what differs there
    :param extends: the names of the parents, nearest first
    :param variants: more names, with what they change of a request
    :param residency: the keys of its table `[residency]` that it sets, and their values
    """

    name: str
    file: str
    model: str
    engine: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    settings: Mapping[str, Value] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    extra_args: tuple[str, ...] = ()
    overrides: Mapping[str, EngineOverride] = field(default_factory=dict)
    extends: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    residency: Mapping[str, Value] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that clients may send for it."""
        return (self.name, *self.aliases, *(variant.name for variant in self.variants))

    def for_engine(self, engine: str) -> EngineProfile:
        """Return the profile as it stands for one engine, or a build of it: its overrides over the common settings."""
        engine = engine_of(engine)
        override = self.overrides.get(engine, EngineOverride())
        return EngineProfile(
            name=self.name,
            engine=engine,
            model=self.model,
            aliases=self.aliases,
            settings={**self.settings, **override.settings},
            recovery=override.recovery or self.recovery,
            extra_args=(*self.extra_args, *override.extra_args),
        )


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """A profile with one engine chosen: what a dialect turns into argv."""

    name: str
    engine: str
    model: str
    aliases: tuple[str, ...]
    settings: Mapping[str, Value]
    recovery: Recovery
    extra_args: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that the profile sets for the engine."""
        return {name: str(value) for name, value in free_values(self.settings, ENVIRONMENT).items()}
