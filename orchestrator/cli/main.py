"""`orch`: finds the verb, imports that verb alone, and turns what it raises into an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from orchestrator import __version__
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs `orch status` as much as argparse does
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

VERBS: dict[str, str] = {
    "init": "find models and engines on this machine, make a profile, start it and say hello",
    "up": "start the engine of a profile and wait until it answers; starts the daemon if none runs",
    "down": "stop the engine; running requests may end first",
    "load": "load a profile beside what runs; where memory is short, another one makes room",
    "unload": "end a profile until the next request for it",
    "pin": "keep a profile loaded, whoever needs room, as long as the daemon runs",
    "switch": "change engine or profile without losing a request",
    "reload": "read the profiles anew, and restart the engine if its own has changed",
    "status": "show what is running",
    "top": "watch and control what runs: speed, memory, requests, log; or one look with --once",
    "requests": "list the requests that wait and run",
    "cancel": "end one request, wherever it is",
    "logs": "show the engine's log",
    "events": "show what happened: starts, failures, retries, stops",
    "stats": "sum up the requests: how many, how fast, how long they waited",
    "bench": "find out which of two engines, profiles or settings is faster, and how sure that is",
    "tune": "find faster settings for a profile on this machine, and prove that they are",
    "demo": "see the main job on a real engine: no GPU, model or compiler needed",
    "profile": "list, show, check, render, set and create profiles",
    "import": "make profiles from a llama-swap configuration, presets, scripts, units or compose files",
    "plan": "say whether a model fits, with which settings, before anything is loaded or downloaded",
    "pull": "fetch a model from a repository, in the quantisation that fits this machine",
    "models": "list and remove the models on this machine's disk",
    "engines": "find, build, update, roll back and probe engines",
    "verify": "check that an engine computes rightly, by itself or against another one",
    "vram": "show who holds device memory, and get back what the desktop takes",
    "margins": "show or forget the memory margins that were learned",
    "quarantine": "show or clear the requests that are refused because engines died of them",
    "explain": "say why an engine failed, from its log",
    "config": "show the configuration and where things are",
    "serve": "run the daemon in the foreground",
    "service": "install, remove and watch orch as a systemd service",
    "doctor": "look for what is wrong with this machine and this installation",
    "completions": "print a completion script for a shell",
}
"""Every verb and its one line of help: a copy of each module's HELP, so that `orch status` imports `status` alone."""

_SETUP = frozenset(
    {
        *(
            "init",
            "profile",
            "import",
            "plan",
            "pull",
            "models",
            "engines",
            "verify",
            "config",
            "serve",
            "service",
            "doctor",
        ),
        "completions",
    }
)
"""The verbs in `cli/setup`."""

_FOLDERS = {"setup": _SETUP, "residents": frozenset({"load", "unload", "pin"}), "vram": frozenset({"vram"})}
"""The folders of `cli` and their verbs; the others are in `cli/operate`."""

_MODULES = {"import": "import_profiles"}
"""The modules that are not named as their verb, as Python keeps the word for itself."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Finds the terminal's width without `shutil`, which argparse would import for each option of each parser."""

    def __init__(self, prog: str) -> None:
        try:
            width = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
        except (OSError, ValueError):
            width = 80

        super().__init__(prog, width=width - 2)


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting, takes no abbreviations, and knows the nearest spelling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Said here because the parsers of nested verbs are made by argparse itself.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        args, unknown = self.parse_known_args(words)
        if unknown:
            from orchestrator.core.problems import did_you_mean

            hint = did_you_mean(unknown[0], self.spellings()) or f"run `{self.prog} --help`"
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", hint=hint)

        return args

    def spellings(self) -> Iterator[str]:
        """Every option, those of nested verbs included."""
        for action in self._actions:
            yield from action.option_strings

        for nested in self.nested():
            yield from nested.spellings()

    def nested(self) -> Iterator[Parser]:
        """The parsers of nested verbs."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.values()

    def print_help(self, file: Any = None) -> None:
        output.raw(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"run `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except OrchError as error:
        return diagnostics.report(error)
    except output.ReaderGone:
        # Nothing more can be said; keep the interpreter from trying at its end.
        sys.stdout = None
        return exit_codes.OK
    except OSError as error:
        # The machine's doing (a full disk, a file of somebody else): a traceback would not help.
        where = (str(error.filename),) if error.filename else ()
        return diagnostics.report(OrchError(error.strerror or str(error), details=where))
    except KeyboardInterrupt:
        diagnostics.clear_progress()
        return exit_codes.INTERRUPTED


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            return _dispatch([words[1], "--help"])

        output.raw(_overview())
        return exit_codes.OK

    if words[0] in ("-V", "--version"):
        output.line(f"orch {__version__}")
        return exit_codes.OK

    verb = words[0]
    if verb not in VERBS:
        from orchestrator.core.problems import did_you_mean

        raise UsageError(f"unknown command `{verb}`", hint=did_you_mean(verb, VERBS) or "run `orch --help`")

    args = build_parser(verb).parse(words[1:])
    module = import_module(module_of(verb))
    code: int = module.run(args)
    return code


def module_of(verb: str) -> str:
    """Return the name of the module that carries out a verb."""
    folder = next((name for name, verbs in _FOLDERS.items() if verb in verbs), "operate")
    return f"orchestrator.cli.{folder}.{_MODULES.get(verb, verb)}"


def build_parser(verb: str, prog: str | None = None) -> Parser:
    """Return the parser of one verb, with its examples below the options, and below those of its actions."""
    module = import_module(module_of(verb))
    parser = Parser(
        prog=prog or f"orch {verb}",
        description=module.HELP,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=HelpFormatter,
    )
    module.add_arguments(parser)
    for nested in parser.nested():
        nested.formatter_class = HelpFormatter
        nested.epilog = nested.epilog or parser.epilog

    return parser


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb.ljust(width)}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "orch keeps one OpenAI-compatible address alive, whichever llama-server is behind it.",
            "",
            "usage: orch COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "Every command has --help with examples; those that print data have --json.",
            "",
        ]
    )
