"""The preset files of upstream's router: each section is a model, each key a flag without its dashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.core.dialect.known_flags import NEEDLESS
from orchestrator.core.importing.entries import BARE_FLAGS, flag_of_variable, import_server
from orchestrator.core.importing.findings import ImportEntry, ImportResult, SourceWord
from orchestrator.core.importing.flags.arguments import is_known_flag
from orchestrator.core.importing.flags.flag_meanings import flag_meanings
from orchestrator.core.importing.flags.flag_values import read_switch
from orchestrator.core.importing.server_command import ServerCommand

_SECTION = re.compile(r"\[([^\s\[\]][^\[\]]*)\]\s*(?:[;#].*)?")
_PAIR = re.compile(r"([A-Za-z][\w.-]*)\s*=\s*(.*)")
_COMMON = "*"
_FOR_ALL = ("default", "defaults", "global", "common")
"""Names that are given to keys for every model; keys in front of the sections are in `default`."""
_MODELS = ("--model", "--hf-repo", "--hf-file", "--model-url", "--docker-repo")
_ROUTERS = {
    "version": "the version of the file's format", "stop-timeout": "`daemon.stop_grace_s` is orch's time",
    "dedup-cache-models": "orch lists profiles, not caches",
}  # fmt: skip


class _IniPair(NamedTuple):
    key: str
    value: str
    line: int


class _IniSection(NamedTuple):
    name: str
    line: int
    pairs: list[_IniPair]


def is_router_ini(text: str) -> bool:
    """Return whether a text is sections of `key = value` and nothing else."""
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and line[0] not in ";#"]
    if any(line.startswith("command") for line in said):  # supervisord
        return False

    if not said or not (_SECTION.fullmatch(said[0]) or _PAIR.fullmatch(said[0])):
        return False

    sections = sum(_SECTION.fullmatch(line) is not None for line in said)
    pairs = sum(_PAIR.fullmatch(line) is not None for line in said)
    return sections > 0 and sections + pairs >= 0.9 * len(said)


def import_router_ini(text: str, over: Sequence[SourceWord] = ()) -> ImportResult:
    """Return a profile for each section of a preset file.

    :param over: the router's own arguments, which hold over those of every section
    """
    result = ImportResult("router's preset file")
    sections, stray = _read(text)
    for line, words in stray:
        result.add("lost", words[:80], "it is neither a section nor `key = value`", line)

    common = next((each for each in sections if each.name == _COMMON), _IniSection(_COMMON, 1, []))
    latest = {each.name: each for each in sections}
    preload = []
    for section in sections:
        if section.name == _COMMON:
            continue

        if section.name.lower() in _FOR_ALL and not any(_meaning(pair.key) in _MODELS for pair in section.pairs):
            said = "a preset of its own, which names no model: the section for all is `[*]`"
            for pair in section.pairs:
                result.add("lost", f"{pair.key} = {pair.value}", said, pair.line)

            continue

        if latest[section.name] is not section:
            said = "the same section comes again and replaces this one whole"
            result.add("changed", f"[{section.name}]", said, section.line)
            continue

        entry, loads = _import_section(section, common, [each.name for each in result.entries], over)
        result.entries.append(entry)
        if loads and not entry.refusal:
            preload.append(entry.name)

    if not result.entries and common.pairs:
        result.add("lost", f"[{_COMMON}]", "its settings are for every model, and no section is one", common.line)

    if preload:
        result.config["residency.preload"] = preload

    return result


def _read(text: str) -> tuple[list[_IniSection], list[tuple[int, str]]]:
    sections: list[_IniSection] = []
    stray = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        said = line.strip()
        if not said or said[0] in ";#":
            continue

        if (found := _SECTION.fullmatch(said)) is not None:
            sections.append(_IniSection(found[1].strip(), number, []))
        elif (pair := _PAIR.fullmatch(said)) is not None:
            if not sections:
                sections.append(_IniSection("default", number, []))

            # A comment sign ends a value, also inside of it.
            value = re.split(r"\s;|#", pair[2], maxsplit=1)[0].strip()
            sections[-1].pairs.append(_IniPair(pair[1], value, number))
        else:
            stray.append((number, said))

    return sections, stray


def _import_section(
    section: _IniSection, common: _IniSection, taken: list[str], over: Sequence[SourceWord]
) -> tuple[ImportEntry, bool]:
    own = {_meaning(pair.key) for pair in section.pairs}
    pairs = [*(pair for pair in common.pairs if _meaning(pair.key) not in own), *section.pairs]
    words: list[SourceWord] = []
    noted: list[tuple[str, str, str, int]] = []
    extra: dict[str, object] = {}
    loads = False
    for pair in pairs:
        shown = f"{pair.key} = {pair.value}"
        if pair.key in _ROUTERS:
            noted.append(("changed", shown, _ROUTERS[pair.key], pair.line))
        elif pair.key == "load-on-startup":
            loads = read_switch(pair.value) is True
            noted.append(("kept", shown, "residency.preload" if loads else "it is loaded when asked for", pair.line))
        elif pair.key == "sleep-idle-seconds":
            seconds = int(pair.value) if re.fullmatch(r"\d{1,6}", pair.value) else 0
            extra["residency.idle_unload_s"] = seconds
            noted.append(("changed", shown, "residency.idle_unload_s: the engine ends, and loads again", pair.line))
        else:
            if "_" in pair.key and not pair.key.startswith("LLAMA_ARG_"):
                noted.append(("guessed", shown, "the router refuses a key with `_`; read with `-`", pair.line))

            quoted = re.fullmatch(r"(['\"])(.*)\1", pair.value)
            if quoted is not None:
                noted.append(
                    ("guessed", shown, "the router takes the quotes as part of the value; read without", pair.line)
                )
                pair = pair._replace(value=quoted[2])

            words += _flag(pair)

    names_model = any(word.text in ("-m", "--model", "-hf", "-hfr", "--hf-repo") for word in words)
    if not names_model and "/" in section.name:  # a repository in the router's cache
        words = [SourceWord("--hf-repo", section.line), SourceWord(section.name, section.line), *words]
    elif not any(_meaning(pair.key) in _MODELS for pair in pairs):
        extra["model"] = f"~/models/{section.name}.gguf"
        said = f"model: the router looks for that name among its files: put the path here ({extra['model']} is a guess)"
        noted.append(("guessed", f"[{section.name}]", said, section.line))

    server = ServerCommand(section.line, "llama-server", [*words, *over])
    entry = import_server(server, taken, name=section.name, extra=extra)
    for fate, source, text, line in noted:
        entry.add("kept" if fate == "kept" else "guessed" if fate == "guessed" else "changed", source, text, line)

    return entry, loads


def _spelling(key: str) -> str:
    """Return the flag of a key, with its dashes."""
    if key.startswith("LLAMA_ARG_"):
        return flag_of_variable(key, "", 0)[0].text

    word = key.replace("_", "-")
    long, short = f"--{word}", f"-{word}"
    return short if not is_known_flag(long) and is_known_flag(short) else long


def _meaning(key: str) -> str:
    flag = _spelling(key)
    found = flag_meanings().get(flag)
    aliases = {"-m": "--model", "-a": "--alias", "-hf": "--hf-repo", "-hfr": "--hf-repo", "-hff": "--hf-file"}
    return found.setting if found is not None else aliases.get(flag, flag)


def _flag(pair: _IniPair) -> list[SourceWord]:
    flag, value = _spelling(pair.key), pair.value
    switch = read_switch(value)
    bare = flag in BARE_FLAGS or (flag in NEEDLESS and switch is not None) or flag.startswith("--no-")
    if bare and flag not in flag_meanings() and switch is not None:
        other = flag.replace("--no-", "--") if flag.startswith("--no-") else f"--no-{flag.lstrip('-')}"
        return [SourceWord(flag if switch else other, pair.line)]

    words = [SourceWord(flag, pair.line)]
    return [*words, SourceWord(value, pair.line)] if value else words
