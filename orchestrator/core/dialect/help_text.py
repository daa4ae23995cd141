"""Reads what an engine prints for `--help` and `--version`.

Two layouts are known. Upstream (common/arg.cpp): sections `----- common params -----`, entries from column 0, the
description at column 40 or on the next line. The fork (common/common.cpp): `usage:` and `general:`, entries indented
by two, the description at column 34. The layout alone tells the kind: both engines' programs have the same name, and
both have printed the same version line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from orchestrator.core.dialect.capabilities import Capabilities, Flag, Kind, normal_spelling

_UPSTREAM_SECTION = re.compile(r"-{3,} .+ params -{3,}\s*")
_UPSTREAM_COLUMN = 40
_FORK_ENTRY = re.compile(r" {2,12}-")
_FORK_COLUMN = 34

_SPELLING = re.compile(r"--?[A-Za-z][\w.-]*")

_REMOVED = "the argument has been removed"

_VERSION = re.compile(r"version: (?:(?P<old>(\d+) \(([^\s)]+)\))|(?P<new>\S+ \(build (\d+), commit ([^\s)]+)\)))")
"""`version: 4409 (67268c8fd)`, or upstream since b10405 `version: 0.6.0-dev (build 11434, commit 1234567)`."""

_COMMIT = re.compile(r"[0-9a-f]{6,40}")

_NO_BUILD_NUMBER = (0, 1)
"""Built without git, and from a shallow clone."""

_BRACKETED = re.compile(r"\{([^{}]+)\}|\[([^\[\]]+)\]|\(([^()]+)\)|<([^<>]+)>")
_WORD = re.compile(r"[A-Za-z0-9][\w+.-]*")
_BULLET = re.compile(r"- ([a-z][\w+-]*)(?: \(default\))?:")
_DEFAULT = re.compile(r"\(default: '?([\w+-]+)'?")

_STAGE_HINT = "[:k=v"
"""The mark in the help of the fork's `--spec-type` that it takes stages (since b4557, June 2026)."""

FORK_TAKES_VALUE = frozenset({
    "--adaptive-decay", "--adaptive-target", "--allowlist-keyword", "--allowlist-keyword-delay", "--allowlist-pieces",
    "--allowlist-unicode-rule", "--attention-max-batch", "--banned-n", "--banned-string-file", "--cuda-params",
    "--draft-params", "--dsa-top-k", "--embd-normalize", "--embd-output-format", "--embd-separator",
    "--expiring-logit-bias-file", "--graph-attn-precision", "--graph-reduce-type", "--max-extra-alloc", "--mla-use",
    "--reasoning-budget-message", "--smart-expert-reduction",
})  # fmt: skip
"""The fork's flags whose help shows no value although they take one (`gpt_params_find_arg`, common/common.cpp)."""


class _Entry(NamedTuple):
    """One entry of a help text: its spellings, the value hint, the lines of its description."""

    spellings: tuple[str, ...]
    hint: str
    description: tuple[str, ...]


def read_capabilities(
    help_text: str,
    version_text: str,
    extra_accepted: Iterable[Flag] = (),
    *,
    refused: Iterable[str] = (),
    spec_stages: bool | None = None,
) -> Capabilities:
    """Return what a build accepts, as its own help and version tell.

    :param extra_accepted: flags or spellings that the help is silent about and the binary was seen to accept
    :param refused: spellings that the help lists and the binary was seen to refuse
    :param spec_stages: what the binary answered when it was given a stage; None leaves it to the help
    """
    kind, flags = parse_help(help_text)
    version, build_number, commit = parse_version(version_text)
    for spelling in refused:
        flag = flags.get(normal_spelling(spelling))
        if flag is not None:
            _add_flag(flags, replace(flag, removed=True))

    for extra in extra_accepted:
        known = next((flags[spelling] for spelling in extra.spellings if spelling in flags), None)
        if known is None:
            _add_flag(flags, extra)
        else:
            new = (spelling for spelling in extra.spellings if spelling not in known.spellings)
            _add_flag(flags, replace(known, aliases=(*known.aliases, *new)))

    if spec_stages is None:
        spec_stages = kind == "ik" and _STAGE_HINT in help_text

    return Capabilities(kind, version, build_number, commit, flags, spec_stages)


def parse_version(text: str) -> tuple[str, int | None, str | None]:
    """Return the version for people, the build number and the commit, from whatever surrounds them.

    :return: `unknown` and two None where there is no version line
    """
    match = _VERSION.search(text)
    if match is None:
        return "unknown", None, None

    number, commit = int(match[2] or match[5]), match[3] or match[6]
    return (
        match["old"] or match["new"],
        None if number in _NO_BUILD_NUMBER else number,
        commit if _COMMIT.fullmatch(commit) else None,
    )


def parse_help(text: str) -> tuple[Kind, dict[str, Flag]]:
    """Return the kind of engine, and every spelling to its flag; `unknown` and nothing for any other text."""
    lines = text.expandtabs().splitlines()
    kind = detect_kind(lines)
    if kind == "unknown":
        return kind, {}

    flags: dict[str, Flag] = {}
    for entry in _upstream_entries(lines) if kind == "upstream" else _fork_entries(lines):
        for spellings in _split_opposites(entry) if kind == "upstream" else (entry.spellings,):
            # The fork lists some flags once per example program: what the first says about them holds.
            fresh = tuple(spelling for spelling in spellings if spelling not in flags)
            if fresh == spellings:
                _add_flag(flags, _build_flag(spellings, entry, kind))

    return kind, flags


def detect_kind(lines: Iterable[str]) -> Kind:
    """Return the kind of engine whose layout these lines have."""
    usage = False
    for line in lines:
        if _UPSTREAM_SECTION.fullmatch(line):
            return "upstream"

        if line.startswith("usage:"):
            usage = True
        elif usage and line.rstrip() == "general:":
            return "ik"

    return "unknown"


def _add_flag(flags: dict[str, Flag], flag: Flag) -> None:
    for spelling in flag.spellings:
        flags[spelling] = flag


def _build_flag(spellings: tuple[str, ...], entry: _Entry, kind: Kind) -> Flag:
    name = max(spellings, key=len)
    choices = _read_choices(entry, kind)
    return Flag(
        name=name,
        aliases=tuple(spelling for spelling in spellings if spelling != name),
        value=bool(entry.hint) or (kind == "ik" and (choices is not None or name in FORK_TAKES_VALUE)),
        choices=choices,
        removed=bool(entry.description) and entry.description[0].startswith(_REMOVED),
    )


def _upstream_entries(lines: list[str]) -> Iterator[_Entry]:
    start = next(index for index, line in enumerate(lines) if _UPSTREAM_SECTION.fullmatch(line))
    body = (line for line in lines[start:] if not _UPSTREAM_SECTION.fullmatch(line))
    return _read_entries(body, re.compile("-"), _UPSTREAM_COLUMN)


def _fork_entries(lines: list[str]) -> Iterator[_Entry]:
    return _read_entries(lines, _FORK_ENTRY, _FORK_COLUMN)


def _read_entries(lines: Iterable[str], begins: re.Pattern[str], column: int) -> Iterator[_Entry]:
    left: str | None = None
    description: list[str] = []
    for line in lines:
        if begins.match(line):
            if left is not None:
                yield _read_entry(left, description)

            # Both engines pad the left part with at least two spaces, or break the line after it.
            fits = line[column - 2 : column + 1].startswith("  ") and len(line) > column
            left = line[:column] if fits else line
            description = [line[column:].strip()] if fits else []
        elif line.startswith(" " * column):
            description.append(line.strip())

    if left is not None:
        yield _read_entry(left, description)


def _read_entry(left: str, description: list[str]) -> _Entry:
    """Split `-cram-n-min --cache-ram-n-min N`, with or without commas, into spellings and hint."""
    spellings: list[str] = []
    hint: list[str] = []
    for word in left.split():
        bare = word.rstrip(",")
        # Written `--embedding(s)` for both.
        plural = bare.endswith("(s)")
        bare = bare.removesuffix("(s)")
        if _SPELLING.fullmatch(bare) and word != "-":
            spellings += [normal_spelling(bare), *([normal_spelling(bare) + "s"] if plural else [])]
            hint = []  # `-ctx-ckpt N, --ctx-checkpoints N` repeats it
        else:
            hint.append(word)

    return _Entry(tuple(dict.fromkeys(spellings)), " ".join(hint), tuple(description))


def _split_opposites(entry: _Entry) -> Iterator[tuple[str, ...]]:
    """Yield the spellings of each flag in an entry.

    Upstream lists a switch and its negation in one (`-kvo, --kv-offload, -nkvo, --no-kv-offload`).
    """
    words = entry.spellings
    negative = next((index for index, word in enumerate(words) if word.startswith("--no-")), 0)
    if entry.hint or not any(word.startswith("--") for word in words[:negative]):
        yield words
        return

    while not words[negative - 1].startswith("--"):
        negative -= 1  # the short form stands before the long one

    yield words[:negative]
    yield words[negative:]


def _read_choices(entry: _Entry, kind: Kind) -> tuple[str, ...] | None:
    if _STAGE_HINT in entry.hint:
        return _labelled_words(entry, "types:")

    first = entry.description[0] if entry.description else ""
    for text in (entry.hint, first if kind == "ik" and not entry.hint else ""):
        bracketed = _BRACKETED.search(text)
        if bracketed is not None and _is_whole_value(text, bracketed):
            inner = next(group for group in bracketed.groups() if group is not None)
            return _split_words(inner.replace(" - ", "-"), "|" if "|" in inner else ",")

    if entry.hint.startswith("none,"):
        return _split_words(entry.hint, ",")

    if kind == "upstream" and entry.hint:
        return _labelled_words(entry, "allowed values:") or _bulleted_words(entry.description)

    return None  # the fork's bulleted lists describe and are not complete: -sm has a fourth mode


def _is_whole_value(text: str, bracketed: re.Match[str]) -> bool:
    # `Name [none | mtp]` and `[on|off|auto]thinking` are lists; `[<repo>/]<model>[:quant]` is none.
    inner = bracketed[0][1:-1]
    listed = "|" in inner or (bracketed[0][0] == "{" and "," in inner)
    return listed and (bracketed.start() == 0 or text[bracketed.start() - 1] == " ")


def _split_words(text: str, separator: str) -> tuple[str, ...] | None:
    words = tuple(word.strip() for word in text.split(separator))
    return words if len(words) > 1 and all(_WORD.fullmatch(word) for word in words) else None


def _labelled_words(entry: _Entry, label: str) -> tuple[str, ...] | None:
    """Return the words after a label; a list may run over several lines and then its lines end with a comma."""
    text = ""
    for line in entry.description:
        if not text and line.startswith(label):
            text = line.removeprefix(label)
        elif text.endswith(","):
            text += f" {line}"

    return _split_words(text, ",")


def _bulleted_words(description: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return modes that are described one by one, with the default, which may be missing there (--reasoning-format)."""
    words = [match[1] for match in map(_BULLET.match, description) if match]
    if not words:
        return None

    default = next((match[1] for match in map(_DEFAULT.search, description) if match), None)
    return tuple(dict.fromkeys([*words, *([default] if default else [])]))
