"""Command lines in shell scripts, Dockerfiles, notes and issues."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.importing.entries import import_server
from orchestrator.core.importing.findings import ImportResult
from orchestrator.core.importing.server_command import ServerCommand, find_servers
from orchestrator.core.importing.words.shell_words import ReadBeside, ShellReader, no_files
from orchestrator.core.importing.words.unresolved import unresolved


def import_shell(text: str, variables: Mapping[str, str], read_beside: ReadBeside = no_files) -> ImportResult:
    """Return a profile for each start of a server in a script.

    :param variables: what is set outside of it, such as HOME
    :param read_beside: for the files that it takes in or runs
    """
    result = ImportResult("shell script")
    reader = ShellReader(dict(variables), read_beside=read_beside)
    servers = [server for command in reader.read(text) for server in find_servers(command) if _says_something(server)]
    for case, word, line in reader.chosen if servers else ():
        said = f"`{word}` is what the script takes by itself: its other branches are not read (`--var` gives another)"
        result.add("guessed", case, said, line)

    for server in servers:
        result.entries.append(import_server(server, [entry.name for entry in result.entries]))

    return result


def _says_something(server: ServerCommand) -> bool:
    """Return whether a program is given a flag: a server without is a name in a sentence, or in a message."""
    return any(word.text.startswith("-") or unresolved(word.text) for word in server.arguments) or any(
        name.startswith("LLAMA_ARG_") for name, _, _ in server.environment
    )
