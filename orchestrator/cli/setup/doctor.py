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
  orch doctor --measure               # in a quiet moment: a ceiling for speeds on the host
  sudo -u orch orch doctor            # what the system's service sees"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--measure", action="store_true", help="measure how fast memory is read, for `orch plan`: 5 s")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.measure:
        return _measure(as_json=args.json)

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


def _measure(*, as_json: bool) -> int:
    from orchestrator.adapters.hardware.memory_speed import measure_memory
    from orchestrator.adapters.paths import find_paths, make_directories
    from orchestrator.adapters.store.speeds import SpeedStore

    paths = find_paths()
    make_directories(paths)
    diagnostics.progress("reading memory")
    found = measure_memory()
    SpeedStore(paths.speeds_file).record_host(found.best)
    if as_json:
        output.json_data(
            {"host_gb_s": round(found.best, 2), "middle_gb_s": round(found.middle, 2), "processes": found.processes}
        )
    else:
        text = f"memory is read at {found.best:.1f} GB/s at best, {found.middle:.1f} in the middle of the rounds"
        output.line(f"{text}, by {found.processes} process{'' if found.processes == 1 else 'es'}")
        diagnostics.note("kept: `orch plan` takes the best for what decoding on the host cannot exceed")

    return exit_codes.OK


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
