"""`orch pin`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

HELP = "keep a profile loaded, whoever needs room, as long as the daemon runs"
EXAMPLES = """\
  orch pin embed           # never unloaded while the daemon runs
  orch pin embed --off     # it may make room again"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", help="a profile's name or one of its aliases")
    parser.add_argument("--off", action="store_true", help="let it make room again, even where its profile pins it")
    parser.add_argument("--json", action="store_true", help="print whether it is pinned as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    path = find_paths().control_socket
    body = json.dumps({"profile": args.profile, "pinned": not args.off}).encode()
    answer = json.loads(client.request(path, "/v1/pin", body))
    if args.json:
        output.json_data(answer)
    else:
        already = "" if answer["changed"] else " already"
        diagnostics.note(f"{answer['profile']} is {'pinned' if answer['pinned'] else 'not pinned'}{already}")

    return exit_codes.OK
