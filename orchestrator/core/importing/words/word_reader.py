"""The words of a text: quotes, backslashes, variables, arrays and the lists of other shells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.core.importing.findings import SourceWord
from orchestrator.core.importing.words.expansion import Variables, WordList, expand
from orchestrator.core.importing.words.unresolved import mark, unresolved

_WINDOWS = re.compile(
    r"(?:^|[\s\"'=(&])(?:[A-Za-z]:\\|\\\\[\w.-]+\\\w|\.{1,2}\\\w)|[%}\w]\\[\w .-]+\.exe\b", re.MULTILINE
)
"""A path of Windows, where a backslash is no escape."""
_LIST_ITEM = re.compile(r"""'((?:[^']|'')*)'|"([^"]*)"|[^\s,()#'"]+""")
_BATCH = re.compile(r"[%!]([A-Za-z_]\w*)[%!]")
_BATCH_ARGUMENT = re.compile(r"%~?[a-z]{0,6}\d")
_MOST_WORDS = 2000
_LONGEST_VALUE = 50_000
"""Characters of a variable: one that doubles itself line by line ends here."""


@dataclass(slots=True)
class WordReader:
    """Reads words out of a text.

    :param as_shell: `$`, `;`, `|` and assignments have a meaning; else it is split into words alone
    """

    variables: Variables = field(default_factory=dict)
    as_shell: bool = True

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable; a value that only whoever starts the script knows does not replace one that is known."""
        known = self.variables.get(name)
        value = value if len(value) <= _LONGEST_VALUE else mark(name)
        if not (isinstance(known, str) and known and unresolved(value) and not unresolved(known)):
            self.variables[name] = value

    def with_batch_variables(self, text: str) -> str:
        return _BATCH_ARGUMENT.sub(lambda found: mark(found[0][1:]), _BATCH.sub(self._batch_variable, text))

    def read_word(self, text: str, at: int, line: int, windows: bool) -> tuple[str, int, int]:
        """Return a raw word up to its end: parts behind `\\x02` came from unquoted variables and are split later."""
        out: list[str] = []
        quoted = text[at] in "'\""
        while at < len(text):
            char = text[at]
            if char == "'":
                close = text.find("'", at + 1)
                close = len(text) if close < 0 else close
                body = text[at + 1 : close]
                out.append(body or "\x01")
                line, at = line + body.count("\n"), close + 1
            elif char == '"':
                body, at = _double_quoted(text, at + 1, windows)
                line += body.count("\n")
                out.append((expand(body, self.variables, quoted=True) if self.as_shell else body) or "\x01")
            elif char == "\\" and not (windows and text[at + 1 : at + 2] not in ("\n", '"', "'", " ")):
                if text[at + 1 : at + 2] == "\n":
                    at, line = at + 2, line + 1
                    continue

                out.append(text[at + 1 : at + 2])
                at += 2
            elif char == "$" and self.as_shell:
                body, at = _dollar(text, at)
                out.append(expand(body, self.variables, quoted=False))
            elif char == "`" and self.as_shell:
                close = text.find("`", at + 1)
                close = len(text) if close < 0 else close
                out.append(expand(f"$({text[at + 1 : close]})", self.variables, quoted=False))
                at = close + 1
            elif char.isspace() or (self.as_shell and char in ";|&<>\n"):
                break
            elif char == "(" and self.as_shell:
                out.append(char)
                return "".join(out), at + 1, line
            elif char == ")" and self.as_shell:
                return ("".join(out), at, line) if out else (")", at + 1, line)
            else:
                out.append(char)
                at += 1

        found = "".join(out)
        if not found and not quoted:  # an empty variable without quotes is no word
            return "\x02", at, line

        if self.as_shell and found.startswith("@") and isinstance(items := self.variables.get(found[1:]), WordList):
            return "\x02" + "\x02".join(items) + "\x02", at, line

        if self.as_shell and (found.count("%") > 1 or found.count("!") > 1 or "%~" in found):
            whole = found
            found = self.with_batch_variables(found)
            if found != whole and not quoted:  # flags that a variable holds are words of their own
                found = "\x02".join(word.text for word in split_words(found)) if " " in found else found

        return found, at, line

    def _batch_variable(self, found: re.Match[str]) -> str:
        value = self.variables.get(found[1])
        if isinstance(value, str):
            return value

        return mark(found[1]) if len(found[1]) > 2 and found[0][0] == "%" else found[0]

    def split(self, word: str) -> list[str]:
        """Return the words of a raw one: those that a variable without quotes held are apart."""
        parts = re.split(r"\x02+", word)
        if len(parts) > 1:
            parts = [part for part in parts if part]

        return [part.replace("\x01", "") for part in parts]

    def read_array(self, opening: str, text: str, at: int, line: int, windows: bool) -> tuple[int, int]:
        name = opening[:-2].removesuffix("+")
        items: list[str] = []
        while at < len(text):
            char = text[at]
            if char == ")":
                at += 1
                break

            if char == "#":
                at = line_end(text, at)
            elif char.isspace():
                line += char == "\n"
                at += 1
            elif char in ";|&<>":
                at += 1
            else:
                found, at, line = self.read_word(text, at, line, windows)
                items += self.split(found)

        before = self.variables.get(name, []) if opening.endswith("+=(") else []
        self.variables[name] = [*([before] if isinstance(before, str) else before), *items][:_MOST_WORDS]
        return at, line

    def read_list(self, text: str, at: int, line: int) -> tuple[WordList, int, int]:
        """Read PowerShell's `@('a', "b", $c)` behind its opening."""
        items = WordList()
        while at < len(text) and text[at] != ")":
            found = _LIST_ITEM.match(text, at)
            if found is None:
                line += text[at] == "\n"
                at = line_end(text, at) if text[at] == "#" else at + 1
            elif found[1] is not None:
                items.append(found[1].replace("''", "'"))
                at = found.end()
            else:
                items += self.split(expand((found[2] or found[0]).strip('"'), self.variables, quoted=True))
                at = found.end()

        return items, at + 1, line

    def skip_redirection(self, text: str, at: int) -> int:
        found = re.compile(r"\d?(?:<<-?|>>|[<>])&?\s*[^\s;|&]*").match(text, at)
        return found.end() if found else at + 1

    def put_list(self, name: SourceWord, items: WordList, *, adds: bool) -> None:
        key = name.text.strip("$\ue000").replace("\ue001", "")
        before = self.variables.get(key, []) if adds else []
        self.variables[key] = WordList([*([before] if isinstance(before, str) else before), *items][:_MOST_WORDS])


def is_windows(text: str) -> bool:
    """Return whether a backslash is no escape in a text."""
    return _WINDOWS.search(text) is not None


def line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found


def _double_quoted(text: str, at: int, windows: bool) -> tuple[str, int]:
    out = []
    while at < len(text) and text[at] != '"':
        if (
            text[at] == "\\"
            and text[at + 1 : at + 2] in ('"', "\\", "`", "\n")
            and not (windows and text[at + 1 : at + 2] == "\\")
        ):
            out.append({"\n": ""}.get(text[at + 1], text[at + 1]))
            at += 2
        elif text[at] == "\\" and text[at + 1 : at + 2] == "$":
            out.append("\x03")
            at += 2
        elif text[at] == "$" and text[at + 1 : at + 2] in ("(", "{"):
            body, at = _dollar(text, at)
            out.append(body)
        else:
            out.append(text[at])
            at += 1

    return "".join(out), at + 1


def _dollar(text: str, at: int) -> tuple[str, int]:
    """Return an expansion as written, and where it ends."""
    follows = text[at + 1 : at + 2]
    if follows in ("(", "{"):
        close, depth, end = {"(": ")", "{": "}"}[follows], 0, at + 1
        while end < len(text):
            depth += (text[end] == follows) - (text[end] == close)
            end += 1
            if depth == 0:
                break

        return text[at:end], end

    found = re.compile(r"\$(?:[A-Za-z_]\w*|[0-9@*#?!$-])?").match(text, at)
    end = found.end() if found else at + 1
    return text[at:end], end


def split_words(text: str, line: int = 1) -> list[SourceWord]:
    """Return the words of a text in which only quotes and backslashes have a meaning."""
    reader = WordReader(as_shell=False)
    windows = is_windows(text)
    words: list[SourceWord] = []
    at = 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] == "\n":
            at, line = at + 2, line + 1
        elif text[at].isspace():
            line += text[at] == "\n"
            at += 1
        else:
            found, at, after = reader.read_word(text, at, line, windows)
            words += [SourceWord(part, line) for part in reader.split(found)]
            line = after

    return words
