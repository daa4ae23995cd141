"""`orch status`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import output
from orchestrator.cli.engine_builds.waiting import waiting_builds
from orchestrator.core import exit_codes

HELP = "show what is running"
EXAMPLES = """\
  orch status
  orch status --json
  orch status || orch up          # exit code 3 when nothing runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    paths = find_paths()
    answer = client.request(paths.control_socket, "/v1/status")
    if args.json:
        output.raw(answer.decode() + "\n")
        # What is unloaded because nobody uses it serves whoever asks.
        stopped = b'"state":"stopped"' in answer and b'"unloaded":null' in answer and b'"instances":[]' in answer
        return exit_codes.NOT_RUNNING if stopped else exit_codes.OK

    import json

    from orchestrator.cli.operate.render_status import lines

    status = json.loads(answer)
    for line in lines(status):
        output.line(line)

    for text in waiting_builds(paths):
        output.line(f"  engines   {text}")

    serves = status["state"] != "stopped" or status.get("unloaded") is not None or bool(status.get("instances"))
    return exit_codes.OK if serves else exit_codes.NOT_RUNNING
