"""`orch serve`."""

from __future__ import annotations

import argparse

HELP = "run the daemon in the foreground"
EXAMPLES = """\
  orch serve                      # goes on with what ran before, or the default profile
  orch serve demo
  ORCH_GATEWAY_PORT=9000 orch serve"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", nargs="?", help="start this profile at once")
    parser.add_argument("--engine", metavar="ID", help="another engine than the profile's own")
    parser.add_argument("--started-by-up", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from orchestrator.daemon.process.desired_target import StartOptions
    from orchestrator.daemon.process.main import serve

    return serve(StartOptions(args.profile, args.engine, args.started_by_up))
