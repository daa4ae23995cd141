"""Peel what others put around an engine's lines, in logs that people paste: docker, journald, ollama, a web page.

The daemon reads its engines' own pipes, where nothing of this is. For `orch explain` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.engine_log.lines import (
    ENGINE_PREFIXES,
    MAX_TEXT,
    NO_MESSAGE,
    Message,
    is_part_of_document,
    peel,
    read_fork_server,
    read_record,
    without_sequences,
)
from orchestrator.core.engine_log.parser import LogParser

_COLOUR = re.compile(r"\[(?:\d{1,3}(?:;\d{1,3})*)?m")
"""A colour whose escape character was lost on the way to a page."""

_OLLAMA_SAYS = (
    r"(?:llama(?: runner|-server) process has terminated: "
    r"|llama(?: runner|-server) startup failed(?: before [^:\"]{1,80})?: "
    r"|llama(?: runner|-server) reported [^:\"]{1,60} during startup: "
    r"|timed out waiting for llama(?: runner|-server) to start(?: -|:) (?=\S)"
    r"|error (?:loading|starting) llama(?: runner| server|-server): )"
)
"""What ollama puts before its engine's own words; one such may stand before another."""

_ERROR_TO_CLIENT = r"(?:Error: )?(?:\d{3} [A-Z][\w ]+: )?"

_PREFIX = re.compile(
    "|".join(
        (
            r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S* (?:std(?:out|err) [FP] )?",  # ISO 8601; Kubernetes
            r"\d{8} \d\d:\d\d:\d\d\S*(?: UTC)?(?: \d+)? ",  # cortex
            r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? ",  # syslog and journald
            r"(?:[\w.-]+ )?[\w@.\\x-]+\[\d+\]: ",  # the host and unit behind it
            r"(?:(?:llama|ollama|systemd|kernel)[\w@.-]*)(?:\[\d+\])?: (?=\S+: )",
            r"\[\d{1,2}:\d\d:\d\d[^\]]{0,16}\] ",
            r"\[? *\d{2,10}(?:\.\d+)?\] +",  # dmesg's seconds, a time stamp
            r"\[\d{4}-[^\]]{6,40}\] ?",
            r"\[(?i:debug|info|warn|warning|error|err|stdout|stderr|server|llama[\w. -]*|lm ?studio[\w ]*)\]:? ?",
            r"(?:\d\d:\d\d:\d\d )?[\w.@-]+ *\| (?=\S| )",  # compose, swarm and foreman: `name  | `
            r"\[?pod/[^\] ]{1,200}\]? ",  # kubectl logs --prefix
            r"\d{1,2}:\d\d(?::\d\d)?(?:[AP]M)? (?:DBG|INF|WRN|ERR|DEBUG|INFO|WARN|ERROR) ",
            r"(?:DBG|INF|WRN|ERR) ",
            r"- (?:[\w.]+ - )?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) - ",  # Python's logging
            r"GRPC\([^)]{1,80}\): std(?:out|err) ",  # LocalAI
            r"std(?:out|err): ",
            r"[\w.-]+\.exe *: ",  # PowerShell relaying a native program's stderr
            r"(?:Error: )?llama\.cpp(?: error)?: '?(?=\w)",  # LM Studio
            _ERROR_TO_CLIENT + _OLLAMA_SAYS + r"(?:exit status \w+:? (?=\S)|signal: \w+ (?=\S))?",
            *ENGINE_PREFIXES,
        )
    )
)
"""Most specific first."""

_LOGFMT = re.compile(r"(?:\S+ +){0,2}?(?:time|ts|t|level|lvl|msg|source)=")
_LOGFMT_VALUE = re.compile(r"\b(?:msg|error|err|line|stderr)=\"((?:[^\"\\]|\\.)*)\"")

_RECORD_KEYS = ("msg", "message", "log", "MESSAGE")
_RECORD_MARKS = frozenset(
    {"level", "type", "lvl", "stream", "PRIORITY", "_PID", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "__REALTIME_TIMESTAMP"}
)
"""Keys of a log record: docker's, Kubernetes', supervisors', and those of `journalctl -o json`."""

_RELAYED = re.compile(
    r"(?:\S+ ){0,5}?time=\S+ level=\w+ .*\b(?:msg|error)=\"llama(?: runner|-server) process has terminated: "
    r"(?P<lines>(?:[^\"\\]|\\.)*)\""
)
"""ollama quotes the last error lines of its child, several in one value."""

_RETURNED = re.compile(
    r"(?:\{ ?\"error\": ?(?:\{ ?(?:\"(?:code|type)\": ?[^,{]{1,60}, ?)*\"message\": ?)?)?\""
    rf"(?P<lines>{_ERROR_TO_CLIENT}{_OLLAMA_SAYS}(?:[^\"\\]|\\.)*)\""
)
"""The same as an answer to a client, which some post instead of the log."""

_IN_QUOTATION_MARKS = re.compile(r"\"[^\"]+\"?$")
"""The first line of a log that stands between quotation marks: not like a member of a document."""

_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")


def parse_pasted_log(lines: Sequence[str]) -> list[LogRecord]:
    """The records of a log that may have anything around its lines."""
    return list(LogParser(_read_wrapped).parse(_engine_lines(lines)))


def _engine_lines(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without what a comment puts around a whole log, and those that ollama quotes in one."""
    cleaned = [_COLOUR.sub("", without_sequences(line.rstrip("\r\n"))) for line in lines]
    written = [line for line in cleaned if line.strip()]
    quoted = sum(line.lstrip().startswith(">") for line in written) * 2 > len(written)
    if written and (returned := _RETURNED.match(" ".join(written[:8]).lstrip())):
        yield from ((0, line) for line in _quoted_lines(returned))

    in_quotation_marks = written and _IN_QUOTATION_MARKS.match(written[0]) and written[-1].endswith('"')
    for number, line in enumerate(cleaned):
        text = line.lstrip().lstrip("> ") if quoted and line.lstrip().startswith(">") else line
        if number == 0 and text.startswith("`"):
            text = text.strip("`")  # a code span; a fence becomes an empty line
        elif in_quotation_marks:
            text = text.strip('"')

        relayed = _RELAYED.match(text.lstrip()) if " process has terminated: " in text else None
        if relayed is not None:
            yield from ((number, line) for line in _quoted_lines(relayed))

        yield number, text


def _quoted_lines(found: re.Match[str]) -> list[str]:
    """The engine's own lines in what ollama says of it."""
    return [without_sequences(line.removeprefix("exit status 1: ")) for line in _unescape(found["lines"]).split("\n")]


def _read_wrapped(line: str, nested: int = 2) -> Message:
    """Take a line apart as `lines.read_message` does, and what is around it.

    :param nested: records inside of records that are still opened
    """
    if is_part_of_document(line):
        return NO_MESSAGE

    texts, level = peel(line[:MAX_TEXT], _PREFIX)
    last = texts[-1]
    record_level: str | None = None
    if last.startswith("{"):
        # Peeling cuts from the front alone: the whole record is the tail of the line.
        message, record_level = read_record(line[line.index("{") :], _RECORD_KEYS, _RECORD_MARKS)
        texts, inner = texts[:-1], [message] if message else []
    elif _LOGFMT.match(last) or _LOGFMT.match(line):
        # Only the values of known keys: a supervisor prints requests into others.
        inner = [_first_line(found) for found in _LOGFMT_VALUE.findall(line)]
        texts = (" ".join(inner),) if len(inner) > 1 else ()  # the first text is where words of failures are looked for
    else:
        return read_fork_server(last) or read_fork_server(line) or Message(texts, level)

    for message in inner:
        if nested and message.strip():
            deeper = _read_wrapped(message.strip(), nested - 1)
            texts += deeper.texts
            record_level = record_level or deeper.level

    return Message(texts, record_level or level)


def _first_line(text: str) -> str:
    """The first line of Go's %q, without what a terminal would act on."""
    return without_sequences(_unescape(text).strip().partition("\n")[0])


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r"}.get(found[3], found[3])

    return _ESCAPED.sub(character, text)
