"""A shell script as the commands that it runs: quotes, continuations, assignments, arrays and defaults resolved.

It runs nothing: what a command prints, or what is set elsewhere, stays a variable without a value (`unresolved.py`).
Lines behind `if` count as run. llama-swap's `cmd` and systemd's `ExecStart`, where `$` and `;` mean nothing or less,
are split by `word_reader.py` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from orchestrator.core.importing.findings import SourceWord
from orchestrator.core.importing.words.expansion import Variables, WordList, expand
from orchestrator.core.importing.words.pasted_text import as_script
from orchestrator.core.importing.words.script_blocks import (
    CaseStatement,
    Heredoc,
    find_batch_set,
    find_case,
    find_function,
    find_heredoc,
    heredoc_body,
    is_batch,
    only_prints,
)
from orchestrator.core.importing.words.unresolved import mark, readable, unresolved
from orchestrator.core.importing.words.word_reader import WordReader, is_windows, line_end, split_words
from orchestrator.core.profile.free_tables import refuse_variable

_KEYWORDS = frozenset(
    {"then", "do", "else", "elif", "if", "while", "until", "!", "{", "}", "(", ")", "RUN", "CMD", "-"}
)
_SETTERS = frozenset({"export", "local", "readonly", "declare", "typeset", "set", "SET", "env", "ENV", "ARG"})
_EXPORTERS = frozenset({"export", "set", "SET", "ENV"})
_PARAMETER = re.compile(
    r"""^[ \t]*(?:\[[\w.]+\][ \t]*)+\$(\w+)[ \t]*=[ \t]*("[^"\n]*"|'[^'\n]*'|[\w.-]+)\s*[,)]?\s*(?:#.*)?$""",
    re.MULTILINE,
)
"""A parameter of a PowerShell script, with its default."""
_TARGET = re.compile(r"\$([A-Za-z_][\w:]*)(?=[ \t]*\+?=[ \t])")
"""What PowerShell sets: `$name = ...`; the name, not its value."""
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_SCRIPT = re.compile(r"[^\s=]+\.(?:sh|bash|zsh|bat|cmd)")
_RUNS = frozenset({"source", ".", "call", "CALL", "exec", "sudo", "bash", "sh", "zsh", "nohup", "env"})
_MOST_DEPTH = 6
"""Functions and heredocs within one another."""
_MOST_CHARACTERS = 500_000
"""Characters of functions, branches and heredocs that are read, calls counted each."""


ReadBeside = Callable[[str], str | None]
"""Returns the text of a file that the source names, where it lies beside the source; None for all others."""


def no_files(_: str) -> None:
    """A text that comes from nowhere has no files beside it."""


@dataclass(slots=True)
class Command:
    """One simple command.

    :param environment: variables set in front of it
    :param read_beside: for files that a script within it names
    """

    words: list[SourceWord] = field(default_factory=list)
    environment: list[tuple[str, str, int]] = field(default_factory=list)
    read_beside: ReadBeside = no_files

    @property
    def line(self) -> int:
        return self.words[0].line if self.words else 0


@dataclass(slots=True)
class ShellReader(WordReader):
    """Reads commands out of a text.

    :param chosen: branches of `case` that count as run, with what chose them, and their lines; the others do not
    :param lenient: lines that begin with a flag belong to the command above them, as in what people paste
    """

    lenient: bool = True
    read_beside: ReadBeside = no_files
    commands: list[Command] = field(default_factory=list)
    exported: list[tuple[str, str, int]] = field(default_factory=list)
    chosen: list[tuple[str, str, int]] = field(default_factory=list)
    _functions: dict[str, tuple[str, int]] = field(default_factory=dict)
    _called: set[str] = field(default_factory=set)
    _depth: int = 0
    _running: set[str] = field(default_factory=set)
    _read_chars: int = 0

    def read(self, text: str, line: int = 1) -> list[Command]:
        """Return the commands of a text.

        :param line: the number of its first line
        """
        text = as_script(text)
        for parameter in _PARAMETER.finditer(text):
            self.variables.setdefault(parameter[1], parameter[2].strip("\"'"))

        windows, batch = is_windows(text), is_batch(text)
        words: list[SourceWord] = []
        opened: list[Heredoc] = []
        at, end = 0, len(text)
        while at < end:
            char = text[at]
            if not words and (at == 0 or text[at - 1] in "\n;") and not opened:
                found_end = self._block(text, at, line, batch)
                if found_end > at:
                    line += text.count("\n", at, found_end)
                    at = found_end
                    continue

            if not words and char == "$" and (target := _TARGET.match(text, at)) is not None:
                words, at = [SourceWord(mark(target[1]), line)], target.end()
                continue

            if char == "\\" and text[at + 1 : at + 2] == "\n":
                at, line = at + 2, line + 1
            elif char == "\n":
                if not opened and self.lenient and words and _goes_on(text, at):
                    at, line = at + 1, line + 1
                    continue

                shown = only_prints([word.text for word in words], text[text.rfind("\n", 0, at) + 1 : at])
                self._finish(words)
                words, at, line = [], at + 1, line + 1
                for each in opened:
                    body, after = heredoc_body(text, at, each)
                    if not shown and self._depth < _MOST_DEPTH:
                        self._nested(body, line)

                    line += text.count("\n", at, after)
                    at = after

                opened = []
            elif char.isspace():
                at += 1
            elif char == "#":
                at = line_end(text, at)
            elif char in ";|&":
                if words and char == "&" and words[-1].text.endswith(">"):
                    at += 1
                    continue

                self._finish(words)
                words, at = [], at + 1
            elif char == "<" and (heredoc := find_heredoc(text, at)) is not None:
                opened.append(heredoc)
                at = heredoc.end
            elif char in "<>" or re.match(r"\d[<>]", text[at : at + 2]):
                at = self.skip_redirection(text, at)
            else:
                found, at, line_after = self.read_word(text, at, line, windows)
                if found.endswith("=(") and re.fullmatch(r"[A-Za-z_]\w*\+?=\(", found):
                    at, line_after = self.read_array(found, text, at, line_after, windows)
                elif found == "@(" and len(words) == 2 and words[1].text in ("=", "+="):
                    items, at, line_after = self.read_list(text, at, line_after)
                    self.put_list(words[0], items, adds=words[1].text == "+=")
                    words = []
                elif found not in ("(", ")", "@("):
                    words += [SourceWord(part, line) for part in self.split(found)]

                line = line_after

        self._finish(words)
        if self._depth == 0:
            while waiting := self._functions.keys() - self._called:
                name = next(each for each in self._functions if each in waiting)
                self._called.add(name)
                self._nested(*self._functions[name])

        return self.commands

    def _block(self, text: str, at: int, line: int, batch: bool) -> int:
        """Take in a function, or what a batch file sets; return where it ends, `at` where there is neither."""
        if batch and (found := find_batch_set(text, at)) is not None:
            name, value, end = found
            self.set_variable(name, self.with_batch_variables(value.strip('"') if value.count('"') == 2 else value))
            if _reaches_engines(name):
                self.exported.append((name, value, line))

            return end

        if (case := find_case(text, at)) is not None:
            return self._choose(case, text, at, line)

        function = find_function(text, at)
        if function is None:
            return at

        self._functions[function.name] = (function.body, line + text.count("\n", at, function.begin))
        return function.end

    def _choose(self, case: CaseStatement, text: str, at: int, line: int) -> int:
        """Read the branch that the variables choose; where they do not say which, every branch counts as run."""
        word = expand(case.word.strip("\"'"), self.variables, quoted=True)
        if not word or unresolved(word):
            return at

        for patterns, begin, commands in case.branches:
            if any(fnmatchcase(word, pattern) for pattern in patterns) and self._depth < _MOST_DEPTH:
                self.chosen.append((f"case {readable(case.word)}", word, line + text.count("\n", at, begin)))
                self._nested(commands, line + text.count("\n", at, begin), self._given())
                break

        return case.end

    def _given(self) -> list[str] | None:
        found = self.variables.get("@")
        return found if isinstance(found, list) else None

    def _nested(self, text: str, line: int, arguments: list[str] | None = None) -> None:
        """Read the body of a function or of a heredoc, with the arguments of a call."""
        self._read_chars += len(text)
        if self._read_chars > _MOST_CHARACTERS:
            return

        own = [name for name in self.variables if name == "@" or name.isdecimal() and name != "0"]
        before = {name: self.variables.pop(name) for name in own}
        if arguments is not None:
            self.variables.update(call_arguments(arguments))

        self._depth += 1
        self.read(text, line)
        self._depth -= 1
        for name in [name for name in self.variables if name == "@" or name.isdecimal() and name != "0"]:
            del self.variables[name]

        self.variables.update(before)

    def _finish(self, words: list[SourceWord]) -> None:
        while words and words[0].text in _KEYWORDS:
            words = words[1:]

        if words and words[0].text == "set" and len(named := [word for word in words[1:] if word.text[:1] != "-"]) > 1:
            self.set_variable(named[0].text, " ".join(word.text for word in named[1:]))  # fish: `set -x NAME VALUE`
            return

        exports = bool(words) and words[0].text in _EXPORTERS
        if words and words[0].text in _SETTERS:
            words = words[1:]

        if len(words) > 2 and words[1].text == "+=":  # `$list += '-c', 4096`
            parts = [part for word in words[2:] for part in re.split(r",(?=-)|,$", word.text) if part]
            self.put_list(words[0], WordList(parts), adds=True)
            return

        if words and words[0].text == "shift" and (given := self._given()):
            count = int(words[1].text) if words[1:] and words[1].text.isdecimal() else 1
            for at in range(1, len(given) + 1):
                self.variables.pop(str(at), None)

            self.variables.update(call_arguments(given[count:]))
            return

        if len(words) > 2 and words[1].text == "=":  # `$model = "..."`: PowerShell
            self._assign(words)
            return

        command = Command()
        while words and (found := _ASSIGNED.fullmatch(words[0].text)):
            if words[1:] and words[1].text.startswith("-") and words[0].text.lower().startswith(("command=", "exec")):
                break  # a key of supervisord, of a unit

            value = found[3]
            if found[2]:
                before = self.variables.get(found[1], "")
                value = (before if isinstance(before, str) else " ".join(before)) + value

            command.environment.append((found[1], value, words[0].line))
            words = words[1:]

        if words and (found := _ASSIGNED.fullmatch(words[0].text)):
            words[0] = SourceWord(found[3].lstrip("-@:+!"), words[0].line)

        if not words:
            for name, value, _ in command.environment:
                self.set_variable(name, value)

            if exports:
                self.exported += [each for each in command.environment if _reaches_engines(each[0])]
        elif (name := words[0].text) in self._functions.keys() - self._running and self._depth < _MOST_DEPTH:
            self._called.add(name)
            self._running.add(name)  # within itself, its name is that of a program
            self._nested(*self._functions[name], [word.text for word in words[1:]])
            self._running.discard(name)
        elif not self._follow(words):
            command.environment = [*self.exported, *command.environment]
            command.words, command.read_beside = words, self.read_beside
            self.commands.append(command)

    def _follow(self, words: list[SourceWord]) -> bool:
        """Read a file that a command runs or takes in, where it lies beside the source; return whether it does."""
        named = [word for word in words if word.text not in _RUNS]
        takes_in = words[0].text in ("source", ".", "call", "CALL")
        if not named or self._depth >= _MOST_DEPTH or not (takes_in or _SCRIPT.fullmatch(named[0].text)):
            return False

        text = self.read_beside(named[0].text)
        if text is None:
            return False

        began = len(self.commands)
        self._nested(text, 1, self._given() if takes_in else [word.text for word in named[1:]])
        for command in self.commands[began:]:  # its lines are those of another file
            command.words = [SourceWord(word.text, named[0].line) for word in command.words]

        return True

    def _assign(self, words: list[SourceWord]) -> None:
        """Carry out PowerShell's `$name = value`, of which `Join-Path` is the one command that is known."""
        name = words[0].text.strip("$\ue000").replace("\ue001", "")
        value = words[2].text
        if value.strip("(") == "Join-Path" and len(words) > 4:
            value = "\\".join(word.text.rstrip(")") for word in words[3:])

        if name.lower().startswith("env:"):
            if _reaches_engines(name[4:]):
                self.exported.append((name[4:], value, words[0].line))
        else:
            self.set_variable(name, value)


def _reaches_engines(name: str) -> bool:
    """Return whether an exported variable is for an engine: its flags, and what drivers and ggml read."""
    return name.startswith("LLAMA_") or refuse_variable(name) is None


def _goes_on(text: str, at: int) -> bool:
    """Return whether the next line that says something begins with a flag."""
    return re.compile(r"\n(?:[ \t]*(?:#[^\n]*)?\n){0,50}[ \t]*--?[A-Za-z]").match(text, at) is not None


def call_arguments(arguments: list[str]) -> Variables:
    """Return the variables `$1`, `$2` ... and `$@` of a script that is called."""
    return {**{str(at): word for at, word in enumerate(arguments, start=1)}, "@": arguments}


def environment_pairs(text: str) -> list[tuple[str, str]]:
    """Return the variables of a file with `NAME=VALUE` lines."""
    pairs = []
    for line in text.splitlines():
        found = _ASSIGNED.fullmatch(line.strip().removeprefix("export "))
        if found is not None and not found[2]:
            words = split_words(found[3])
            pairs.append((found[1], found[3].strip() if len(words) != 1 else words[0].text))

    return pairs
