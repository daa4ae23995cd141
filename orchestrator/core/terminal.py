"""Text that others wrote, made safe to show: nothing in it moves a cursor, sets a title or reorders what is read."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor (ECMA-48 5.4)
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC: titles, clipboard, links
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two-character escapes
)

_VISIBLE: dict[int, int] = {
    **{code: 0x2400 + code for code in range(0x20) if code != 0x09},  # U+2400: pictures of the control characters
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),  # C1: U+009B alone begins a sequence
    **dict.fromkeys((0x2028, 0x2029), 0xFFFD),  # they would make two lines of one
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),  # they reorder what is read
}


def neutralise(text: str) -> str:
    """Return one line without anything that a terminal would obey."""
    if text.isprintable():
        return text

    return _SEQUENCE.sub("", text).translate(_VISIBLE)


def neutralise_lines(text: str) -> str:
    """Return a text of several lines, each neutralised; the line ends stay."""
    return "\n".join(neutralise(line) for line in text.split("\n"))


def quote_text(text: str, limit: int | None = None) -> str:
    """Return a text as a message quotes it: at most `limit` characters, those that are not printable escaped."""
    short = text if limit is None or len(text) <= limit else text[: limit - 3] + "..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)
