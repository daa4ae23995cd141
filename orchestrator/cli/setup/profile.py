"""`orch profile`: list, show, check and render profiles; changes are in `profile_edit`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.adapters.config.profile_files import ProfileSource, ProfileStore, ResolvedProfile
    from orchestrator.core.problems import Problem

HELP = "list, show, check, render, set and create profiles"
EXAMPLES = """\
  orch profile list
  orch profile check ./my.toml
  orch profile check ./my.toml --engine ik-fork
  orch profile render qwen3.6-35b-a3b-12gb --engine upstream
  orch profile set qwen3.6-35b-a3b-12gb memory.fit_margin=1792"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from orchestrator.cli.setup import profile_edit

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        if json:
            added.add_argument("--json", action="store_true", help="print JSON")

        return added

    action("list", "list every profile: yours, and those that orch ships")
    action("show", "show what a profile says, and which file says it").add_argument("profile", metavar="NAME_OR_FILE")
    check = action("check", "list everything that is wrong with profiles; all of them without a name")
    check.add_argument("profiles", nargs="*", metavar="NAME_OR_FILE")
    check.add_argument("--engine", metavar="ID", help="check besides what this engine's build can express")
    render = action("render", "show the command line that a profile becomes for an engine")
    render.add_argument("profile", metavar="NAME_OR_FILE")
    render.add_argument("--engine", metavar="ID", help="by default the engine that the profile names")
    profile_edit.add_set(action("set", "set keys of a profile, keeping its comments"))
    profile_edit.add_new(action("new", "create a profile"))
    action("schema", "print the JSON Schema of profiles, for editors", json=False)


def run(args: argparse.Namespace) -> int:
    from orchestrator.cli.setup import profile_edit

    actions = {
        "list": _list,
        "show": _show,
        "check": _check,
        "render": _render,
        "set": profile_edit.set_keys,
        "new": profile_edit.new,
        "schema": _schema,
    }
    return actions[args.action](args)


def _store() -> ProfileStore:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.adapters.paths import find_paths

    return ProfileStore(find_paths())


def _list(args: argparse.Namespace) -> int:
    from orchestrator.core.profile.reading import may_lack_model

    store = _store()
    entries: list[dict[str, object]] = []
    for name in store.names():
        try:
            resolved = store.resolve(name)
        except OrchError as error:
            entries.append(_entry(name, "", "", None, f"{error.message}: run `orch profile check {name}`"))
            continue

        profile, source = resolved.profile, resolved.sources[0]
        if profile is not None:
            entries.append(_entry(name, profile.engine, profile.model, source.shipped, profile.description))
        elif may_lack_model(name):
            description = str(resolved.values.get(("description",), ""))
            entries.append(_entry(name, "", "", source.shipped, f"(to be extended) {description}"))

    if args.json:
        output.json_data({"version": 1, "profiles": entries})
    else:
        headers = ("NAME", "ENGINE", "FROM", "DESCRIPTION")
        output.table(headers, [[entry[key] for key in ("name", "engine", "from", "description")] for entry in entries])

    return exit_codes.OK


def _entry(name: str, engine: str, model: str, shipped: bool | None, description: str) -> dict[str, object]:
    origin = {True: "shipped", False: "yours", None: "broken"}[shipped]
    return {"name": name, "engine": engine, "from": origin, "description": description, "model": model}


def _show(args: argparse.Namespace) -> int:
    from orchestrator.core.problems import dotted

    resolved = _store().resolve(args.profile)
    rows = [(dotted(key), value, *_origin(resolved, key)) for key, value in resolved.values.items()]
    rows = [row for row in rows if row[0] not in ("schema", "extends")]
    own = resolved.sources[0]
    variants = resolved.profile.variants if resolved.profile is not None else ()
    rows += [("variants", variant.as_document(), *_own(own)) for variant in variants]
    if args.json:
        output.json_data(
            {
                "version": 1,
                "name": own.name,
                "file": own.path,
                "extends": [source.name for source in resolved.sources[1:]],
                "values": [
                    {"key": key, "value": value, "from": origin, "file": file} for key, value, origin, file in rows
                ],
            }
        )
    else:
        diagnostics.note(f"profile `{own.name}`, {own.path}")
        output.table(
            ("KEY", "VALUE", "FROM"),
            [(key, _toml(value), origin) for key, value, origin, _ in sorted(rows, key=lambda row: row[0])],
        )

    return exit_codes.OK


def _origin(resolved: ResolvedProfile, key: tuple[str | int, ...]) -> tuple[str, str]:
    source = resolved.origins[key]
    if source is resolved.sources[0]:
        return _own(source)

    return f"parent {source.name}{', shipped' if source.shipped else ''}", source.path


def _own(source: ProfileSource) -> tuple[str, str]:
    return ("own, shipped" if source.shipped else "own"), source.path


def _toml(value: object) -> str:
    import json

    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _check(args: argparse.Namespace) -> int:
    from orchestrator.cli.setup import profile_check
    from orchestrator.core.errors import UsageError
    from orchestrator.core.problems import Problem, ProblemsError

    store = _store()
    problems: list[Problem] = []
    checked = len(args.profiles) or len(store.names())
    remarks: list[tuple[str, str]] = []
    for wanted in args.profiles or store.names():
        try:
            resolved = store.resolve(wanted)
            if resolved.profile is not None:
                remarks += profile_check.look_closer(resolved, args.engine, problems)
        except ProblemsError as error:
            problems += (problem for problem in error.problems if problem not in problems)
        except UsageError as error:
            problems.append(Problem(error.message, hint=error.hint))

    if not args.profiles:
        problems += (problem for problem in store.load_all()[1] if problem not in problems)

    if args.json:
        output.json_data(
            {
                "version": 1,
                "checked": checked,
                "problems": [_as_json(problem) for problem in problems],
                "remarks": [{"file": file, "message": message} for file, message in remarks],
            }
        )
    else:
        for problem in problems:
            output.line(str(problem))

        for file, message in remarks:
            diagnostics.note(f"{file}: {message}")

    count = "no problem" if not problems else "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    diagnostics.note(f"{checked} profile{'' if checked == 1 else 's'} checked: {count}")
    return exit_codes.USAGE if problems else exit_codes.OK


def _as_json(problem: Problem) -> dict[str, object]:
    return {
        "file": problem.file,
        "line": problem.line,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
    }


def _render(args: argparse.Namespace) -> int:
    import shlex

    from orchestrator.adapters.paths import find_paths
    from orchestrator.core.starts.cpu_pinning import cpu_list
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.render import render_profile
    from orchestrator.engines.start_plan import offset_of

    paths = find_paths()
    profile = _store().load(args.profile)
    engine = EngineRegistry(paths).resolve(args.engine or profile.engine)
    launch = render_profile(paths, profile, engine, offset=offset_of(paths, profile, engine))
    if args.json:
        output.json_data(
            {
                "engine": launch.engine,
                "build": launch.build,
                "binary": launch.binary,
                "argv": list(launch.argv),
                "env": dict(launch.env),
                "notes": list(launch.notes),
                "cpus": list(launch.cpus),
            }
        )
        return exit_codes.OK

    for note in launch.notes:
        diagnostics.note(f"note: {note}")

    environment = [f"{name}={value}" for name, value in launch.env.items()]
    bound = ["taskset", "-c", cpu_list(launch.cpus)] if launch.cpus else []
    output.line(shlex.join([*bound, "env", "-i", *environment, *launch.argv]))
    return exit_codes.OK


def _schema(args: argparse.Namespace) -> int:
    from orchestrator.core.profile.schema import profile_schema

    output.json_data(profile_schema())
    return exit_codes.OK
