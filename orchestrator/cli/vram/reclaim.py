"""`orch vram reclaim`: the ways in which the desktop gives device memory back, installed and removed."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.core.vram.desktop_facts import DesktopFacts

EXAMPLES = """\
  orch vram reclaim                      # the ways of this machine, the best first
  orch vram reclaim --plan --json
  orch vram reclaim --install --dry-run  # each file with its text, each command
  sudo orch vram reclaim --install software
  sudo orch vram reclaim --uninstall"""

_TEXT = "show the ways in which the desktop gives device memory back, and install or remove one"
_BEST = "best"


def add_action(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser("reclaim", help=_TEXT, description=_TEXT, allow_abbrev=False)
    parser.epilog = f"examples:\n{EXAMPLES}"
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--plan", action="store_true", help="show the ways for this machine, the best first (the default)"
    )
    what.add_argument(
        "--install",
        nargs="?",
        const=_BEST,
        choices=(_BEST, "integrated", "software"),
        metavar="WAY",
        help="add the files of a way: integrated, software, or the best one (the default); files that are there stay",
    )
    what.add_argument("--uninstall", action="store_true", help="remove all that `--install` has added")
    parser.add_argument("--dry-run", action="store_true", help="show each file and command, and do nothing")
    # SUPPRESS: a default here would undo the `--json` of `orch vram --json reclaim`.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.hardware.desktops import desktop_facts
    from orchestrator.adapters.hardware.gpu_sources import open_gpus
    from orchestrator.adapters.hardware.vram_holders import PATIENCE_S, read_vram

    if args.dry_run and not (args.install or args.uninstall):
        raise UsageError("--dry-run shows what an action would do", hint="add `--install` or `--uninstall`")

    # Without the profiles of our engines: only what the desktop holds counts here.
    facts = desktop_facts(read_vram(open_gpus(os.environ, PATIENCE_S), {}))
    if args.install or args.uninstall:
        return _change(args, facts)

    return _show_plan(facts, as_json=args.json)


def _show_plan(facts: DesktopFacts, *, as_json: bool) -> int:
    from dataclasses import asdict

    from orchestrator.cli.steps import steps_data
    from orchestrator.core.vram.reclaim import plan_lines, reclaim_plan

    plan = reclaim_plan(facts)
    if as_json:
        ways = [{**asdict(way), "steps": steps_data(way.steps)} for way in plan.ways]
        data = {"version": 1, "situation": plan.situation, "ways": ways, "notes": plan.notes}
        output.json_data({**data, "installed": sorted(facts.written)})
        return exit_codes.OK

    for line in plan_lines(plan, _as_root()):
        output.line(line)

    if facts.written:
        output.line()
        output.line(
            f"installed: {', '.join(sorted(facts.written))} (`{_as_root()} vram reclaim --uninstall` removes it)"
        )

    return exit_codes.OK


def _change(args: argparse.Namespace, facts: DesktopFacts) -> int:
    from orchestrator.adapters.systemd.steps import Tools, perform_steps
    from orchestrator.cli.steps import show_steps, steps_data, visible_steps
    from orchestrator.core.vram.reclaim import install_steps, uninstall_steps

    if args.install:
        way, steps = install_steps(facts, None if args.install == _BEST else args.install)
        option, done = f"--install {way}", f"installed: {way}"
    else:
        steps = uninstall_steps(facts)
        option, done = "--uninstall", "removed"

    if args.dry_run:
        if args.json:
            output.json_data({"version": 1, "steps": steps_data(steps)})
        else:
            show_steps(steps)

        return exit_codes.OK

    if steps and os.geteuid() != 0:
        raise OrchError(
            "the files of login sessions are root's",
            details=tuple(map(str, visible_steps(steps))),
            hint=f"`{_as_root()} vram reclaim {option}`; `--dry-run` shows the files",
        )

    perform_steps(steps, Tools(), "/", lambda step: diagnostics.progress(str(step)))
    diagnostics.clear_progress()
    if args.json:
        output.json_data({"version": 1, "steps": steps_data(steps)})
        return exit_codes.OK

    for step in visible_steps(steps):
        diagnostics.note(str(step))

    output.line(done if steps else "nothing to do: it is so already")
    if args.install and steps:
        diagnostics.note("log out, and choose the new session; the usual one is still there")

    return exit_codes.OK


def _as_root() -> str:
    """Return the command that runs this orch as root."""
    from orchestrator.adapters.systemd.machine import this_orch

    return shlex.join(this_orch() if os.geteuid() == 0 else ("sudo", *this_orch()))
