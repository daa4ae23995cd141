"""`orch config`: the configuration in force, where each value comes from, what is wrong with it; orch's directories."""

from __future__ import annotations

import argparse

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

HELP = "show the configuration and where things are"
EXAMPLES = """\
  orch config show
  orch config check
  orch config path --json
  ORCH_GATEWAY_PORT=9000 orch config show"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("show", "show the configuration in force, and where each value comes from"),
        ("check", "list every mistake in the configuration, and profiles that it names and that are not there"),
        ("path", "show where orch keeps its files"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    match args.action:
        case "show":
            return _show(args)
        case "check":
            return _check(args)
        case _:
            return _path(args)


def _check(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.config_check import find_problems
    from orchestrator.adapters.paths import find_paths

    paths = find_paths()
    problems = find_problems(paths)
    if args.json:
        found = [{"file": each.file, "line": each.line, "key": each.key, "message": each.message, "hint": each.hint}
                 for each in problems]  # fmt: skip
        output.json_data({"version": 1, "file": paths.config_file, "ok": not problems, "problems": found})
    else:
        for each in problems:
            output.line(str(each))

        diagnostics.note(f"{paths.config_file}: {_count(len(problems))}")

    return exit_codes.USAGE if problems else exit_codes.OK


def _count(problems: int) -> str:
    return "nothing is wrong" if not problems else "one problem" if problems == 1 else f"{problems} problems"


def _show(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.config_file import load_with_origins
    from orchestrator.adapters.paths import find_paths

    paths = find_paths()
    loaded = load_with_origins(paths)
    if args.json:
        values = {key: {"value": value, "from": loaded.origins[key]} for key, value in loaded.values.items()}
        output.json_data({"version": 1, "file": paths.config_file, "values": values})
        return exit_codes.OK

    diagnostics.note(f"configuration file: {paths.config_file}")
    rows = [(key, _shown(value), loaded.origins[key]) for key, value in loaded.values.items()]
    output.table(("KEY", "VALUE", "FROM"), rows)
    return exit_codes.OK


def _path(args: argparse.Namespace) -> int:
    from orchestrator.adapters.config.profile_files import shipped_directory
    from orchestrator.adapters.paths import find_paths

    paths = find_paths()
    places = {
        "config_file": paths.config_file,
        "profiles": paths.profiles,
        "shipped_profiles": shipped_directory(),
        "engines_file": paths.engines_file,
        "control_socket": paths.control_socket,
        "logs": paths.logs,
        **{name: getattr(paths, name) for name in ("config", "state", "data", "cache", "runtime")},
    }
    if args.json:
        output.json_data({"version": 1, **places})
    else:
        output.table(("WHAT", "WHERE"), places.items())

    return exit_codes.OK


def _shown(value: object) -> str:
    import json

    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
