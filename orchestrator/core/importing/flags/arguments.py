"""The arguments of a llama-server, of either engine and any age, as the keys of a profile.

No flag is dropped in silence: each ends in the document, or in a finding that says why not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.core.dialect.capabilities import normal_spelling
from orchestrator.core.dialect.forms import looks_like_flag
from orchestrator.core.dialect.known_flags import ENGINES_OF, NEEDLESS
from orchestrator.core.dialect.owned_flags import REFUSED_FLAGS, find_refused_flags
from orchestrator.core.importing.findings import ImportEntry, SourceWord, look, put
from orchestrator.core.importing.flags.compound_flags import (
    Locate,
    read_indexed,
    read_load_mode,
    read_metadata,
    read_scaled,
)
from orchestrator.core.importing.flags.flag_meanings import FlagMeaning, flag_meanings
from orchestrator.core.importing.flags.flag_values import FlagValue, read_flag_value, read_switch
from orchestrator.core.importing.flags.speculation import read_spec_type
from orchestrator.core.importing.words.unresolved import is_empty, readable, unresolved
from orchestrator.core.profile.settings import BY_PATH

_SECRET = ("--api-key", "--hf-token", "-hft")
_REPOSITORY = ("-hf", "-hfr", "--hf-repo")
_REPOSITORY_FILE = ("-hff", "--hf-file")
_DOWNLOADS = {
    "-mu": "model", "--model-url": "model", "-mmu": "multimodal.mmproj", "--mmproj-url": "multimodal.mmproj",
    "--docker-repo": "model", "-hfd": "speculative.draft_model", "-hfrd": "speculative.draft_model",
    "--hf-repo-draft": "speculative.draft_model", "--spec-draft-hf": "speculative.draft_model",
}  # fmt: skip
"""Flags that name a file elsewhere, and the setting that names it here."""
_APPENDS = ("memory.tensor_overrides", "lora.adapters")
_LOST = (
    "--tools", "--agent", "-ag", "--slot-save-path", "--media-path", "--path", "--public-path", "--api-prefix",
    "--mcp-servers-config", "--ui-mcp-proxy", "--webui-mcp-proxy", "--system-prompt-file", "-spf",
    "--ssl-key-file", "--ssl-cert-file", "-hfv", "--hf-repo-v", "-dr", "--lookup-cache-dynamic", "-lcd",
)  # fmt: skip
"""Flags of orch's own list whose function goes with them; all others are orch's to set."""

_ELSEWHERE = frozenset({
    "--spec-type", "--spec-stage", "-mtp", "--multi-token-prediction", "-lm", "--load-mode", "-gfm",
    "--gpu-fit-margin", "-okv", "--override-kv", "--lora-scaled",
})  # fmt: skip
"""Flags that are read by functions of their own."""


def _as_it_is(path: str) -> tuple[str, str]:
    return path, ""


@dataclass(slots=True)
class _Reading:
    entry: ImportEntry
    engine: str
    locate: Locate
    seen: dict[str, str] = field(default_factory=dict)
    repository: str = ""
    repository_file: str = ""
    repository_said: str = ""
    repository_line: int = 0
    written: str = ""
    """The flag that is read now, in the source's own spelling."""


def read_arguments(words: Sequence[SourceWord], entry: ImportEntry, engine: str, locate: Locate = _as_it_is) -> None:
    """Add what the arguments say to the entry's document and findings.

    :param engine: the engine that they were written for: `upstream` or `ik-fork`
    """
    reading = _Reading(entry, engine, locate)
    at = 0
    while at < len(words):
        word = words[at]
        name, equals, inside = word.text.partition("=")
        flag = normal_spelling(name if equals and word.text.startswith("--") else word.text)
        follows = words[at + 1] if at + 1 < len(words) else None
        has_value = follows is not None and not looks_like_flag(follows.text)
        value = follows.text if follows is not None and has_value else None
        meant, inside_word = _meant(flag)
        reading.written = name if equals and word.text.startswith("--") else word.text
        meaning = flag_meanings().get(meant)
        needs_value = meaning is not None and meaning.bare is None
        if is_empty(word.text) or (needs_value and value is not None and is_empty(value)):
            shown = _shown(word.text, None if is_empty(word.text) else value)
            entry.add("changed", readable(shown), "left out: empty, unless it is set from outside", word.line)
            at += 1 if is_empty(word.text) else 2
        elif not looks_like_flag(word.text):
            entry.add("lost", readable(word.text), "stands where a flag is expected: no engine takes it", word.line)
            at += 1
        elif inside_word:
            said = f"no engine takes them together; read as `{meant} {inside_word}`"
            entry.add("guessed", readable(word.text), said, word.line)
            reading.written = meant
            _read_flag(meant, inside_word, word.line, reading)
            at += 1
        elif equals and word.text.startswith("--"):
            entry.add("guessed", readable(name), "no engine takes `=` here; read as two arguments", word.line)
            _read_flag(flag, inside, word.line, reading)
            at += 1
        else:
            if meant != flag:
                entry.add("guessed", word.text, f"no engine takes it; read as `{meant}`", word.line)

            if value is not None and is_empty(value):
                has_value, value = False, None

            at += 1 + (_read_flag(meant, value, word.line, reading) and has_value)

    _settle_repository(reading)


def is_known_flag(flag: str) -> bool:
    """Return whether an engine of any age has a flag."""
    return (
        flag in flag_meanings() or flag in REFUSED_FLAGS or flag in NEEDLESS or flag in ENGINES_OF or flag in _ELSEWHERE
    )


def _meant(flag: str) -> tuple[str, str]:
    """Return the flag that a slip means: one dash too many or too few, or a number without a space before it."""
    if is_known_flag(flag) or not flag.startswith("-"):
        return flag, ""

    other = flag[1:] if flag.startswith("--") else f"-{flag}"
    if is_known_flag(other):
        return other, ""

    glued = re.fullmatch(r"(-[a-z]{1,4})(\d+)", flag)
    if glued is not None and (meaning := flag_meanings().get(glued[1])) is not None and meaning.valued:
        return glued[1], glued[2]

    return flag, ""


def _read_flag(flag: str, value: str | None, line: int, reading: _Reading) -> bool:
    """Read one flag; return whether what follows it is its value."""
    entry = reading.entry
    source = _shown(reading.written, value)
    if flag in ("-m", "--model"):
        _read_model(value, source, line, reading)
    elif flag in ("-a", "--alias"):
        names = [name.strip() for name in (value or "").split(",") if name.strip() and not unresolved(name)]
        _add_aliases(names, entry)
        entry.add("kept", source, "aliases", line)
    elif flag in _REPOSITORY:
        reading.repository, reading.repository_said, reading.repository_line = value or "", source, line
    elif flag in _REPOSITORY_FILE:
        reading.repository_file = value or ""
        entry.add("kept", source, "the file of the repository", line)
    elif flag in _DOWNLOADS and value:
        _read_download(flag, value, line, reading)
    elif flag in ("--spec-type", "--spec-stage", "-mtp", "--multi-token-prediction"):
        return _read_speculation(flag, value, line, reading)
    elif flag in ("--load-mode", "-lm"):
        read_load_mode(value, source, line, entry)
    elif flag in ("--gpu-fit-margin", "-gfm"):
        read_indexed(value, source, line, entry)
    elif flag in ("--override-kv", "-okv"):
        read_metadata(value, source, line, entry)
    elif flag in ("--lora-scaled",):
        read_scaled(value, source, line, entry, reading.locate)
    elif (meaning := flag_meanings().get(flag)) is not None:
        return _read_setting(meaning, flag, value, line, reading)
    else:
        return _read_other(flag, value, line, reading)

    return value is not None


def is_secret_flag(flag: str) -> bool:
    """Return whether a flag's value is a key or a token, which no report shows."""
    return flag in _SECRET or re.search(r"(api|ssl)[-_]?key|token$|password|secret", flag) is not None


def _shown(flag: str, value: str | None) -> str:
    if value is None or is_secret_flag(flag):
        return readable(flag)

    return readable(f"{flag} {value}")


def _add_aliases(names: Sequence[str], entry: ImportEntry) -> None:
    known = entry.document.get("aliases", [])
    kept = [name for name in names if not name.startswith("-")]
    if kept:
        entry.document["aliases"] = list(dict.fromkeys([*known, *kept]))


def _read_model(value: str | None, source: str, line: int, reading: _Reading) -> None:
    entry = reading.entry
    if not value:
        entry.add("lost", source, "there is no path behind it", line)
        return

    names = unresolved(value)
    path, note = reading.locate(value)
    entry.document["model"] = readable(path)
    if names:
        what = f"the source does not say what {', '.join(f'${name}' for name in names)} is: put the file's path here"
        entry.add("guessed", source, what, line)
    else:
        entry.add("guessed" if note else "kept", source, f"model{f': {note}' if note else ''}", line)


def _settle_repository(reading: _Reading) -> None:
    entry = reading.entry
    if not reading.repository or "model" in entry.document:
        if reading.repository:
            entry.add("changed", reading.repository_said, "`--model` says the file", reading.repository_line)

        return

    repository = readable(reading.repository).partition(":")[0]
    file = readable(reading.repository_file) or _file_of(readable(reading.repository))
    entry.document["model"] = f"~/models/{file}"
    if not unresolved(reading.repository):
        entry.repository, entry.repository_file = reading.repository, readable(reading.repository_file)

    entry.add(
        "guessed", reading.repository_said,
        f"an engine that starts downloads nothing: get the file (`orch pull hf:{repository}`) and put its path here",
        reading.repository_line,
    )  # fmt: skip


def _file_of(repository: str) -> str:
    """Return what the file of a repository, or of an address, is called in all likelihood."""
    name, _, quant = repository.rpartition("/")[2].partition(":")
    if name.lower().endswith(".gguf"):
        return name

    return f"{re.sub('-gguf$', '', name, flags=re.IGNORECASE)}-{quant or 'Q4_K_M'}.gguf"


def _read_download(flag: str, value: str, line: int, reading: _Reading) -> None:
    setting = _DOWNLOADS[flag]
    source = f"{reading.written} {readable(value)}"
    if look(reading.entry.document, setting) is not None:
        reading.entry.add("changed", source, f"`{setting}` says the file", line)
        return

    put(reading.entry.document, setting, f"~/models/{_file_of(readable(value).partition('?')[0])}")
    said = f"`{setting}`: an engine that starts downloads nothing: get the file and put its path here"
    reading.entry.add("guessed", source, said, line)


def _read_setting(meaning: FlagMeaning, flag: str, value: str | None, line: int, reading: _Reading) -> bool:
    entry = reading.entry
    setting = BY_PATH[meaning.setting]
    takes = value is not None and meaning.valued
    if takes and meaning.bare is not None and setting.path != "attention.flash":
        takes = read_switch(value or "") is not None or "auto" in (setting.choices or ())

    source = _shown(reading.written, value if takes else None)
    if not takes and meaning.bare is None:
        entry.add("lost", source, "its value is missing: no engine starts with it", line)
        return False

    if takes and value is not None and unresolved(value):
        names = ", ".join(f"${name}" for name in unresolved(value))
        if "path" in setting.types:
            put(entry.document, setting.path, readable(reading.locate(value)[0]))
            said = f"`{setting.path}`: the source does not say what {names} is: put the file's path here"
            entry.add("guessed", source, said, line)
            return True

        entry.add("lost", source, f"`{setting.path}` is not set: the source does not say what {names} is", line)
        return True

    if not takes:
        read = FlagValue(meaning.bare)
    else:
        read = read_flag_value(setting, value or "")
        if meaning.bare is False and isinstance(read.value, bool):  # `no-x = true` in the router's files
            read = FlagValue(not read.value)

    if read.fault:
        entry.add("lost", source, f"`{setting.path}`: {read.fault}", line)
    elif read.needless:
        entry.add("changed", source, f"left out: {read.needless}", line)
    else:
        _put(setting.path, read, source, line, reading)

    return takes


def _put(path: str, read: FlagValue, source: str, line: int, reading: _Reading) -> None:
    entry = reading.entry
    value, note = read.value, read.note
    types = BY_PATH[path].types
    if "path" in types and isinstance(value, str):
        value, said = reading.locate(value)
        note = note or said
    elif "paths" in types:
        value = [reading.locate(each)[0] for each in value]

    before = look(entry.document, path)
    if before is not None and path in _APPENDS and isinstance(before, list):
        value = [*before, *value]
    elif before is not None and before != value:
        earlier = reading.seen.get(path, "the first")
        entry.add("changed", earlier, f"`{source}` comes later and wins, as in the engine", line)

    if path == "memory.tensor_overrides":
        value, note = _clean_overrides(value, entry, line), note
        if not value:
            return

    if path == "chat.template_kwargs" and isinstance(before, dict) and isinstance(value, dict):
        value = {**before, **value}

    put(entry.document, path, value)
    reading.seen[path] = source
    entry.add("changed" if note else "kept", source, f"{path}{f': {note}' if note else ''}", line)


def _clean_overrides(value: list[str], entry: ImportEntry, line: int) -> list[str]:
    kept = []
    for part in value:
        if "=" not in part or part.startswith("-") or re.search(r"=.*[=\s]", part.strip()):
            entry.add("lost", f"--override-tensor {part}", "it is no `regex=buffer`, and the engine refuses it", line)
            continue

        if part != part.strip() or part.startswith(" "):
            said = "it begins with a space, so that the engine never finds such a tensor; written without"
            entry.add("guessed", f"--override-tensor `{part}`", said, line)

        kept.append(part.strip())

    return kept


def _read_speculation(flag: str, value: str | None, line: int, reading: _Reading) -> bool:
    valued = flag in ("--spec-type", "--spec-stage")
    document = reading.entry.document
    source = _shown(reading.written, value if valued else None)
    read = read_spec_type(value or "", look(document, "speculative.type")) if valued else read_spec_type("mtp", None)
    if read.fault:
        reading.entry.add("lost", source, f"`speculative.type`: {read.fault}", line)
        return valued

    for path, found in read.settings.items():
        put(document, path, found)

    text = ", ".join(read.settings)
    reading.entry.add(
        "changed" if read.note else "kept", source, f"{text}{f': {read.note}' if read.note else ''}", line
    )
    return valued


def _read_other(flag: str, value: str | None, line: int, reading: _Reading) -> bool:
    entry, source = reading.entry, _shown(reading.written, value)
    if flag in NEEDLESS:
        entry.add("changed", source, NEEDLESS[flag], line)
        return True

    refused = find_refused_flags([flag])
    if refused:
        lost = flag in _LOST or flag.startswith(("--mcp", "--tools", "--api-key"))
        entry.add("lost" if lost else "changed", source, f"{refused[0].reason}", line)
        return True

    if is_secret_flag(flag):
        entry.add("lost", source, "a secret is never copied; keys of clients belong to `gateway.api_key_file`", line)
        return True

    if re.fullmatch(r"--?[A-Za-z][\w-]*", flag) is None:
        entry.add("lost", source, "neither engine has such a flag", line)
        return True

    if value is not None and unresolved(value):
        entry.add("lost", source, f"the source does not say what {', '.join(unresolved(value))} is", line)
        return True

    table = entry.document.setdefault("engine", {}).setdefault(reading.engine, {})
    table.setdefault("extra_args", []).extend([flag] if value is None else [flag, value])
    known = reading.engine in ENGINES_OF.get(flag, ())
    said = "there is no setting for it" if known else "no known build has it, and one that has not does not start"
    entry.add("kept" if known else "guessed", source, f"engine.{reading.engine}.extra_args: {said}", line)
    return True
