"""What an import says: each thing of the source that was kept, changed, guessed or lost, with its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Fate = Literal["kept", "changed", "guessed", "lost"]


class ImportFinding(NamedTuple):
    """One thing of the source and what became of it.

    :param source: as it is written there, without secrets
    :param line: in the source, from 1; None where no line says it
    """

    fate: Fate
    source: str
    text: str
    line: int | None = None


class SourceWord(NamedTuple):
    """One argument of a command line, quotes and variables resolved, and the line that it stands in."""

    text: str
    line: int


@dataclass(slots=True)
class ImportEntry:
    """One model that the source starts.

    :param name: of the profile
    :param line: where it begins in the source
    :param document: the profile, as `tomllib` would give it; empty where none can be made
    :param refusal: why there is no profile; empty where there is one
    :param repository: where its model comes from, `ORG/REPO[:QUANT]`, when the source names no file
    :param repository_file: its path there, where the source says that
    :param arguments: what the source passes to the server, for comparing
    """

    name: str
    line: int
    engine: str = "upstream"
    document: dict[str, Any] = field(default_factory=dict)
    findings: list[ImportFinding] = field(default_factory=list)
    refusal: str = ""
    arguments: tuple[str, ...] = ()
    repository: str = ""
    repository_file: str = ""

    def add(self, fate: Fate, source: str, text: str, line: int | None = None) -> None:
        self.findings.append(ImportFinding(fate, source, text, line))


@dataclass(slots=True)
class ImportResult:
    """Everything that one source became.

    :param kind: of the source, for people
    :param findings: about the source as a whole
    :param config: keys of `orch.toml` that belong to it, dotted
    """

    kind: str
    entries: list[ImportEntry] = field(default_factory=list)
    findings: list[ImportFinding] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def add(self, fate: Fate, source: str, text: str, line: int | None = None) -> None:
        self.findings.append(ImportFinding(fate, source, text, line))


def put(document: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key of a document, making its tables; what follows a free table's name is one key."""
    table, dot, rest = key.partition(".")
    if dot:
        document.setdefault(table, {})[rest] = value
    else:
        document[table] = value


def drop(document: dict[str, Any], key: str) -> object:
    """Remove a dotted key, and its table when that is empty; return what it was."""
    table, dot, rest = key.partition(".")
    if not dot:
        return document.pop(table, None)

    inner = document.get(table)
    if table == "engine":  # `engine.ID.key`
        rest = rest.partition(".")[0]

    if not isinstance(inner, dict):
        return None

    value = inner.pop(rest, None)
    if not inner:
        del document[table]

    return value


def look(document: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where it is not set."""
    table, dot, rest = key.partition(".")
    found = document.get(table)
    return (found.get(rest) if isinstance(found, dict) else None) if dot else found
