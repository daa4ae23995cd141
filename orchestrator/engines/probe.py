"""Probes a program: its kind, version and the flags that it accepts. Evidence only: its name says nothing.

Blocking: a first look takes two runs of the program (some more for the fork), later ones read the cache.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from orchestrator.adapters.paths import Paths, make_private
from orchestrator.core.dialect.capabilities import Capabilities, Flag, normal_spelling
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.dialect.extra_args import unknown_flags
from orchestrator.core.dialect.forms import looks_like_flag
from orchestrator.core.dialect.help_text import parse_help, read_capabilities
from orchestrator.core.errors import OrchError
from orchestrator.engines import probe_cache
from orchestrator.engines.ask import MAX_BYTES, TIMEOUT_S, Answer, ask
from orchestrator.engines.fork_flags import LEGACY, STAGE, UNLISTED, FlagQuestion

_PARALLEL_RUNS = 4
_SHOWN_LINES = 3
_SHOWN_CHARACTERS = 200

_MISSING_LIBRARY = re.compile(
    r"error while loading shared libraries: ([^:\s]+)|Library not loaded: (\S+)|(version `[^']+' not found)"
    r"|symbol lookup error: (.+)"
)
"""Messages of ld.so and dyld, before the program itself runs."""

_SERVER_FLAGS = ("--host", "--port")
"""Upstream's other programs print the same layout without them."""


class NotAnEngineError(OrchError):
    """Raised when a program is there and is not an engine that can be used."""


@dataclass(frozen=True, slots=True)
class Build:
    """One binary, as it describes itself.

    :param path: absolute, as it was given (a link stays one)
    """

    path: str
    sha256: str
    capabilities: Capabilities


def probe(path: str, paths: Paths, *, timeout_s: float = TIMEOUT_S) -> Build:
    """Return the build at this path, from the cache if it has not changed.

    :raises NotAnEngineError: with what it printed and how it ended
    """
    path = os.path.abspath(os.path.expanduser(path))
    _check_file(path)
    stamp = probe_cache.stamp_of(path)
    kept = probe_cache.load(paths, stamp)
    if kept is not None:
        return Build(path, *kept)

    found = _Probe(path, paths, timeout_s).capabilities()
    sha256 = probe_cache.sha256_of(path)
    probe_cache.save(paths, stamp, sha256, found)
    return Build(path, sha256, found)


def ask_arguments(path: str, paths: Paths, extra_args: Sequence[str], capabilities: Capabilities) -> Capabilities:
    """Return the capabilities with the flags of `extra_args` that the fork takes although its help lacks them.

    Its help has gaps, and a newer build has flags that nobody has asked it for. Upstream's help lists every flag.
    """
    unknown = [at for at in unknown_flags(extra_args, capabilities) if capabilities.kind == "ik"]
    if not unknown:
        return capabilities

    asking = _Probe(path, paths, TIMEOUT_S)
    flags = dict(capabilities.flags)
    for at in unknown:
        name, value = extra_args[at], next(iter(extra_args[at + 1 : at + 2]), None)
        samples = (value, None) if value is not None and not looks_like_flag(value) else (None,)
        taken = [sample for sample in samples if asking.accepts([FlagQuestion((name,), sample)])]
        if taken:
            flags[normal_spelling(name)] = Flag(normal_spelling(name), value=taken[0] is not None, listed=False)

    return replace(capabilities, flags=flags)


def _check_file(path: str) -> None:
    if os.path.isdir(path):
        inside = os.path.join(path, "llama-server")
        hint = f"give the program: {inside}" if os.path.isfile(inside) else "give the path of the program itself"
        raise NotAnEngineError(f"{path} is a directory", hint=hint)

    if not os.path.exists(path):
        raise NotAnEngineError(f"there is no file {path}", hint="run `orch engines list` to see what was found")

    if not os.path.isfile(path):
        raise NotAnEngineError(f"{path} is not a regular file")

    if not os.access(path, os.X_OK):
        raise NotAnEngineError(f"{path} is not executable", hint=f"run `chmod +x {path}` if it is an engine")


class _Probe:
    def __init__(self, path: str, paths: Paths, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        # The probe asks what the program accepts, not what the machine has: without devices it answers at once.
        # LD_LIBRARY_PATH alone comes from outside, as it does for the engine itself.
        parent = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
        self._env = child_environment(parent, state_dir=paths.state, extra=hidden)
        self._cwd = probe_cache.directory(paths)
        make_private(self._cwd)

    def capabilities(self) -> Capabilities:
        version = self._run("--version")
        printed = self._run("--help")
        kind, flags = parse_help(printed.text)
        if kind == "unknown":
            raise self._not_an_engine("it does not print an engine's help", "--help", printed)

        if any(flag not in flags for flag in _SERVER_FLAGS):
            raise self._not_an_engine("it is a program of llama.cpp without a server", "--help", printed)

        if kind != "ik":
            return read_capabilities(printed.text, version.text)

        listed = [_narrowed(question, flags.__contains__) for question in LEGACY]
        legacy = {spelling for question in listed for spelling in question.spellings}
        return read_capabilities(
            printed.text,
            version.text,
            self._unlisted(flags),
            refused=legacy - self._accepted(listed),
            spec_stages=self.accepts([STAGE]),
        )

    def _unlisted(self, flags: dict[str, Flag]) -> list[Flag]:
        asked = [_narrowed(question, lambda spelling: spelling not in flags) for question in UNLISTED]
        accepted = self._accepted(asked)
        found = []
        for question, whole in zip(asked, UNLISTED, strict=True):
            spellings = tuple(spelling for spelling in question.spellings if spelling in accepted)
            if spellings:
                # One spelling that the help lists connects the others with its entry.
                known = tuple(spelling for spelling in whole.spellings if spelling in flags)
                name, *aliases = sorted({*spellings, *known}, key=whole.spellings.index)
                found.append(Flag(name, tuple(aliases), value=question.sample is not None, listed=False))

        return found

    def _accepted(self, questions: Iterable[FlagQuestion]) -> set[str]:
        """Return the spellings that the program takes: all are asked at once, and one by one when that is refused."""
        single = [
            FlagQuestion((spelling,), question.sample) for question in questions for spelling in question.spellings
        ]
        if not single or self.accepts(single):
            return {question.spellings[0] for question in single}

        with ThreadPoolExecutor(_PARALLEL_RUNS) as pool:
            answers = pool.map(lambda question: self.accepts([question]), single)
            return {question.spellings[0] for question, yes in zip(single, answers, strict=True) if yes}

    def accepts(self, questions: Iterable[FlagQuestion]) -> bool:
        words = [word for question in questions for word in _words(question)]
        answer = self._run(*words, "--version")
        return answer.returncode == 0 and "version: " in answer.text

    def _run(self, *words: str) -> Answer:
        try:
            answer = ask(self._path, words, env=self._env, cwd=self._cwd, timeout_s=self._timeout_s)
        except OSError as error:
            raise NotAnEngineError(
                f"{self._path} cannot be run: {error.strerror}",
                details=("it exists; its interpreter or loader is missing",) if error.errno == 2 else (),
                hint="is it a program for this machine?",
            ) from error

        if answer.too_long:
            raise self._not_an_engine(f"it printed more than {MAX_BYTES} bytes", words[-1], answer)

        if answer.returncode is None:
            raise self._not_an_engine(f"it did not answer within {self._timeout_s:g} s", words[-1], answer)

        missing = _MISSING_LIBRARY.search(answer.stderr)
        if missing is not None and answer.returncode != 0:
            what = next(group for group in missing.groups() if group)
            advice = "install the library, or set LD_LIBRARY_PATH to where it is"
            raise self._not_an_engine(f"a library is missing: {_printable(what)}", words[-1], answer, advice)

        # Words of ours can make the fork abort, and then they are refused; on its own questions it must not.
        if answer.returncode < 0 and len(words) == 1:
            hint = "it was built for another processor: build it on this machine" if _is_sigill(answer) else None
            raise self._not_an_engine("it crashed", words[-1], answer, hint)

        return answer

    def _not_an_engine(self, reason: str, word: str, answer: Answer, hint: str | None = None) -> NotAnEngineError:
        return NotAnEngineError(
            f"{self._path} cannot be used as an engine: {reason}",
            details=(f"`{word}` {_end_of(answer)}", *_excerpt(answer)),
            hint=hint or "give the path of a llama-server, upstream's or ik_llama.cpp's",
        )


def _narrowed(question: FlagQuestion, wanted: Callable[[str], bool]) -> FlagQuestion:
    return question._replace(spellings=tuple(filter(wanted, question.spellings)))


def _words(question: FlagQuestion) -> Iterator[str]:
    for spelling in question.spellings:
        yield spelling
        if question.sample is not None:
            yield question.sample


def _is_sigill(answer: Answer) -> bool:
    return answer.returncode == -signal.SIGILL


def _end_of(answer: Answer) -> str:
    code = answer.returncode
    if code is None:
        return "was ended by orch"

    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def _excerpt(answer: Answer) -> Iterator[str]:
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    if not lines:
        yield "it printed nothing"

    # A failure is explained at the end, a greeting comes first.
    for line in lines[-_SHOWN_LINES:] if answer.returncode else lines[:_SHOWN_LINES]:
        yield f"it printed: {_printable(line)}"


def _printable(text: str) -> str:
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
