"""`orch verify`: whether an engine computes rightly, on models whose answers are known and on the user's own."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.core.verify.checks import Check
    from orchestrator.engines.registry import Engine, EngineRegistry
    from orchestrator.engines.verify.own_model import Candidate
    from orchestrator.engines.verify.verifier import Report

HELP = "check that an engine computes rightly, by itself or against another one"
EXAMPLES = """\
  orch verify                                    every engine, on models whose answers are known
  orch verify ik-fork --full                     with micro-batches around 32 for each weight type
  orch verify qwen@ik-fork                       your model: the engine against itself
  orch verify qwen@ik-fork --against upstream    your model: one engine against the other
  orch verify ~/models/some.gguf@upstream --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="an engine (known truth), or PROFILE[@ENGINE] or FILE.gguf[@ENGINE] (your model); default: every engine",
    )
    parser.add_argument("--against", metavar="TARGET", help="compare with this engine, on the same model")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--quick", action="store_true", help="the usual micro-batch alone (the default)")
    depth.add_argument("--full", action="store_true", help="micro-batches around 32 for each weight type as well")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths, make_directories
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.verify.verifier import Verifier

    paths = find_paths()
    registry = EngineRegistry(paths)
    make_directories(paths)
    verifier = Verifier(paths, diagnostics.progress)
    reports: list[Report] = []
    for target in args.targets or _all_engines(registry):
        engine = _engine(paths, registry, target)
        if engine is not None and args.against is None:
            reports.append(verifier.known_truth(engine, full=args.full))
            continue

        if engine is not None:
            raise UsageError(
                "--against compares two engines on a model of yours; a whole engine is compared with the known truth",
                hint=f"run `orch verify PROFILE@{target} --against {args.against}`",
            )

        candidate = _candidate(paths, registry, target)
        _refuse_beside_another(paths)
        other = None if args.against is None else _other(paths, registry, candidate, args.against)
        reports.append(verifier.own_model(candidate, other))

    diagnostics.clear_progress()
    if args.json:
        shown = [report.as_json() for report in reports]
        output.json_data(shown[0] if len(shown) == 1 else shown)
    else:
        for report in reports:
            _show(report)

    return exit_codes.OK if all(report.verdict != "wrong" for report in reports) else exit_codes.FAILED


def _all_engines(registry: EngineRegistry) -> list[str]:
    from orchestrator.engines.locate import EngineMissingError

    found = []
    for name in registry.ids():
        try:
            registry.resolve(name)
            found.append(name)
        except EngineMissingError as error:
            diagnostics.note(error.message)

    if not found:
        raise OrchError("there is no engine to verify", hint="run `orch engines list`")

    return found


def _engine(paths: Paths, registry: EngineRegistry, target: str) -> Engine | None:
    """Return the engine that `ENGINE`, `ENGINE@BUILD` or a path names; None for what names a model as well."""
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.core.profile.profile import engine_of

    if target in registry.ids() or (os.sep in target and os.access(target, os.X_OK) and not os.path.isdir(target)):
        return registry.resolve(target)

    engine = engine_of(target)
    names_build = "@" in target and engine in registry.ids() and engine not in ProfileStore(paths).names()
    return registry.resolve(target) if names_build else None


def _candidate(paths: Paths, registry: EngineRegistry, target: str) -> Candidate:
    """Return the model and engine that `PROFILE[@ENGINE]` or `FILE.gguf[@ENGINE]` names."""
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.core.profile.profile import Profile
    from orchestrator.engines.verify.own_model import Candidate

    name, _, engine = target.partition("@")
    if name.endswith(".gguf"):
        file = os.path.abspath(os.path.expanduser(name))
        if not os.path.isfile(file):
            raise UsageError(f"there is no file {file}", hint="run `orch verify --help`")

        profile = Profile(os.path.basename(name).removesuffix(".gguf"), file, file, engine or "upstream")
    else:
        profile = ProfileStore(paths).load(name)

    return Candidate(profile, registry.resolve(engine or profile.engine))


def _other(paths: Paths, registry: EngineRegistry, candidate: Candidate, against: str) -> Candidate:
    from dataclasses import replace

    engine = _engine(paths, registry, against)
    return replace(candidate, engine=engine) if engine is not None else _candidate(paths, registry, against)


def _refuse_beside_another(paths: Paths) -> None:
    """Refuse to load a model beside one that is served: it may not fit."""
    from orchestrator.api import client

    try:
        status = client.status(paths.control_socket)
    except OrchError:
        return

    if status.get("state") not in (None, "stopped", "failed"):
        raise OrchError(
            f"{status.get('profile')} is running, and a second copy of a model may not fit beside it",
            hint="run `orch down` first; a whole engine is verified beside it: `orch verify ENGINE`",
        )


def _show(report: Report) -> None:
    output.table(("OK", "CHECK", "OBSERVED", "BOUND", "DETAIL"), (_row(check) for check in report.checks))
    for check in report.checks:
        if check.shown_by is not None:
            start, ask = check.shown_by.lines()
            output.line(f"to see `{check.name}` again:")
            output.line(f"  {start} --port 8080")
            output.line(f"  {ask}")

    output.line(f"{report.target}: {report.verdict} ({report.summary})")
    for line in report.remarks:
        output.line(f"  {line}")


def _row(check: Check) -> tuple[str, ...]:
    mark = {True: "yes", False: "NO", None: "not tested"}[check.ok]
    expected = check.expected if check.bound is None else f"<= {check.bound:g}"
    if check.bound is not None and check.expected is not None:
        expected = f"{check.expected} +- {check.bound:g}"

    observed = "" if check.observed is None else str(check.observed)
    return (mark, check.name, observed[:48], str(expected or "")[:48], check.detail[:110])
