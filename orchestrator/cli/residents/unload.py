"""`orch unload`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.core import exit_codes

HELP = "end a profile until the next request for it"
EXAMPLES = """\
  orch unload embed        # its memory is free; the next request loads it again
  orch unload embed --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", help="a profile's name or one of its aliases")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print what was unloaded as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    path = find_paths().control_socket
    answer = json.loads(client.request(path, "/v1/unload", json.dumps({"profile": args.profile}).encode()))
    if not answer["unloaded"]:
        waiting.until_unloaded(path, answer["profile"], timeout_s=args.timeout)

    if args.json:
        output.json_data({"profile": answer["profile"], "was_unloaded": answer["unloaded"]})
    else:
        diagnostics.note(f"{answer['profile']} is unloaded{' already' if answer['unloaded'] else ''}")

    return exit_codes.OK
