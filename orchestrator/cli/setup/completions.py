"""`orch completions`."""

from __future__ import annotations

import argparse

from orchestrator.cli import output
from orchestrator.core import exit_codes

HELP = "print a completion script for a shell"
SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
EXAMPLES = """\
  orch completions bash > ~/.local/share/bash-completion/completions/orch
  orch completions zsh > ~/.zfunc/_orch
  orch completions fish > ~/.config/fish/completions/orch.fish"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    import shtab

    from orchestrator.cli.main import VERBS, Parser, build_parser

    parser = Parser(prog="orch")
    commands = parser.add_subparsers()
    for verb, text in VERBS.items():
        whole = build_parser(verb)
        command = commands.add_parser(verb, help=text, add_help=False, parents=[whole], description=whole.description)
        command.prog = f"orch {verb}"

    output.line(shtab.complete(parser, args.shell))
    return exit_codes.OK
