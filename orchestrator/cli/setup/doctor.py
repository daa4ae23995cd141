"""`orch doctor`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.setup.doctor import CheckResult
    from orchestrator.doctor.examine import Check

HELP = "look for what is wrong with this machine and this installation"
EXAMPLES = """\
  orch doctor
  orch doctor --json | jq '.findings[] | select(.level == "problem")'
  orch doctor --measure PROFILE       # in a quiet moment: how fast memory, disk and bus can be for it
  sudo -u orch orch doctor            # what the system's service sees"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure how fast memory and the model's file are read, and see the cards' links, for `orch plan`: 10 s; "
        "not while a request runs",
    )
    parser.add_argument(
        "profile",
        metavar="PROFILE",
        nargs="?",
        help="whose threads, file and placement --measure goes by; default: the one loaded, else the configured one",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.measure:
        return _measure(args.profile, as_json=args.json)

    if args.profile is not None:
        raise UsageError("only `--measure` is about one profile", hint=f"orch doctor --measure {args.profile}")

    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.systemd.steps import Tools
    from orchestrator.doctor.examine import DoctorContext, examine

    findings = examine(DoctorContext(find_paths(), os.environ, Tools()), _checks())
    count = {level: sum(each.level == level for each in findings) for level in ("problem", "warning")}
    if args.json:
        counts = {"problems": count["problem"], "warnings": count["warning"]}
        output.json_data({"version": 1, **counts, "findings": _described(findings)})
    else:
        _show(findings)
        words = (f"{n} {level}{'' if n == 1 else 's'}" for level, n in count.items())
        diagnostics.note(", ".join(words))

    return exit_codes.FAILED if count["problem"] else exit_codes.OK


def _measure(profile: str | None, *, as_json: bool) -> int:
    from orchestrator.adapters.config.config_file import load_config
    from orchestrator.adapters.paths import find_paths, make_directories
    from orchestrator.doctor.measure import figures, measure, usual_profile

    paths = find_paths()
    make_directories(paths)
    profile = profile or usual_profile(paths, load_config(paths).daemon.default_profile)
    diagnostics.progress("reading memory" if profile is None else f"reading memory, and the disk of {profile}")
    found = measure(paths, profile)
    diagnostics.clear_progress()
    if as_json:
        output.json_data({"version": 1, **dict(figures(found)), "findings": _described(found.findings)})
    else:
        _show(found.findings)
        kept = found.kept
        fastest = f"{kept.gb_s:.1f} GB/s on {kept.when[:10]} with {kept.threads} threads"
        diagnostics.note(f"kept for `orch plan`; decoding on the host cannot exceed the fastest reading, {fastest}")

    return exit_codes.OK


def _described(findings: tuple[CheckResult, ...]) -> list[dict[str, str | None]]:
    return [{"level": each.level, "what": each.what, "text": each.text, "fix": each.fix} for each in findings]


def _show(findings: tuple[CheckResult, ...]) -> None:
    width = max(len(each.what) for each in findings)
    for each in findings:
        output.line(f"{each.level:<7}  {each.what:<{width}}  {each.text}")
        if each.fix:
            output.line(f"{'':<7}  {'':<{width}}  -> {each.fix}")


def _checks() -> dict[str, Check]:
    from orchestrator.doctor import files, machine, running, speculation, speed

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
        "mtp": speculation.check_mtp,
        "speed": speed.check_speed,
        "service": machine.check_service,
        "running": running.check_running,
    }
