"""`orch doctor`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

if TYPE_CHECKING:
    from orchestrator.core.setup.doctor import CheckResult
    from orchestrator.doctor.examine import Check

HELP = "look for what is wrong with this machine and this installation"
EXAMPLES = """\
  orch doctor
  orch doctor --json | jq '.findings[] | select(.level == "problem")'
  sudo -u orch orch doctor            # what the system's service sees"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.systemd.steps import Tools
    from orchestrator.doctor.examine import DoctorContext, examine

    findings = examine(DoctorContext(find_paths(), os.environ, Tools()), _checks())
    count = {level: sum(each.level == level for each in findings) for level in ("problem", "warning")}
    if args.json:
        described = [{"level": each.level, "what": each.what, "text": each.text, "fix": each.fix} for each in findings]
        output.json_data(
            {"version": 1, "problems": count["problem"], "warnings": count["warning"], "findings": described}
        )
    else:
        _show(findings)
        words = (f"{n} {level}{'' if n == 1 else 's'}" for level, n in count.items())
        diagnostics.note(", ".join(words))

    return exit_codes.FAILED if count["problem"] else exit_codes.OK


def _show(findings: tuple[CheckResult, ...]) -> None:
    width = max(len(each.what) for each in findings)
    for each in findings:
        output.line(f"{each.level:<7}  {each.what:<{width}}  {each.text}")
        if each.fix:
            output.line(f"{'':<7}  {'':<{width}}  -> {each.fix}")


def _checks() -> dict[str, Check]:
    from orchestrator.doctor import files, machine

    return {
        "orch": machine.check_orch,
        "kernel": machine.check_kernel,
        "libraries": machine.check_libraries,
        "driver": machine.check_driver,
        "devices": machine.check_devices,
        "memlock": machine.check_memlock,
        "directories": files.check_directories,
        "room": files.check_room,
        "state": files.check_state,
        "config": files.check_config,
        "gateway": files.check_gateway,
        "profiles": files.check_profiles,
        "engines": files.check_engines,
        "service": machine.check_service,
    }
