"""`orch down`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.api.wording import target_text
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

HELP = "stop the engine; running requests may end first"
EXAMPLES = """\
  orch down                # everything
  orch down embed          # one of several; the others serve on
  orch down --force        # do not wait for running requests
  orch down --all          # the daemon as well, whoever started it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profiles", nargs="*", metavar="profile", help="stop these alone")
    parser.add_argument("--force", action="store_true", help="cut running requests off")
    parser.add_argument(
        "--all", action="store_true", help="end the daemon too (one that `orch up` started ends anyway)"
    )
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print what was stopped as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    if args.profiles and args.all:
        hint = "`orch down --all` stops everything"
        raise UsageError("`--all` ends the daemon, so it takes no profiles", hint=hint)

    path = find_paths().control_socket
    body: dict[str, object] = {"force": args.force, "all": args.all}
    if args.profiles:
        body["profiles"] = args.profiles

    answer = json.loads(client.request(path, "/v1/down", json.dumps(body).encode()))
    ends = bool(answer["daemon_ends"])
    stopped = [target["profile"] for target in answer["targets"]] if args.profiles else ()
    news = waiting.until_stopped(path, answer["daemon_pid"], daemon_ends=ends, timeout_s=args.timeout, profiles=stopped)
    if args.json:
        output.json_data({"stopped": answer["target"], "daemon_ended": ends, "targets": answer["targets"]})
    elif answer["target"] is None:
        diagnostics.note("nothing was running" + (", the daemon ended" if ends else ""))
    elif args.profiles and not ends:
        diagnostics.note(f"stopped {', '.join(map(target_text, answer['targets']))}")
    else:
        kept = "" if ends else "; the gateway still answers, end it with `orch down --all`"
        diagnostics.note(f"stopped {', '.join(map(target_text, answer['targets']))}{kept}")
        if news is not None and news["state"] != "stopped":
            diagnostics.note(f"since then something else was asked for: {news['progress']}")

    return exit_codes.OK
