"""`orch cancel`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import output
from orchestrator.core import exit_codes

HELP = "end one request, wherever it is"
EXAMPLES = """\
  orch cancel req-0f3c9a41b7de5526   # `orch requests` lists the ids
  orch cancel 17                     # by its number, as `orch top` shows it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="its X-Request-Id, or its number")


def run(args: argparse.Namespace) -> int:
    import json

    body = json.dumps({"id": args.id}).encode()
    answer = json.loads(client.request(find_paths().control_socket, "/v1/requests/cancel", body))
    for each in answer["cancelled"]:
        output.line(f"cancelled {each['id']} (number {each['number']})")

    return exit_codes.OK
