"""A text as people paste it, as a shell script: prompts, fences, and what other shells write otherwise."""

from __future__ import annotations

import json
import re
import shlex

_FENCE = re.compile(r"^\s*(```|~~~)")
_PROMPT = re.compile(
    r"^\s*(?:PS [A-Z]:[^>\n]*>\s?|[A-Z]:\\[^>\n]*>|[\w.-]+@[\w.-]+:[^\s#$]*[#$]\s|\$\s+|>>\s|&\s+(?=[\"'A-Za-z]))"
)
_LISTED = re.compile(r"^[ \t]*(?:CMD|ENTRYPOINT|RUN)\s+(\[[^\]]*\])", re.MULTILINE)


def _without_lists(text: str) -> str:
    """Return a text in which a Dockerfile's `CMD ["a", "b"]` is a command line."""

    def line(found: re.Match[str]) -> str:
        try:
            words = json.loads(re.sub(r"\\\n", "\n", found[1]))
        except ValueError:
            return found[0]

        return shlex.join(str(word) for word in words) + "\n" * found[0].count("\n")

    return _LISTED.sub(line, text)


def as_script(text: str) -> str:
    """Return a text as a shell script, line for line: prompts, fences and other shells' continuations replaced."""
    lines = []
    for line in _without_lists(text.replace("\r\n", "\n").replace("\r", "\n")).split("\n"):
        line = "" if _FENCE.match(line) else _PROMPT.sub("", line)
        line = re.sub(r"^\s*(?:::|REM\b|rem\b|@echo\b).*", "", line)
        line = re.sub(r"(?<=\s)[`^]\s*$", "\\\\", line) if re.search(r"\s[`^]\s*$", line) else line
        line = re.sub(r"\\[ \t]+$", "\\\\", line)
        lines.append(line)

    return "\n".join(lines)
