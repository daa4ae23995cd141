"""The flags that one build accepts, read from its own `--help` and `--version`; never assumed from its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["upstream", "ik", "unknown"]


def normal_spelling(flag: str) -> str:
    """Return a flag with `-` for `_` inside a long one, as both engines read it and `Capabilities.flags` has it."""
    return flag.replace("_", "-") if flag.startswith("--") else flag


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of a build.

    :param name: the longest spelling, with its dashes
    :param aliases: the other spellings
    :param value: it takes a value; a flag that can be bare or not is described by its help as taking one
    :param choices: the allowed values where the help lists them
    :param removed: still in the help, but refused when used
    :param listed: False when the help is silent about it and the binary was seen to accept it
    """

    name: str
    aliases: tuple[str, ...] = ()
    value: bool = False
    choices: tuple[str, ...] | None = None
    removed: bool = False
    listed: bool = True

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A build as it describes itself.

    :param kind: the dialect, from the layout of the help
    :param version: the version as printed, for people (`0.6.0-dev (build 11434, commit 1234567)`)
    :param build_number: None when the build does not know (0 and 1 mean that too)
    :param commit: None when the build does not know
    :param flags: every spelling to its flag
    :param spec_stages: `--spec-type` takes the fork's stages, `mtp:n_max=3,p_min=0.0`
    """

    kind: Kind
    version: str
    build_number: int | None
    commit: str | None
    flags: Mapping[str, Flag]
    spec_stages: bool = False

    def find(self, *spellings: str) -> Flag | None:
        """Return the flag of the first of these spellings that the build accepts; a removed flag is not accepted."""
        for spelling in spellings:
            flag = self.flags.get(normal_spelling(spelling))
            if flag is not None and not flag.removed:
                return flag

        return None

    def each(self) -> Iterator[Flag]:
        """Yield every flag once, in the order of the help."""
        seen: set[str] = set()
        for flag in self.flags.values():
            if flag.name not in seen:
                seen.add(flag.name)
                yield flag
