"""The one reader of an engine's log: each line becomes a record with its events.

Lines that repeat a client's text become none. Logs that people paste have wrappers around each line: `wrappers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from orchestrator.core.engine_log.client_text import ClientTextFilter
from orchestrator.core.engine_log.events import FailureLine, LinesLeftOut, LogEvent, LogRecord, UnknownError
from orchestrator.core.engine_log.lines import Message, read_message, without_sequences
from orchestrator.core.engine_log.marks import MARK
from orchestrator.core.engine_log.signatures import PINNED, VULKAN_REASON, find_failure, is_harmless, is_suspicious
from orchestrator.core.engine_log.wording import find_events, find_exit, find_relayed_exit

GAP = "[...]"
"""In place of lines that were left out."""

_ERROR_WORDS = ("ERR ", "ERR[", "ERROR ", "ERROR:", "ERROR[", "Error:", "error:", "fatal:", "FATAL", "panic:")

_QUIET_LEVELS = frozenset("IDT")
"""The engine's own levels below warning: what fails is never told there, and client text is."""


class LogParser:
    """Reads lines in their order, and remembers what the earlier ones mean for the next.

    :param read: takes one line apart
    """

    def __init__(self, read: Callable[[str], Message] = read_message) -> None:
        self._read = read
        self._client_text = ClientTextFilter()
        self._after_pinned = False

    def parse(self, lines: Iterable[tuple[int, str]]) -> Iterator[LogRecord]:
        """Yield the records of these numbered lines, which follow those that were parsed before."""
        for number, raw in lines:
            text = without_sequences(raw)
            line = text.strip()
            if line.startswith(MARK):
                continue

            if line in (GAP, "..."):
                self._after_pinned = False
                yield LogRecord(number, text, None, (LinesLeftOut(),))
                continue

            message = self._read(line)
            if message.texts and not self._client_text.repeats_client(line, message):
                yield LogRecord(number, text, message.level, tuple(self._events(message, line)))

    def _events(self, message: Message, line: str) -> Iterator[LogEvent]:
        texts, level = message
        after_pinned, self._after_pinned = self._after_pinned, any(map(PINNED.match, texts))
        yield from find_events(texts)
        if level is not None:
            yield from find_relayed_exit(texts)

        if level in _QUIET_LEVELS:
            return

        if not is_suspicious(texts):
            if _is_error(line, texts, level):
                yield UnknownError()

            return

        if level is None:
            yield from find_exit(texts)

        if after_pinned and any(map(VULKAN_REASON.match, texts)):
            return

        found = find_failure(texts)
        if found is not None:
            signature, match = found
            values = match.groupdict()
            yield FailureLine(signature, values.get("device"), values.get("index"), _requested_mib(values))
        elif _is_error(line, texts, level) and not is_harmless(texts):
            yield UnknownError()


def _is_error(line: str, texts: Sequence[str], level: str | None) -> bool:
    """Return whether the engine, or a program around it, calls the line an error."""
    return level == "E" or (level is None and (texts[0].startswith(_ERROR_WORDS) or line.startswith(_ERROR_WORDS)))


def parse_log(lines: Iterable[str]) -> list[LogRecord]:
    """The records of an engine's whole log."""
    return list(LogParser().parse(enumerate(lines)))


def _requested_mib(values: dict[str, str | None]) -> float | None:
    mib = values.get("mib") or values.get("mib2")
    if mib:
        return float(mib)

    size = values.get("bytes")
    return round(int(size) / 2**20, 2) if size else None
