"""`orch up`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.api.types import InstanceStatus
from orchestrator.cli import diagnostics, output, starting
from orchestrator.cli.start_options import HINT, add_start_options
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

HELP = "start the engine of a profile and wait until it answers; starts the daemon if none runs"
EXAMPLES = """\
  orch up demo
  orch up qwen3.6-35b-a3b-12gb --engine upstream
  orch up chat embed              # several; requests without a model go to the first
  orch up                         # what ran last, or the default profile
  orch up demo --dry-run          # what would be started, and what speaks against it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profiles", nargs="*", metavar="profile", help="names of profiles, or aliases of them")
    add_start_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check profile, build and model files, and show the command line"
    )
    parser.add_argument("--json", action="store_true", help="print the status as JSON")


def run(args: argparse.Namespace) -> int:
    if args.engine and len(args.profiles) > 1:
        hint = f"`orch up {args.profiles[0]} --engine {args.engine}`, then `orch load {args.profiles[1]}`"
        raise UsageError("`--engine` is for one profile, and several were named", hint=hint)

    if args.dry_run:
        return _dry_run(args)

    paths = find_paths()
    first, beside = args.profiles[:1], args.profiles[1:]
    given = (
        ("profile", "".join(first)),
        ("engine", args.engine),
        ("beside", beside),
        ("unverified", args.unverified),
        ("force", args.force),
    )
    answer = starting.request_start(paths, {name: value for name, value in given if value})
    rows: list[InstanceStatus] = []
    if args.detach:
        status = client.status(paths.control_socket)
    else:
        try:
            status, rows = starting.await_start(paths.control_socket, answer, args.timeout)
        except starting.NotSwitchedError:
            if args.json:
                output.json_data(client.status(paths.control_socket))

            raise

    if args.json:
        output.json_data(status)

    if starting.is_ready(answer, status):
        if not args.json:
            serving = [(row["profile"], row["engine"]) for row in rows if row["state"] == "ready"]
            for profile, engine in [(status["profile"], status["engine"]), *serving]:
                output.line(f"{profile} on {engine} answers at {status['gateway']['url']}/v1")

        for row in rows:
            if row["state"] != "ready":
                text = f"{row['profile']} on {row['engine']} was not loaded: {row['cause']}"
                raise OrchError(text, details=(f"{status['profile']} serves",), hint=row["hint"] or HINT)

        return exit_codes.OK

    if args.detach:
        return exit_codes.OK

    raise starting.not_started(answer, status)


def _dry_run(args: argparse.Namespace) -> int:
    """Find what would keep it from starting, without a daemon; a model's headers are read, its weights are not."""
    import os
    import shlex

    from orchestrator.adapters.hardware.gpu_sources import open_gpus
    from orchestrator.daemon.fleet.preparing import Preparer

    if len(args.profiles) != 1:
        raise UsageError("say one profile that would be started", hint="`orch up PROFILE --dry-run`")

    preparer = Preparer(find_paths(), open_gpus(os.environ))
    resolved = preparer.resolve(args.profiles[0], args.engine, unverified=args.unverified, force=args.force)
    target = resolved.target
    if args.json:
        values = {"profile": target.profile, "engine": target.engine, "argv": list(resolved.argv)}
        output.json_data({**values, "model_bytes": resolved.model_bytes, "notes": list(resolved.notes)})
        return exit_codes.OK

    for note in resolved.notes:
        diagnostics.note(f"note: {note}")

    diagnostics.note(f"{target}: nothing speaks against a start; the model has {resolved.model_bytes >> 20} MiB")
    output.line(shlex.join(resolved.argv))
    return exit_codes.OK
