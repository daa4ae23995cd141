"""The text that the known model recites, and the words it is cut into."""

from __future__ import annotations

import re

TEXT = (
    "Even a small machine can hold a large thought if every part of it waits for its turn. The card keeps "
    "the layers that are always busy, the host keeps the experts that sleep, and a quiet loop carries "
    "numbers between both of them. Nothing here is magic: memory is counted, time is measured, and "
    "whatever does not fit is moved one step further away.\n\n"
    "When a process dies the supervisor reads its last words before it tries again. It asks how many "
    "bytes were wanted, how many remained, and which of the two engines wanted them. A larger margin may "
    "help; sometimes only a shorter context will. Either way the answer is written down, so that tomorrow "
    "begins where today survived.\n\n"
    "Meanwhile somebody is still waiting at the door. The gateway holds each request in order, tells the "
    "patient ones that work goes on, and lets those who leave go quietly. Then the new engine wakes, "
    "proves itself with a single token, and takes over without a sound. Not one sentence was lost.\n\n"
    "Speed comes last, because speed without truth is noise. Draft three words, check them at once, keep "
    "the prefix that agrees, and throw the rest away. Measure twice, alternate the order, report the "
    "spread, and never trust a number that nobody could have repeated. This is how slow hardware learns "
    "to answer quickly.\n\n"
)
"""A person should be able to read what a test prints. Written for this project; its meaning does not matter."""

_WORD = re.compile(r" ?[^ \n]+\n*")


def cut(text: str) -> tuple[str, ...]:
    """Cut a text into pieces that all differ: a word that was there before is joined to the words after it.

    A model that knows only its last token can then recite the text: each piece has one place in it.

    :raises ValueError: when the end of the text is a repetition
    """
    pieces: list[str] = []
    seen: set[str] = set()
    piece = ""
    for word in _WORD.findall(text):
        piece += word
        if piece not in seen:
            seen.add(piece)
            pieces.append(piece)
            piece = ""

    if piece:
        raise ValueError(f"the text ends with a piece that it had before: {piece!r}")

    return tuple(pieces)
