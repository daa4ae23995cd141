"""What an engine wrote, apart from what others put around it and from what clients made it print.

An engine's own line is known by where it begins: a signature matches from the first character of the message, after
wrappers (docker, journald, a router's `[51234]`, a supervisor's logfmt or JSON) and the engine's own prefix are off. A
client's text is inside a line, or on bare lines after one that is known to print client text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_TEXT = 4096
"""Characters of a line that are looked at: signatures match from the beginning."""

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""CSI, OSC and other string sequences, lone escapes, control characters but tab and newline, direction overrides."""

_COLOUR = re.compile(r"\[(?:\d{1,3}(?:;\d{1,3})*)?m")
"""A colour whose escape character was lost on the way to a page."""

_ENGINE_PREFIX = re.compile(r"(?:\d+\.\d{2}\.\d{3}\.\d{3} +(?P<stamped>[IWETD])|(?P<bare>[IWETD])) +(?=\S)")
"""Upstream since b9246 (`0.00.220.380 E `), and older builds or copies of it without the time."""

_OLLAMA_SAYS = r"llama(?: runner|-server) process has terminated: "

_STAMP = re.compile(r"\b(\d+)\.(\d{2})\.(\d{3})\.(\d{3}) +[IWETD] ")

_WRAPPERS = re.compile(
    "|".join(
        (
            r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S* (?:std(?:out|err) [FP] )?",  # ISO 8601; Kubernetes
            r"\d{8} \d\d:\d\d:\d\d\S*(?: UTC)?(?: \d+)? ",  # cortex
            r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? ",  # syslog and journald
            r"(?:[\w.-]+ )?[\w@.\\x-]+\[\d+\]: ",  # the host and unit behind it
            r"(?:(?:llama|ollama|systemd|kernel)[\w@.-]*)(?:\[\d+\])?: (?=\S+: )",
            r"\[\d{1,2}:\d\d:\d\d[^\]]{0,16}\] ",
            r"\[? *\d{2,10}(?:\.\d+)?\] +",  # the router's port, dmesg's seconds, a time stamp
            r"\[\d{4}-[^\]]{6,40}\] ?",
            r"\[(?i:debug|info|warn|warning|error|err|stdout|stderr|server|llama[\w. -]*|lm ?studio[\w ]*)\]:? ?",
            r"(?:\d\d:\d\d:\d\d )?[\w.-]+ *\| (?=\S| )",  # compose and foreman: `name  | `
            r"\d{1,2}:\d\d(?::\d\d)?(?:[AP]M)? (?:DBG|INF|WRN|ERR|DEBUG|INFO|WARN|ERROR) ",
            r"(?:DBG|INF|WRN|ERR) ",
            r"- (?:[\w.]+ - )?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) - ",  # Python's logging
            r"(?:DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)(?: - |: +|\s+(?!\[))",
            r"GRPC\([^)]{1,80}\): std(?:out|err) ",  # LocalAI
            r"std(?:out|err): ",
            r"(?:Error|error): (?=[a-z]+_\w+: )",  # a supervisor's, before the engine's own line
            r"[\w.-]+\.exe *: ",  # PowerShell relaying a native program's stderr
            r"(?:libc\+\+abi: )?terminating (?:due to|with) uncaught exception of type [\w:]+: (?=\S)",
            r"what\(\): +(?=\S)",
            r"(?:Error: )?llama\.cpp(?: error)?: '?(?=\w)",  # LM Studio
            r"(?:[\w.]+\.)?(?:ValueError|RuntimeError|OSError|Exception): ",  # a Python binding's
            r"(?:Error: )?(?:\d{3} [A-Z][\w ]+: )?"
            + _OLLAMA_SAYS
            + r"(?:exit status \w+:? (?=\S)|signal: \w+ (?=\S))?",
            r"(?:srv|slot|que|res|cmn|spec) +(?:operator \(\)|[\w~():<>,]+): +",  # upstream's server, by component
            r"id +-?\d+ \| task +-?\d+ \| +",
            r"(?:[A-Za-z]\w*_\w*|\w+(?:::[\w~]+)+|operator\(\)|main|init|start|load)(?:\(\))? ?: +",  # `%s: `, __func__
        )
    )
)
"""What others put before a line, most specific first."""

_IK_SERVER = re.compile(r"(?P<level>INFO|WARN|ERR|VERB|ERROR|WARNING) *\[ *\w+\] +(?P<message>.*?)(?: +\| +tid=.*)?$")
"""The fork's server: what follows `| tid=` are values, a client's text among them."""

_LOGFMT = re.compile(r"(?:\S+ +){0,2}?(?:time|ts|t|level|lvl|msg|source)=")
_LOGFMT_VALUE = re.compile(r"\b(?:msg|error|err|line|stderr)=\"((?:[^\"\\]|\\.)*)\"")

_RELAYED = re.compile(
    r"(?:\S+ ){0,5}?time=\S+ level=\w+ .*\b(?:msg|error)=\"" + _OLLAMA_SAYS + r"(?P<said>(?:[^\"\\]|\\.)*)\""
)
"""ollama quotes the last error lines of its child, several in one value."""

_RETURNED = re.compile(r"(?:\{\"error\": ?(?:\{\"message\": ?)?)?\"" + _OLLAMA_SAYS + r"(?P<said>(?:[^\"\\]|\\.)*)\"")
"""The same as an answer to a client, which some post instead of the log."""

_SPOKEN = re.compile(r"\"[^\"]+\"?$")
"""How a log begins that stands between quotation marks: not like a member of a document."""

_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")

_JSON_LEVELS = {"error": "E", "warn": "W", "info": "I", "debug": "D", "trace": "T"}
"""Upstream's `--log-jsonl`."""

_ECHO = re.compile(
    r"(?:Parsing (?:input|chat message|PEG input)\b|Parsed message\b|=== BEGIN ===|(?:formatted |full )?prompt *[:=]"
    r"|Prompt *[:=]|(?:converted )?request: (?![A-Z]+ /\S* \S+ \d{3}$)"  # not a line of the access log
    r"|response: |data stream\b|generated text|Generated: |input *: '"
    r"|(?:prompt|cache) token +\d+: +-?\d+ '|n_decoded = .*next token: +-?\d+ '|next token: +-?\d+ '"
    r"|(?:chat template, .*|chat_example.*|example_format.*|built_in.*): '|launching slot\b|tokens: |Grammar\b"
    r"|full \S.* output triggering error:)",
    re.IGNORECASE,
)
"""Lines of both engines that print client text, template text or model output, which may run over several lines."""

_SERVER_HEAD = re.compile(r"(?:srv|slot|que|res|cmn|main)\b[ :]|(?:INFO|WARN|ERR|VERB) *\[")


@dataclass(frozen=True, slots=True)
class EngineLine:
    """One line.

    :param raw: as it stood, without terminal sequences
    :param texts: what a signature may match: the line, then with one wrapper more removed each
    :param level: the engine's own level, I W E T or D, where it printed one
    :param gap: `[...]`: lines were left out here
    """

    number: int
    raw: str
    texts: tuple[str, ...]
    level: str | None
    gap: bool = False


def without_sequences(text: str) -> str:
    """The text without anything that a terminal would act on: shorter than `terminal.neutralise`, which shows it.

    What is matched and quoted is the message alone, and a pattern is no place for pictures of control characters.
    """
    return _SEQUENCES.sub("", text)


def read_lines(lines: Sequence[str]) -> list[EngineLine]:
    """The engine's own lines; lines that repeat client text are left out."""
    result = []
    echo: _Echo | None = None
    for number, raw in _as_printed(lines):
        stripped = raw.strip()
        if stripped in ("[...]", "..."):
            result.append(EngineLine(number, raw, (), None, gap=True))
            continue

        texts, level = _read(stripped)
        if echo is not None:
            if not echo.ended_by(stripped, level, texts):
                continue

            echo = None

        opener = next((text for text in texts if _ECHO.match(text)), None)
        if opener is not None:
            echo = _Echo.after(opener, stamped=level is not None, began=_stamp(stripped))
            continue

        if texts:
            result.append(EngineLine(number, raw, texts, level))

    return result


def _as_printed(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Numbered lines, without terminal sequences and without what a comment puts around a whole log."""
    cleaned = [_COLOUR.sub("", without_sequences(line.rstrip("\r\n"))) for line in lines]
    written = [line for line in cleaned if line.strip()]
    quoted = sum(line.lstrip().startswith(">") for line in written) * 2 > len(written)
    if written and (returned := _RETURNED.match(" ".join(written[:8]).lstrip())):
        yield from ((0, said) for said in _said(returned))

    spoken = written and _SPOKEN.match(written[0]) and written[-1].endswith('"')
    for number, line in enumerate(cleaned):
        text = line.lstrip().lstrip("> ") if quoted and line.lstrip().startswith(">") else line
        if number == 0 and text.startswith("`"):
            text = text.strip("`")  # a code span; a fence becomes an empty line
        elif spoken:
            text = text.strip('"')

        relayed = _RELAYED.match(text.lstrip()) if " process has terminated: " in text else None
        if relayed is not None:
            yield from ((number, said) for said in _said(relayed))

        yield number, text


def _said(relayed: re.Match[str]) -> list[str]:
    """The engine's own lines in what ollama says of it."""
    return [without_sequences(said.removeprefix("exit status 1: ")) for said in _unescape(relayed["said"]).split("\n")]


@dataclass(slots=True)
class _Echo:
    """Client text that goes on until the engine's next own line.

    :param quoted: it began with a quote that is still open
    :param stamped: the log carries upstream's prefix, so that a line without it cannot begin a message
    :param began: column and time of the line that opened it: a log that a client pasted begins elsewhere, or earlier
    """

    quoted: bool
    stamped: bool
    marked: bool
    began: tuple[int, int] | None

    @classmethod
    def after(cls, opener: str, *, stamped: bool, began: tuple[int, int] | None) -> _Echo | None:
        """What a line leaves open; None when its text ended with it."""
        marked = "BEGIN ===" in opener or opener.endswith("triggering error:")
        body = opener[:MAX_TEXT].rstrip()
        if body.endswith(("}", "]", "[DONE]")) and not marked:
            return None

        quoted = body.count(": '") > 0 and not (body.endswith("'") and len(body.partition(": '")[2]) > 1)
        closed = body.endswith("'") and not quoted
        return None if closed and not marked else cls(quoted, stamped, marked, began)

    def ended_by(self, stripped: str, level: str | None, texts: tuple[str, ...]) -> bool:
        if self.marked:
            return stripped.startswith("=== END")

        if self.stamped and self.began is not None and (stamp := _stamp(stripped)) is not None:
            return stamp[0] == self.began[0] and stamp[1] >= self.began[1]

        if self.stamped:
            return level is not None

        if self.quoted and stripped.endswith("'"):
            self.quoted = False
            return False

        return any(_SERVER_HEAD.match(text) for text in texts)


def _stamp(stripped: str) -> tuple[int, int] | None:
    """Where upstream's time stands in a line, and the time, microseconds since the engine started."""
    found = _STAMP.search(stripped, 0, 400)
    if found is None:
        return None

    minutes, seconds, millis, micros = map(int, found.groups())
    return found.start(), ((minutes * 60 + seconds) * 1000 + millis) * 1000 + micros


def _read(stripped: str, nested: int = 2) -> tuple[tuple[str, ...], str | None]:
    """What a signature may match in a line, and the engine's own level.

    :param nested: records inside of records that are still opened
    """
    if stripped.startswith(('"', "data: ")):
        return (), None  # a member of a request printed over several lines, or an event of a stream

    texts: list[str] = []
    level: str | None = None
    for text, found in _peel(stripped[:MAX_TEXT]):
        level = level or found
        texts.append(text)

    last = texts[-1]
    if last.startswith("{"):
        # Peeling cuts from the front alone: the whole record is the tail of the line.
        inner, inner_level = _read_record(stripped[stripped.index("{") :])
    elif _LOGFMT.match(last) or _LOGFMT.match(stripped):
        # Only the values of known keys: a supervisor prints requests into others.
        values = [_unquote(found) for found in _LOGFMT_VALUE.findall(stripped)]
        inner, inner_level, texts = values, None, []
    elif server := _IK_SERVER.match(last) or _IK_SERVER.match(stripped):
        return (server["message"],), None
    else:
        return tuple(texts), level

    if last.startswith("{"):
        texts.pop()

    for message in inner:
        if nested and message.strip():
            deeper, deeper_level = _read(message.strip(), nested - 1)
            texts += deeper
            inner_level = inner_level or deeper_level

    return tuple(texts), inner_level or level


def _unquote(text: str) -> str:
    """The first line of Go's %q, without what a terminal would act on."""
    return without_sequences(_unescape(text).strip().partition("\n")[0])


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r"}.get(found[3], found[3])

    return _ESCAPED.sub(character, text)


def _peel(text: str) -> Iterator[tuple[str, str | None]]:
    yield text, None
    for _ in range(10):
        prefix = _ENGINE_PREFIX.match(text)
        if prefix is not None:
            text = text[prefix.end() :].strip()
            yield text, prefix["stamped"] or prefix["bare"]
            continue

        match = _WRAPPERS.match(text)
        if match is None:
            return

        text = text[match.end() :].strip()
        if not text:
            return

        yield text, None


def _read_record(text: str) -> tuple[list[str], str | None]:
    """A structured log record gives its message; any other document is a request or an answer, and gives nothing."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return [], None

    if not isinstance(record, dict) or not {"level", "type", "lvl", "stream"} & record.keys():
        return [], None

    message = next((record[key] for key in ("msg", "message", "log") if isinstance(record.get(key), str)), None)
    if message is None:
        return [], None

    # Of a message of several lines the first is the engine's, the others are what it quotes.
    level = _JSON_LEVELS.get(str(record.get("level", "")).lower()) if record.get("type") == "log" else None
    return [without_sequences(message.strip().partition("\n")[0])], level
