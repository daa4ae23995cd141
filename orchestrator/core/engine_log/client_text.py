"""The lines of a log that repeat a client's text: what stands there is no word of the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.core.engine_log.lines import MAX_TEXT, Message

_OPENER = re.compile(
    r"(?:Parsing (?:input|chat message|PEG input)\b|Parsed message\b|=== BEGIN ===|(?:formatted |full )?prompt *[:=]"
    r"|Prompt *[:=]|(?:converted )?request: (?![A-Z]+ /\S* \S+ \d{3}$)"  # not a line of the access log
    r"|response: |data stream\b|generated text|Generated: |input *: '"
    r"|(?:prompt|cache) token +\d+: +-?\d+ '|n_decoded = .*next token: +-?\d+ '|next token: +-?\d+ '"
    r"|(?:chat template, .*|chat_example.*|example_format.*|built_in.*): '|launching slot\b|tokens: |Grammar\b"
    r"|full \S.* output triggering error:)",
    re.IGNORECASE,
)
"""Lines of both engines that print client text, template text or model output, which may run over several lines."""

_SERVER_LINE = re.compile(r"(?:srv|slot|que|res|cmn|main)\b[ :]|(?:INFO|WARN|ERR|VERB) *\[")

_STAMP = re.compile(r"\b(\d+)\.(\d{2})\.(\d{3})\.(\d{3}) +[IWETD] ")


class ClientTextFilter:
    """Tells, line by line, which lines repeat a client's text."""

    def __init__(self) -> None:
        self._passage: _Passage | None = None

    def repeats_client(self, line: str, message: Message) -> bool:
        """True for a line that begins such a text or goes on with it.

        :param line: without spaces around it
        """
        if self._passage is not None:
            if not self._passage.ended_by(line, message):
                return True

            self._passage = None

        opener = next((text for text in message.texts if _OPENER.match(text)), None)
        if opener is None:
            return False

        self._passage = _open_passage(opener, stamped=message.level is not None, began=_stamp_of(line))
        return True


@dataclass(slots=True)
class _Passage:
    """Client text that goes on until the engine's next own line.

    :param quoted: it began with a quote that is still open
    :param stamped: the log carries upstream's prefix, so that a line without it cannot begin a message
    :param marked: the engine prints a line at its end
    :param began: column and time of the line that opened it: a log that a client pasted begins elsewhere, or earlier
    """

    quoted: bool
    stamped: bool
    marked: bool
    began: tuple[int, int] | None

    def ended_by(self, line: str, message: Message) -> bool:
        if self.marked:
            return line.startswith("=== END")

        if self.stamped and self.began is not None and (stamp := _stamp_of(line)) is not None:
            return stamp[0] == self.began[0] and stamp[1] >= self.began[1]

        if self.stamped:
            return message.level is not None

        if self.quoted and line.endswith("'"):
            self.quoted = False
            return False

        return any(map(_SERVER_LINE.match, message.texts))


def _open_passage(opener: str, *, stamped: bool, began: tuple[int, int] | None) -> _Passage | None:
    """The passage that a line leaves open; None when the client's text ended with it."""
    marked = "BEGIN ===" in opener or opener.endswith("triggering error:")
    body = opener[:MAX_TEXT].rstrip()
    if body.endswith(("}", "]", "[DONE]")) and not marked:
        return None

    quoted = body.count(": '") > 0 and not (body.endswith("'") and len(body.partition(": '")[2]) > 1)
    closed = body.endswith("'") and not quoted
    return None if closed and not marked else _Passage(quoted, stamped, marked, began)


def _stamp_of(line: str) -> tuple[int, int] | None:
    """The column of upstream's time in a line, and that time, microseconds since the engine started."""
    found = _STAMP.search(line, 0, 400)
    if found is None:
        return None

    minutes, seconds, millis, micros = map(int, found.groups())
    return found.start(), ((minutes * 60 + seconds) * 1000 + millis) * 1000 + micros
