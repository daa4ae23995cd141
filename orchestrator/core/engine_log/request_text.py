"""Takes what an engine prints of requests out of the log that is kept and shown.

At the verbosity that orch sets both engines print text of clients in a few places: the fork a piece of a prompt and of
the one before it where the two part, and a whole request that it cannot start; both a grammar that cannot be read. What
failures are read from (`parser.py`) is another copy, of this run alone, and stays as it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LEFT_OUT = "[text of a request, left out]"

MAX_PASSAGE_LINES = 2000
"""A longer one is taken for over: no wording that has changed may silence a log for good."""

_STAMP = r"\d+\.\d{2}\.\d{3}\.\d{3} [IWETD] "

_PASSAGE = re.compile(
    # The fork, of the prompt in a slot's cache and of the next one.
    r"(?:cache : |prompt: "
    # Both, from the library and from upstream's sampler; a schema on the way to a grammar.
    r"|parse: error parsing grammar: |Unrecognized schema: "
    rf"|(?:{_STAMP})?(?:common_sampler_init: error initializing grammar sampler for grammar:"
    # Upstream: a system prompt with a header that Claude Code writes; an answer that its parser has not understood.
    r"|anthropic string not as expected: |\w+: unparsed [^:]{1,80} output: ))"
)
"""The beginning of a text that may go on over the next lines."""

_INSIDE = re.compile(
    r"^ *ERR \[[ \w]{1,40}\] error while launching slot \|"  # the fork, before all fields of the request
    r"|\bdownloading image from '|\bunable to match sampler by name '|\blast read: '"
)
"""What a client's text follows to the end of its line."""

_SEARCHED = 600
"""Characters of a line in which the engine's own words are looked for."""

_OWN = re.compile(
    rf'{_STAMP}|(?:INFO|WARN| ?ERR|VERB) *\[ *\w+\] .* \| tid="\d+" timestamp=\d+|llama_grammar_init_impl: '
    r"|terminate called |(?:/|ggml)\S*:\d+: |CUDA error: |ggml_\w+: |\[New LWP "
)
"""Lines that the engine itself begins, or ends with."""


class RequestTextRemover:
    """Reads the lines of one process in their order."""

    def __init__(self) -> None:
        self._lines_left = 0

    def shown(self, lines: Sequence[str]) -> list[str]:
        """Return these lines as they are kept and shown."""
        shown: list[str] = []
        for line in lines:
            begun = _PASSAGE.match(line)
            if begun is not None:
                self._lines_left = MAX_PASSAGE_LINES
                shown.append(begun[0] + LEFT_OUT)
            elif self._lines_left and _OWN.match(line) is None:
                self._lines_left -= 1
            else:
                self._lines_left = 0
                inside = _INSIDE.search(line, 0, _SEARCHED)
                shown.append(line if inside is None else line[: inside.end()] + LEFT_OUT)

        return shown
