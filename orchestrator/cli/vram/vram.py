"""`orch vram`: works without a daemon, which is asked only for the names of its engines."""

from __future__ import annotations

import argparse
import os

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output
from orchestrator.cli.vram import reclaim
from orchestrator.core import exit_codes
from orchestrator.core.errors import NotRunningError, OrchError

HELP = "show who holds device memory, and get back what the desktop takes"
EXAMPLES = """\
  orch vram
  orch vram --json
  orch vram reclaim --plan               # the ways to get back what the desktop takes
  orch vram reclaim --install --dry-run
  sudo orch vram reclaim --uninstall"""

STATUS_S = 3.0
"""For the daemon's answer: who holds memory is known without it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the devices and who holds their memory as JSON")
    reclaim.add_action(parser.add_subparsers(dest="action", metavar="ACTION"))


def run(args: argparse.Namespace) -> int:
    if args.action == "reclaim":
        return reclaim.run(args)

    from orchestrator.adapters.hardware.gpu_sources import open_gpus
    from orchestrator.adapters.hardware.vram_holders import PATIENCE_S, read_vram
    from orchestrator.core.vram.report import report_lines

    gpus = open_gpus(os.environ, PATIENCE_S)
    profiles = _own_engines()
    gpus.watch(profiles)
    report = read_vram(gpus, profiles)
    if args.json:
        output.json_data(report)
        return exit_codes.OK

    rows = report_lines(report)
    owners = [owner for amount, owner, _ in rows if amount]
    width = max(map(len, owners), default=0)
    for number, (amount, owner, release) in enumerate(rows):
        if not amount and number:
            output.line()

        output.line(f"{amount:>11}  {owner:<{width}}  {release}".rstrip() if amount else owner)

    if not rows and not gpus.late:
        output.line("no device with memory of its own: no driver of NVIDIA, AMD or Intel tells of one")

    for note in report["notes"]:
        diagnostics.note(note)

    return exit_codes.OK


def _own_engines() -> dict[int, str]:
    """Return the profile of each engine that the daemon runs, by pid; nothing while no daemon answers."""
    try:
        status = client.status(find_paths().control_socket, STATUS_S)
    except NotRunningError:
        return {}
    except OrchError as error:
        diagnostics.warn(f"the engines of orch are shown without their profiles: {error.message}")
        return {}

    return {row["pid"]: row["profile"] for row in status.get("instances", []) if row["pid"] is not None}
