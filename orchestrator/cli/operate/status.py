"""`orch status`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output

HELP = "show what is running"
EXAMPLES = """\
  orch status
  orch status --json
  orch status || orch up          # exit code 3 when nothing runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    answer = client.request(find_paths().control_socket, "/v1/status")
    if args.json:
        output.raw(answer.decode() + "\n")
        return diagnostics.NOT_RUNNING if b'"state":"stopped"' in answer else diagnostics.OK

    import json

    from orchestrator.cli.operate.render_status import lines

    status = json.loads(answer)
    for line in lines(status):
        output.line(line)

    return diagnostics.NOT_RUNNING if status["state"] == "stopped" else diagnostics.OK
