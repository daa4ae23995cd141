"""Command lines in shell scripts, Dockerfiles, notes and issues."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.importing.entries import import_server
from orchestrator.core.importing.findings import ImportResult
from orchestrator.core.importing.server_command import find_servers
from orchestrator.core.importing.words.shell_words import ShellReader, known_variables


def import_shell(text: str, variables: Mapping[str, str]) -> ImportResult:
    """Return a profile for each start of a server in a script.

    :param variables: what is set outside of it, such as HOME
    """
    result = ImportResult("shell script")
    servers = [
        server
        for command in ShellReader(known_variables(variables)).read(text)
        for server in find_servers(command)
        if server.arguments or server.environment
    ]
    for server in servers:
        result.entries.append(import_server(server, [entry.name for entry in result.entries]))

    return result
