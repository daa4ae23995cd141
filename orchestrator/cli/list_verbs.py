"""The two verbs of a command that keeps a list: show it, and drop one entry or all."""

from __future__ import annotations

import argparse

from orchestrator.core.errors import UsageError


def add_list_verbs(parser: argparse.ArgumentParser, list_help: str, drop: str, drop_help: str) -> None:
    """Add `list [--json]`, and `drop` with an id or `--all`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=f"list|{drop}")
    listing = verbs.add_parser("list", help=list_help)
    listing.add_argument("--json", action="store_true", help="print as JSON")
    dropping = verbs.add_parser(drop, help=drop_help)
    dropping.add_argument("id", nargs="?", help="as `list` shows it")
    dropping.add_argument("--all", action="store_true", help="all of them")


def require_one_or_all(args: argparse.Namespace, command: str, noun: str) -> None:
    """:raises UsageError: unless there is an id, or `--all`, and not both"""
    if bool(args.id) == args.all:
        raise UsageError(f"say which {noun} to {args.verb}, or `--all`", hint=f"`orch {command} list` shows them")
