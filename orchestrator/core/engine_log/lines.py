"""One line of an engine, apart from the prefixes that the engine itself puts before its message.

Signatures match from the first character of a message, after the engine's time and level, the name of its function and
the like: a client's text is inside a line, or on lines of its own (`client_text.py`).
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

MAX_TEXT = 4096
"""Characters of a line that are looked at: signatures match from the beginning."""

MAX_PREFIXES = 10

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""CSI, OSC and other string sequences, lone escapes, control characters but tab and newline, direction overrides."""

_LEVEL = re.compile(r"(?:\d+\.\d{2}\.\d{3}\.\d{3} +(?P<stamped>[IWETD])|(?P<bare>[IWETD])) +(?=\S)")
"""Upstream since b9246 (`0.00.220.380 E `), and older builds or copies of it without the time."""

ENGINE_PREFIXES = (
    r"(?:llama[\w.-]*): (?=\S+: )",  # the program's name, before glibc's failed assertion
    r"\[ *\d{2,5}\] +",  # the port of the child whose line upstream's router relays
    r"(?:DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)(?: - |: +|\s+(?!\[))",
    r"(?:Error|error): (?=[a-z]+_\w+: )",
    r"(?:libc\+\+abi: )?terminating (?:due to|with) uncaught exception of type [\w:]+: (?=\S)",
    r"what\(\): +(?=\S)",
    r"(?:[\w.]+\.)?(?:ValueError|RuntimeError|OSError|Exception): ",  # the embedded engine is a Python process
    r"(?:srv|slot|que|res|cmn|spec) +(?:operator \(\)|[\w~():<>,]+): +",  # upstream's server, by component
    r"id +-?\d+ \| (?:task +-?\d+ \| +)?",
    r"(?:[A-Za-z]\w*_\w*|\w+(?:::[\w~]+)+|operator\(\)|main|init|start|load)(?:\(\))? ?: +",  # `%s: `, __func__
)
"""Patterns of the engine's own prefixes but the level, most specific first."""

_PREFIX = re.compile("|".join(ENGINE_PREFIXES))

_FORK_SERVER = re.compile(r"(?P<level>INFO|WARN|ERR|VERB|ERROR|WARNING) *\[ *\w+\] +(?P<message>.*?)(?: +\| +tid=.*)?$")
"""The fork's server: what follows `| tid=` are values, a client's text among them."""

_RECORD_LEVELS = {"error": "E", "warn": "W", "info": "I", "debug": "D", "trace": "T"}
"""Upstream's `--log-jsonl`."""


class Message(NamedTuple):
    """The message of one line.

    :param texts: the parts that a row may match: the line, then with one prefix more removed each; none for a part of a
        document
    :param level: the engine's own, I W E T or D, where it printed one
    """

    texts: tuple[str, ...]
    level: str | None


NO_MESSAGE = Message((), None)


def without_sequences(text: str) -> str:
    """The text without anything that a terminal would act on: shorter than `terminal.neutralise`, which shows it.

    What is matched and quoted is the message alone, and a pattern is no place for pictures of control characters.
    """
    return text if text.isprintable() else _SEQUENCES.sub("", text)


def read_message(line: str) -> Message:
    """Take a line, without spaces around it, apart."""
    if is_part_of_document(line):
        return NO_MESSAGE

    if fork := read_fork_server(line):
        return fork

    texts, level = peel(line[:MAX_TEXT], _PREFIX)
    if texts[-1].startswith("{"):
        # Peeling cuts from the front alone: the whole record is the tail of the line.
        message, record_level = read_record(line[line.index("{") :], ("msg", "message"), frozenset({"level", "type"}))
        inner = read_message(message) if message and not message.startswith("{") else NO_MESSAGE
        return Message((*texts[:-1], *inner.texts), record_level or inner.level or level)

    return read_fork_server(texts[-1]) or Message(texts, level)


def is_part_of_document(line: str) -> bool:
    """True for a member of a request that is printed over several lines, and for an event of a stream."""
    return line.startswith(('"', "data: "))


def read_fork_server(text: str) -> Message | None:
    """A line of the fork's server, without its values; None for any other."""
    found = _FORK_SERVER.match(text)
    return Message((found["message"],), None) if found is not None else None


def peel(text: str, prefix: re.Pattern[str]) -> Message:
    """The text, then with one more prefix removed each.

    :param prefix: what is removed beside the engine's level
    """
    texts = [text]
    level: str | None = None
    for _ in range(MAX_PREFIXES):
        match = _LEVEL.match(text) or prefix.match(text)
        if match is None:
            break

        text = text[match.end() :].strip()
        if not text and match.re is prefix:
            break

        if match.re is _LEVEL:
            level = level or match["stamped"] or match["bare"]

        texts.append(text)

    return Message(tuple(texts), level)


def _text_of(value: object) -> str | None:
    """Return a text; journald gives one that is not UTF-8 as a list of bytes."""
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return bytes(value).decode("utf-8", errors="replace")

    return value if isinstance(value, str) else None


def read_record(text: str, keys: tuple[str, ...], marks: frozenset[str]) -> tuple[str | None, str | None]:
    """Read a structured log record; any other document is a request or an answer, and gives nothing.

    :param keys: under which a message may stand
    :param marks: keys of which a log record has at least one
    :return: the message's first line, the others are what it quotes; and the engine's level
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None, None

    if not isinstance(record, dict) or not marks & record.keys():
        return None, None

    message = next((found for key in keys if (found := _text_of(record.get(key))) is not None), None)
    if message is None:
        return None, None

    level = _RECORD_LEVELS.get(str(record.get("level", "")).lower()) if record.get("type") == "log" else None
    return without_sequences(message.strip().partition("\n")[0]).strip(), level
