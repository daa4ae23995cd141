"""`orch load`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.cli.start_options import HINT, add_start_options
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

HELP = "load a profile beside what runs; where memory is short, another one makes room"
EXAMPLES = """\
  orch load embed                  # waits until it answers
  orch load embed --detach         # does not wait
  orch load chat --engine upstream"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", help="a profile's name or one of its aliases")
    add_start_options(parser)
    parser.add_argument("--json", action="store_true", help="print its row of `orch status --json` as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    path = find_paths().control_socket
    given = (("engine", args.engine), ("unverified", args.unverified), ("force", args.force))
    body = json.dumps({"profile": args.profile, **{name: value for name, value in given if value}}).encode()
    generation = 0
    while True:
        answer = json.loads(client.request(path, "/v1/load", body, timeout_s=120))
        if answer["taken"] or args.detach:
            break

        # What is in its place ends first, once its requests are done.
        news = waiting.status_after(path, generation)
        generation = news["generation"]
        diagnostics.progress(f"{answer['target']} still ends; it is loaded after that")

    if args.detach:
        return exit_codes.OK

    row = waiting.until_loaded(path, answer["profile"], answer["generation"], timeout_s=args.timeout)
    if args.json:
        output.json_data(row)

    target = f"{row['profile']} on {row['engine']}"
    if row["state"] == "failed":
        raise OrchError(f"{target} was not loaded: {row['cause']}", hint=row["hint"] or HINT)

    if not args.json:
        output.line(f"{target} is loaded already" if answer["loaded"] else f"{target} is loaded")

    return exit_codes.OK
