"""`orch events`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import output
from orchestrator.core import exit_codes

HELP = "show what happened: starts, failures, retries, stops"
EXAMPLES = """\
  orch events
  orch events -f --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as events come")
    parser.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="start with the last N events (50)")
    parser.add_argument("--json", action="store_true", help="JSON Lines: id, time, kind, message")


def run(args: argparse.Namespace) -> int:
    import json

    target = f"/v1/events?lines={max(args.lines, 0)}&follow={int(args.follow)}"
    for line in client.stream(find_paths().control_socket, target):
        if args.json:
            output.raw(line.decode() + "\n")
        else:
            event = json.loads(line)
            output.line(f"{event['time']}  {event['kind']:<10}  {event['message']}")

    return exit_codes.OK
