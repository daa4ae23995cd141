"""`orch logs`."""

from __future__ import annotations

import argparse
import os

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import output
from orchestrator.core import exit_codes
from orchestrator.core.errors import NotRunningError, OrchError

HELP = "show the engine's log"
EXAMPLES = """\
  orch logs -n 200
  orch logs -f
  orch logs --json | jq -r .text
  orch logs --daemon"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    parser.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="start with the last N lines (100)")
    parser.add_argument("--daemon", action="store_true", help="the daemon's own log, when `orch up` started it")
    parser.add_argument("--json", action="store_true", help="JSON Lines: seq and text")


def run(args: argparse.Namespace) -> int:
    import json

    paths = find_paths()
    if args.daemon:
        return _file(os.path.join(paths.logs, "daemon.log"), args)

    target = f"/v1/logs?lines={max(args.lines, 0)}&follow={int(args.follow)}"
    try:
        for line in client.stream(paths.control_socket, target):
            if args.json:
                output.raw(line.decode() + "\n")
            else:
                output.line(json.loads(line)["text"])
    except NotRunningError:
        if args.follow:
            raise

        return _file(os.path.join(paths.logs, "engine.log"), args)

    return exit_codes.OK


def _file(path: str, args: argparse.Namespace) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise OrchError("there is no log yet", details=(path,), hint="start something: `orch up PROFILE`") from None

    first = max(len(lines) - args.lines, 0)
    for number, text in enumerate(lines[first:], first + 1):
        if args.json:
            output.json_line({"seq": number, "text": text})
        else:
            output.line(text)

    return exit_codes.OK
