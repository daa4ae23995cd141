"""Parts of a script that are more than one command: functions, heredocs, and what a batch file sets in one line."""

from __future__ import annotations

import re
from typing import NamedTuple

_LONGEST_FUNCTION = 20_000
_LONGEST_CASE = 10_000
"""Characters up to the end; a longer one is read line by line."""
_FUNCTION = re.compile(
    r"([ \t]*)(?:function[ \t]+([\w-]+)[ \t]*(?:\([ \t]*\))?|([A-Za-z_][\w-]*)[ \t]*\([ \t]*\))\s*\{"
)
_CASE = re.compile(r"[ \t]*case[ \t]+(\"[^\"\n]*\"|'[^'\n]*'|\S+)[ \t]+in\b")
_ESAC = re.compile(r"(?:^|[\s;])esac\b")
_BRANCH_END = re.compile(r";;")
_LABEL = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*\s*\(?([^()\n]+)\)")
_HEREDOC = re.compile(r"<<(-?)[ \t]*(['\"\\]?)([A-Za-z_]\w*)['\"]?")
_BATCH_SET = re.compile(
    r"[ \t]*(?:@[ \t]*)?(?:if[ \t]+[^\n]*?[ \t(])?set[ \t]+"
    r"(?:(\")([A-Za-z_]\w*)=([^\n]*?)\"[ \t)]*|([A-Za-z_]\w*)=((?:\\\n|[^\n])*?)[ \t]*)(?=\n|$)",
    re.IGNORECASE,
)
_BATCH_FILE = re.compile(
    r"^[ \t]*@?(?:echo off|setlocal)\b|%\w+%|^[ \t]*set[ \t]+\"?\w+=", re.IGNORECASE | re.MULTILINE
)
_PRINTERS = re.compile(r"(?:.*/)?(?:cat|less|more|read|python3?|printf|echo)")


class ScriptFunction(NamedTuple):
    """A function's body, and where it stands.

    :param begin: of the body in the text
    :param end: behind the closing brace
    """

    name: str
    begin: int
    body: str
    end: int


class CaseStatement(NamedTuple):
    """A `case WORD in ... esac`.

    :param branches: patterns, with where each one's commands begin in the text, and the commands
    """

    word: str
    branches: list[tuple[list[str], int, str]]
    end: int


class Heredoc(NamedTuple):
    """A heredoc that a command opens: its lines follow the command's."""

    word: str
    tabs: bool
    end: int


def is_batch(text: str) -> bool:
    """Return whether a text looks like a batch file of Windows."""
    return _BATCH_FILE.search(text) is not None


def find_function(text: str, at: int) -> ScriptFunction | None:
    """Return the function that begins in this place; None where none does, or its end cannot be told."""
    found = _FUNCTION.match(text, at)
    if found is None:
        return None

    line_end = text.find("\n", found.end())
    rest = text[found.end() : line_end if line_end >= 0 else len(text)]
    if rest.rstrip().endswith("}"):
        end = found.end() + len(rest.rstrip())
        return ScriptFunction(found[2] or found[3], found.end(), text[found.end() : end - 1], end)

    indent = re.escape(found[1])
    close = re.compile(rf"\n{indent}\}}").search(text, found.end(), found.end() + _LONGEST_FUNCTION)
    if close is None:
        return None

    return ScriptFunction(found[2] or found[3], found.end(), text[found.end() : close.start() + 1], close.end())


def find_case(text: str, at: int) -> CaseStatement | None:
    """Return the `case` that begins in this place; None where none does, or another one stands inside of it."""
    found = _CASE.match(text, at)
    close = _ESAC.search(text, found.end(), found.end() + _LONGEST_CASE) if found is not None else None
    if found is None or close is None or _CASE.search(text, found.end(), close.start()) is not None:
        return None

    branches = []
    begin = found.end()
    for part in _BRANCH_END.split(text[begin : close.start()]):
        label = _LABEL.match(part)
        if label is not None:
            patterns = [each.strip().strip("\"'") for each in label[1].split("|")]
            branches.append((patterns, begin + label.end(), part[label.end() :]))

        begin += len(part) + 2

    return CaseStatement(found[1], branches, close.end())


def find_heredoc(text: str, at: int) -> Heredoc | None:
    """Return the heredoc that is opened in this place."""
    found = _HEREDOC.match(text, at)
    return None if found is None else Heredoc(found[3], bool(found[1]), found.end())


def heredoc_body(text: str, at: int, opened: Heredoc) -> tuple[str, int]:
    """Return the lines up to the closing word, and where the text goes on; to the end where there is none."""
    tabs = r"[ \t]*" if opened.tabs else ""
    found = re.compile(rf"^{tabs}{re.escape(opened.word)}[ \t]*$", re.MULTILINE).search(text, at)
    return (text[at:], len(text)) if found is None else (text[at : found.start()], found.end())


def only_prints(words: list[str], line: str) -> bool:
    """Return whether a command shows its heredoc to people, so that it starts nothing."""
    return bool(words) and _PRINTERS.fullmatch(words[0]) is not None and re.search(r"(?<!<)>|\btee\b", line) is None


def find_batch_set(text: str, at: int) -> tuple[str, str, int] | None:
    """Return name, value and end of a `set NAME=VALUE` of a batch file, also behind an `if`."""
    found = _BATCH_SET.match(text, at)
    if found is None:
        return None

    name, value = (found[2], found[3]) if found[1] else (found[4], found[5])
    return name, value.replace("\\\n", " "), found.end()
