"""systemd units and quadlets: `ExecStart=` split as systemd splits it, not as a shell does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orchestrator.core.importing.entries import import_server
from orchestrator.core.importing.findings import ImportEntry, ImportResult, SourceWord
from orchestrator.core.importing.names import slug
from orchestrator.core.importing.server_command import ServerCommand, enter_image, find_servers, read_mount
from orchestrator.core.importing.words.expansion import Variables, expand
from orchestrator.core.importing.words.shell_words import (
    Command,
    ReadBeside,
    ShellReader,
    call_arguments,
    environment_pairs,
    no_files,
)
from orchestrator.core.importing.words.unresolved import mark
from orchestrator.core.importing.words.word_reader import split_words

_SECTION = re.compile(r"\[([^\[\]]+)\]\s*")
_LINE = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*(.*)", re.DOTALL)
_KINDS = re.compile(r"^\[(Service|Container)\]\s*$", re.MULTILINE)
_SPECIFIERS = {"%h": "HOME", "%u": "USER"}


class _UnitLine(NamedTuple):
    section: str
    key: str
    value: str
    line: int


def is_unit(text: str) -> bool:
    """Return whether a text is a unit that starts something."""
    return _KINDS.search(text) is not None and text.lstrip("# \n\r\t;").find("#!") != 0 and not text.startswith("#!")


def import_unit(text: str, variables: Mapping[str, str], read_beside: ReadBeside = no_files) -> ImportResult:
    """Return a profile for each server that a unit starts."""
    result = ImportResult("systemd unit")
    lines = list(_read_lines(text))
    known: Variables = dict(variables)
    environment: list[tuple[str, str, int]] = []
    for each in lines:
        if not each.key:
            said = "systemd ignores it: it is no `KEY=VALUE`, and the line before it does not end with a backslash"
            result.add("lost", each.value[:80], said, each.line)
        elif each.key == "Environment":
            for word in split_words(each.value, each.line):
                name, _, value = _special(word.text, variables).partition("=")
                environment.append((name, value, each.line))
                known[name] = value
        elif each.key == "EnvironmentFile":
            _read_variables(each, known, environment, result, read_beside)

    for each in lines:
        if each.key == "ExecStart" and each.value:
            _import_start(each, known, environment, result, variables, read_beside)
        elif each.key in ("ExecStartPre", "ExecStartPost", "CPUAffinity", "Nice", "LimitMEMLOCK", "AllowedCPUs"):
            result.add("lost", f"{each.key}={each.value[:80]}", "`orch service` has units of its own", each.line)

    _import_quadlet(lines, known, environment, result, variables)
    return result


def _read_lines(text: str) -> Iterator[_UnitLine]:
    section, held, began = "", "", 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if held and re.match(r"\s*[#;]", line):
            held += "\n"  # a comment between continued lines
            continue

        if not held and (re.match(r"\s*([#;]|$)", line)):
            continue

        began = began if held else number
        if line.endswith("\\"):
            held += line[:-1] + " \n"
            continue

        whole, held = held + line, ""
        if (found := _SECTION.fullmatch(whole)) is not None:
            section = found[1]
        elif (pair := _LINE.fullmatch(whole)) is not None:
            yield _UnitLine(section, pair[1], pair[2].strip(), began)
        elif section in ("Service", "Container"):
            yield _UnitLine(section, "", whole.strip(), began)

    if held and (pair := _LINE.fullmatch(held)) is not None:
        yield _UnitLine(section, pair[1], pair[2].strip(), began)


def _special(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its specifiers replaced: `%h` is a folder, `%i` is unknown."""

    def value(found: re.Match[str]) -> str:
        name = _SPECIFIERS.get(found[0])
        return "%" if found[0] == "%%" else variables.get(name or "", mark(found[0]))

    return re.sub(r"%[%A-Za-z]", value, text)


def _words(each: _UnitLine, known: Variables, variables: Mapping[str, str]) -> list[SourceWord]:
    """Return the words of a command line; a variable that stands alone may hold several."""
    words: list[SourceWord] = []
    for word in split_words(_special(each.value, variables), each.line):
        if re.search(r"\s", word.text):  # quoted: a script for `sh -c`, or a value
            words.append(word)
            continue

        alone = re.fullmatch(r"\$[A-Za-z_]\w*", word.text) is not None
        text = expand(word.text.replace("$$", "\x03"), known, quoted=not alone)
        words += [SourceWord(part, word.line) for part in text.split("\x02") if part or not alone]

    return words


def _read_variables(
    each: _UnitLine,
    known: Variables,
    environment: list[tuple[str, str, int]],
    result: ImportResult,
    read_beside: ReadBeside,
) -> None:
    """Read an `EnvironmentFile=`; without the file, its variables are lost."""
    text = read_beside(expand(each.value.lstrip("-"), known, quoted=True))
    if text is None:
        said = "its variables are not known: give them with `--var`, or put the file beside this one"
        result.add("lost", f"EnvironmentFile={each.value}", said, each.line)
        return

    for name, value in environment_pairs(text):
        environment.append((name, value, each.line))
        known[name] = value


def _import_start(
    each: _UnitLine,
    known: Variables,
    environment: list[tuple[str, str, int]],
    result: ImportResult,
    variables: Mapping[str, str],
    read_beside: ReadBeside,
) -> None:
    words = _words(each, known, variables)
    if words:
        words[0] = SourceWord(words[0].text.lstrip("-@:+!"), words[0].line)

    command = Command(words, list(environment), read_beside)
    servers = find_servers(command, known) if words else []
    if words and not servers and (text := read_beside(words[0].text)) is not None:
        reader = ShellReader({**known, **call_arguments([word.text for word in words[1:]])}, read_beside=read_beside)
        servers = [server for started in reader.read(text) for server in find_servers(started, known)]
        for server in servers:
            server.line, server.environment = each.line, [*environment, *server.environment]
            server.arguments = [SourceWord(word.text, each.line) for word in server.arguments]

    for server in servers:
        result.entries.append(import_server(server, [entry.name for entry in result.entries]))

    if not servers and words:
        entry = ImportEntry(slug(words[0].text.rpartition("/")[2]), each.line)
        entry.refusal = f"it starts `{words[0].text}`: import that script, if it starts a server"
        result.entries.append(entry)


def _import_quadlet(
    lines: list[_UnitLine],
    known: Variables,
    environment: list[tuple[str, str, int]],
    result: ImportResult,
    variables: Mapping[str, str],
) -> None:
    inside = [each for each in lines if each.section == "Container"]
    image = next((each for each in inside if each.key == "Image"), None)
    if image is None:
        return

    command = next((each for each in inside if each.key == "Exec"), None)
    entrypoint = next((each.value for each in inside if each.key == "Entrypoint"), "")
    server = ServerCommand(image.line, image.value, [], list(environment), container=True)
    volumes = [each.value for each in inside if each.key == "Volume"]
    server.mounts = [found for value in volumes if (found := read_mount("-v", _special(value, variables))) is not None]
    enter_image(server, _words(command, known, variables) if command else [], image.value, entrypoint)
    result.entries.append(import_server(server, [entry.name for entry in result.entries]))
