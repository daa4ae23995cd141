"""`extra_args` against what a build accepts: read as its parser reads them, word by word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.dialect.capabilities import Capabilities, Flag, normal_spelling
from orchestrator.core.dialect.forms import looks_like_flag
from orchestrator.core.dialect.known_flags import ENGINES_OF, NEEDLESS, settings_of_flags
from orchestrator.core.problems import nearest

_TWO_VALUES = frozenset({"--lora-scaled", "--control-vector-scaled", "--control-vector-layer-range"})
"""They may take a second value: the fork's and older upstream's, whose help shows two."""


_ALIKE = 0.75
"""How alike a word and a flag must be to be named as the nearest (`difflib`'s ratio)."""


def find_faults(extra_args: Sequence[str], caps: Capabilities) -> list[str]:
    """Return the reasons why this build would refuse these arguments, one for each word that is wrong."""
    faults = []
    words = iter(enumerate(extra_args))
    for at, word in words:
        flag = caps.flags.get(normal_spelling(word))
        if flag is None:
            faults.append(_unknown(word, caps))
            # What follows an unknown flag is its value, unless it looks like the next flag.
            if looks_like_flag(word) and at + 1 < len(extra_args) and not looks_like_flag(extra_args[at + 1]):
                next(words)
        elif flag.removed:
            faults.append(f"`{word}` was removed from it; {_instead(word, caps)}")
            if flag.value and at + 1 < len(extra_args) and not looks_like_flag(extra_args[at + 1]):
                next(words)
        elif flag.value and next(words, None) is None:
            # The fork reads past the end of argv here and dies of it (`-ctkd`).
            faults.append(f"`{word}` comes last and lacks its value; nearest here: write the value behind it")
        elif flag.value and _takes_second(flag, extra_args[at + 2 : at + 3]):
            next(words)

    return faults


def unknown_flags(extra_args: Sequence[str], caps: Capabilities) -> list[int]:
    """Return the positions of the words that look like flags and that the build's own texts do not have."""
    return [
        at for at, word in enumerate(extra_args) if looks_like_flag(word) and normal_spelling(word) not in caps.flags
    ]


def find_settings(extra_args: Sequence[str], caps: Capabilities) -> Iterator[tuple[str, str]]:
    """Yield each flag that a setting means, with that setting; those that belong to orch are refused elsewhere."""
    for word in extra_args:
        flag = caps.find(word) if looks_like_flag(word) else None
        setting = None if flag is None else _setting_of(flag)
        if setting is not None:
            yield word, setting


def _takes_second(flag: Flag, rest: Sequence[str]) -> bool:
    return flag.name in _TWO_VALUES and bool(rest) and not looks_like_flag(rest[0])


def _setting_of(flag: Flag) -> str | None:
    known = settings_of_flags()
    return next((known[spelling] for spelling in flag.spellings if spelling in known), None)


def _unknown(word: str, caps: Capabilities) -> str:
    if not looks_like_flag(word):
        return f"`{word}` stands where a flag is expected; nearest here: drop it, or put its flag before it"

    name, equals, _ = word.partition("=")
    if equals and caps.find(name) is not None:
        return f"it does not take `{word}`; nearest here two arguments, the flag and its value"

    return f"it has no flag `{word}`; {_instead(name, caps)}"


def _instead(word: str, caps: Capabilities) -> str:
    """Return what comes nearest, in meaning before spelling."""
    flag = normal_spelling(word)
    setting = settings_of_flags().get(flag)
    if setting is not None:
        return f"the setting `{setting}` says it, for every engine that can"

    if flag in NEEDLESS:
        return NEEDLESS[flag]

    spellings = [spelling for spelling in caps.flags if caps.find(spelling) is not None]
    close = nearest(flag, spellings, cutoff=_ALIKE)
    known = next((known for known in (f"-{flag}", f"-{flag.lstrip('-')}") if known in caps.flags), close)
    others = [engine for engine in ENGINES_OF.get(flag, ()) if (engine == "ik-fork") != (caps.kind == "ik")]
    if others:
        return f"`{others[0]}` has it: nearest here `[engine.{others[0]}] extra_args`"

    if known is None:
        return (
            "nothing comes near it: drop it, or use the build whose flag it is (`orch engines probe` lists a build's)"
        )

    meant = settings_of_flags().get(known)
    return f"nearest here `{known}`" + (f", which the setting `{meant}` says" if meant else "")
