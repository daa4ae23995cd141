"""A text as people paste it, as a shell script: prompts, fences, and what other shells write otherwise."""

from __future__ import annotations

import json
import re
import shlex

_FENCE = re.compile(r"^\s*(```|~~~)")
_PROMPT = re.compile(
    r"^\s*(?:PS [A-Z]:[^>\n]*>\s?|[A-Z]:\\[^>\n]*>|[\w.-]+@[\w.-]+:[^\s#$]*[#$]\s|\$\s+|>>\s|&\s+(?=[\"'A-Za-z]))"
)
_LINK = re.compile(r"\[([^\[\]\s]{1,200})\]\(https?://[^()\[\]\s]{0,300}\)")
_LISTED = re.compile(r"^[ \t]*(CMD|ENTRYPOINT|RUN)\s+(\[[^\]]*\])", re.MULTILINE)
_ARGUMENTS = re.compile(r"^[ \t]*CMD\s+\[\s*\"-", re.MULTILINE)
_SERVES = re.compile(r"^[ \t]*FROM\s+\S*llama\S*server", re.MULTILINE | re.IGNORECASE)


def _without_lists(text: str) -> str:
    """Return a text in which a Dockerfile's `CMD ["a", "b"]` is a command line, behind what its image starts."""
    starts = ["llama-server"] if _SERVES.search(text) else []

    def line(found: re.Match[str]) -> str:
        try:
            words = [str(word) for word in json.loads(re.sub(r"\\\n", "\n", found[2]))]
        except ValueError:
            return found[0]

        if found[1] == "ENTRYPOINT":
            starts[:] = words
            words = [] if _ARGUMENTS.search(text, found.end()) else words
        elif found[1] == "CMD" and words[:1] and words[0].startswith("-"):
            words = [*starts, *words]

        return shlex.join(words) + "\n" * found[0].count("\n")

    return _LISTED.sub(line, text)


def _without_block_comments(text: str) -> str:
    """Return a text without PowerShell's `<# ... #>`, line for line."""
    parts, at = [], 0
    while (begin := text.find("<#", at)) >= 0 and (end := text.find("#>", begin)) >= 0:
        parts.append(text[at:begin] + "\n" * text.count("\n", begin, end))
        at = end + 2

    return "".join(parts) + text[at:]


def as_script(text: str) -> str:
    """Return a text as a shell script, line for line: prompts, fences and other shells' continuations replaced."""
    lines = []
    text = _without_block_comments(text)
    for line in _without_lists(text.replace("\r\n", "\n").replace("\r", "\n")).split("\n"):
        line = "" if _FENCE.match(line) else _PROMPT.sub("", line)
        line = re.sub(r"^\s*(?:::|REM\b|rem\b|@echo\b).*", "", line)
        line = re.sub(r"(?<=\s)[`^]\s*$", "\\\\", line) if re.search(r"\s[`^]\s*$", line) else line
        line = re.sub(r"\\[ \t]+$", "\\\\", line)
        lines.append(_LINK.sub(r"\1", line))

    return "\n".join(lines)
