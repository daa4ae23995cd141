"""`$NAME`, `${NAME:-default}`, `$((1024*32))`, `%NAME%` and arrays, from what a script itself sets."""

from __future__ import annotations

import posixpath
import re

from orchestrator.core.importing.words.unresolved import EMPTY, mark, readable, unresolved

Variables = dict[str, str | list[str]]


class WordList(list[str]):
    """A list that stands for all of its words when it is named alone, as PowerShell's do."""


_EXPANSION = re.compile(r"\$(?:\{|\(\(|\(|[A-Za-z_]\w*|[0-9@*#?!$-])")
_BRACED = re.compile(r"(#?)([A-Za-z_]\w*|[0-9]+|[@*])(\[[^\]]*\])?(.*)", re.DOTALL)
_ARITHMETIC = re.compile(r"[\d\s()+*/%-]+")
_MOST_DEPTH = 8


def expand(text: str, variables: Variables, *, quoted: bool, depth: int = 0) -> str:
    """Return a text with its variables replaced; without quotes, words of a value are parted by `\\x02`."""
    out = []
    at = 0
    while (found := _EXPANSION.search(text, at)) is not None:
        out.append(text[at : found.start()])
        body, at = _body(text, found.start())
        value = _value(body, variables, depth)
        if isinstance(value, list):
            out.append("\x02" + "\x02".join(value) + "\x02")
        else:
            out.append(value if quoted else re.sub(r"\s+", "\x02", value))

    return ("".join(out) + text[at:]).replace("\x03", "$")


def _body(text: str, start: int) -> tuple[str, int]:
    if text[start + 1] not in "({":
        found = re.compile(r"\$(?:[A-Za-z_]\w*|.)").match(text, start)
        end = found.end() if found else start + 1
        return text[start + 1 : end], end

    opening, close, depth, end = text[start + 1], {"(": ")", "{": "}"}[text[start + 1]], 0, start + 1
    while end < len(text):
        depth += (text[end] == opening) - (text[end] == close)
        end += 1
        if depth == 0:
            break

    return text[start + 1 : end], end


def _value(body: str, variables: Variables, depth: int) -> str | list[str]:
    if depth > _MOST_DEPTH:
        return mark(body[:40])

    if body.startswith("(("):
        return _arithmetic(body[2:-2], variables, depth)

    if body.startswith("("):
        return command_output(body[1:-1].strip(), variables, depth)

    if not body.startswith("{"):
        named = variables.get(body)
        if body in ("@", "*"):
            return _arguments(variables)

        return named if isinstance(named, WordList) else _plain(body, variables)

    found = _BRACED.fullmatch(body[1:-1])
    if found is None:
        return mark(body[1:-1][:40])

    _, name, index, rest = found.groups()
    if name in ("@", "*"):
        first = re.fullmatch(r":(\d+)", rest)
        return _arguments(variables)[max(0, int(first[1]) - 1) if first else 0 :]

    if index in ("[@]", "[*]"):
        value = variables.get(name, [])
        return [value] if isinstance(value, str) else value

    known = variables.get(name)
    text = " ".join(known) if isinstance(known, list) else known
    if index and isinstance(known, list):
        text = _item(known, expand(index[1:-1].strip("\"'"), variables, quoted=True, depth=depth + 1))

    if found[1]:
        return mark(name)

    return _modified(name, text, rest, variables, depth)


def _item(items: list[str], index: str) -> str | None:
    """Return an item by its number, or by its key in `declare -A`; None where the text does not say which."""
    keyed = next((each[len(index) + 3 :] for each in items if each.startswith(f"[{index}]=")), None)
    if keyed is None and index.isdecimal() and len(index) < 6 and int(index) < len(items):
        return items[int(index)]

    return keyed


def _arguments(variables: Variables) -> list[str]:
    """Return what a function is called with; nothing where it is a script, whose caller is unknown."""
    found = variables.get("@", [])
    return list(found) if isinstance(found, list) else [found]


def _modified(name: str, text: str | None, rest: str, variables: Variables, depth: int) -> str:
    given = re.fullmatch(r"(:?[-=+?])(.*)", rest, re.DOTALL)
    if given is not None:
        operator, word = given[1].lstrip(":"), given[2]
        if operator == "+":
            return expand(word, variables, quoted=True, depth=depth + 1) if text else ""

        if text or operator == "?":
            return text or mark(name)

        # Empty unless somebody sets it: whoever starts the script does.
        return expand(word.strip("\"'"), variables, quoted=True, depth=depth + 1) or mark(name + EMPTY)

    if text is None:
        return mark(name)

    cut = re.fullmatch(r"(%%?|##?)(.*)", rest, re.DOTALL)
    if cut is not None:
        return _cut(text, cut[1], cut[2])

    return {",,": text.lower(), "^^": text.upper(), "": text}.get(rest, mark(name))


def _cut(text: str, operator: str, pattern: str) -> str:
    """Return a value without its beginning or its end; `*` in the pattern stands for anything."""
    greedy = len(operator) == 2
    rule = "".join(".*" if char == "*" else re.escape(char) for char in pattern)
    sizes = range(len(text) + 1)
    for size in reversed(sizes) if greedy else sizes:
        part = text[:size] if operator[0] == "#" else text[len(text) - size :]
        if re.fullmatch(rule, part, re.DOTALL):
            return text[size:] if operator[0] == "#" else text[: len(text) - size]

    return text


def _plain(name: str, variables: Variables) -> str:
    value = variables.get(name)
    if value is None:
        return mark(name)

    return value if isinstance(value, str) else " ".join(value[:1])


PROCESSORS = "NUMBER_OF_PROCESSORS"
"""The variable that holds how many processors the machine has, as on Windows."""
_COUNTS = re.compile(r"nproc(?: --all)?|getconf _NPROCESSORS_ONLN|sysctl -n hw\.(?:logicalcpu|physicalcpu|ncpu)")
_ON_CONDITION = re.compile(r"(?:\[.*\]|test .*?)\s*&&\s*(?:echo|printf)\s+(.*?)\s*(?:\|\|.*)?", re.DOTALL)
_CHANGES_FOLDER = re.compile(
    r"(?:cd|pushd)\s+(?:-P\s+)?(?:--\s+)?(.*?)\s*(?:&?>\s*/dev/null)?(?:\s*2>&1)?\s*(?:&&|;)\s*pwd(?:\s+-P)?"
)
_PATH_COMMAND = re.compile(r"(dirname|basename|realpath|readlink -f|echo)\s+(?:--\s+)?([^|;&]*)")


def command_output(text: str, variables: Variables, depth: int) -> str | list[str]:
    """Return what a command prints, for the few that follow from the text and the machine; nothing is run."""
    if _COUNTS.fullmatch(text) is not None and isinstance(count := variables.get(PROCESSORS), str):
        return count

    if (shown := _ON_CONDITION.fullmatch(text)) is not None:  # counts as true, like the lines behind an `if`
        words = expand(re.sub(r"[\"']", "", shown[1].replace('\\"', "")), variables, quoted=False, depth=depth + 1)
        return [word for word in re.split(r"[\x02\s]+", words) if word]

    if (moved := _CHANGES_FOLDER.fullmatch(text)) is not None:
        return _path("realpath", moved[1], variables, depth)

    if (found := _PATH_COMMAND.fullmatch(text)) is not None:
        return _path(found[1], found[2], variables, depth)

    return mark(text[:40])


def _path(command: str, argument: str, variables: Variables, depth: int) -> str:
    path = expand(argument.strip().replace('"', "").replace("'", ""), variables, quoted=True, depth=depth + 1)
    if unresolved(path):
        return mark(f"{command} {readable(path)}"[:40])

    if command == "dirname":
        return posixpath.dirname(path) or "."

    return {"basename": posixpath.basename(path), "echo": path}.get(command, posixpath.normpath(path))


def _arithmetic(text: str, variables: Variables, depth: int) -> str:
    named = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\b\}?", lambda found: _plain(found[1], variables), text)
    if _ARITHMETIC.fullmatch(named) is None or "**" in named or len(named) > 100:
        return mark(text.strip()[:40])

    total = _sum(re.findall(r"\d+|[()+*/%-]", named))
    return str(total) if total is not None else mark(text.strip()[:40])


def _sum(tokens: list[str]) -> int | None:
    """Return the value of an expression of whole numbers; None where it is none."""

    def term(at: int) -> tuple[int, int]:
        value, at = factor(at)
        while at < len(tokens) and tokens[at] in "*/%":
            right, after = factor(at + 1)
            value = value * right if tokens[at] == "*" else value // right if tokens[at] == "/" else value % right
            at = after

        return value, at

    def factor(at: int) -> tuple[int, int]:
        if tokens[at] == "(":
            value, at = whole(at + 1)
            return value, at + 1

        if tokens[at] == "-":
            value, at = factor(at + 1)
            return -value, at

        return int(tokens[at]), at + 1

    def whole(at: int) -> tuple[int, int]:
        value, at = term(at)
        while at < len(tokens) and tokens[at] in "+-":
            right, after = term(at + 1)
            value = value + right if tokens[at] == "+" else value - right
            at = after

        return value, at

    try:
        value, at = whole(0)
    except (IndexError, ValueError, ZeroDivisionError):
        return None

    return value if at == len(tokens) else None
