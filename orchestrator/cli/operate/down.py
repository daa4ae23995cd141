"""`orch down`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.core import exit_codes

HELP = "stop the engine; running requests may end first"
EXAMPLES = """\
  orch down
  orch down --force        # do not wait for running requests
  orch down --all          # the daemon as well, whoever started it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="cut running requests off")
    parser.add_argument(
        "--all", action="store_true", help="end the daemon too (one that `orch up` started ends anyway)"
    )
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print what was stopped as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    path = find_paths().control_socket
    body = json.dumps({"force": args.force, "all": args.all}).encode()
    answer = json.loads(client.request(path, "/v1/down", body))
    ends = bool(answer["daemon_ends"])
    news = waiting.until_stopped(path, answer["daemon_pid"], daemon_ends=ends, timeout_s=args.timeout)
    if args.json:
        output.json_data({"stopped": answer["target"], "daemon_ended": ends})
    elif answer["target"] is None:
        diagnostics.note("nothing was running" + (", the daemon ended" if ends else ""))
    else:
        kept = "" if ends else "; the gateway still answers, end it with `orch down --all`"
        diagnostics.note(f"stopped {answer['target']}{kept}")
        if news is not None and news["state"] != "stopped":
            diagnostics.note(f"since then something else was asked for: {news['progress']}")

    return exit_codes.OK
