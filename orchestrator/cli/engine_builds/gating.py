"""How a build becomes the current one: by the gate at the end of `orch engines build` and `update`, or by `use`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.adapters.store.gates import GateRecord
    from orchestrator.engines.build.installs import Install


def settle(args: argparse.Namespace, paths: Paths, install: Install, *, flip: bool = True) -> GateRecord | None:
    """Make a new build current, unless its gate refuses it.

    :param flip: whether one that has passed its gate is made current, or waits for a person
    :return: what the gate said; None where there was none: no other build was current, or `--no-gate`
    """
    from dataclasses import replace

    from orchestrator.engines.build import installs

    with installs.locked(install.engine, paths):
        before = installs.current(install.engine, paths)
        judged = None
        if before is not None and before.build != install.build and not args.no_gate:
            judged = _judge(args, paths, install, before)
            if judged.state != "accepted":
                return judged

            if not flip:
                return _keep(paths, replace(judged, state="waiting"))

        installs.make_current(install.engine, install.build, paths)

    if judged is None and not args.no_verify:
        _verify(install.engine, paths)

    return judged


def _keep(paths: Paths, record: GateRecord) -> GateRecord:
    from orchestrator.adapters.store.gates import GateStore

    GateStore(paths.gates_file).record(record)
    return record


def _judge(args: argparse.Namespace, paths: Paths, new: Install, current: Install) -> GateRecord:
    from orchestrator.adapters.config.config_file import load_config
    from orchestrator.bench.gate import BuildGate
    from orchestrator.cli.bench_shell import bench_shell

    tolerate_slower = load_config(paths).engines.tolerate_slower / 100
    gate = BuildGate(
        paths, tolerate_slower, not args.no_verify, lambda store: bench_shell(paths, store), diagnostics.progress
    )
    diagnostics.note(f"judging {new.build} against {current.build}, which stays current meanwhile")
    try:
        return gate.run(new, current)
    except KeyboardInterrupt:
        diagnostics.clear_progress()
        diagnostics.note(f"broken off: {current.build} stays current; the same command goes on with it")
        raise
    finally:
        diagnostics.clear_progress()


def _verify(name: str, paths: Paths) -> None:
    """Verify the build that is current now on the known truth, and say what came out; a wrong one stays current."""
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.verify.verifier import Verifier

    report = Verifier(paths, diagnostics.progress).known_truth(EngineRegistry(paths).resolve(name))
    diagnostics.clear_progress()
    if report.verdict == "wrong":
        diagnostics.warn(f"{report.build} computes wrongly: {report.summary}; see `orch verify {name}`")
    else:
        diagnostics.note(f"verified on the known truth: {report.verdict}, {report.summary}")


def use(paths: Paths, args: argparse.Namespace) -> int:
    """Make an installed build current, whatever its gate said."""
    from dataclasses import replace

    from orchestrator.adapters.store.gates import GateStore
    from orchestrator.engines.build import installs

    before, now = installs.use(args.id, args.build, paths)
    judged = GateStore(paths.gates_file).find(args.id, now)
    if judged is not None and judged.state == "waiting":
        judged = _keep(paths, replace(judged, state="accepted"))

    if args.json:
        output.json_data({"id": args.id, "from": before, "to": now})
    else:
        output.line(f"`{args.id}` is {now}, it was {before}")
        note_restart()

    if judged is not None and judged.state not in ("accepted", "running"):
        diagnostics.warn(f"its gate: {judged.state}, {judged.reason}")

    return exit_codes.OK


def note_restart() -> None:
    diagnostics.note("a running engine keeps its build until it is restarted")


def gate_of(paths: Paths, engine: str, build: str) -> dict[str, object] | None:
    """Return what became of a build as `--json` prints it; None where nobody has judged it."""
    from orchestrator.adapters.store.gates import GateStore

    found = GateStore(paths.gates_file).find(engine, build)
    return found.as_json() if found is not None else None


def note_kept_beside(paths: Paths, engine: str) -> None:
    """Say which builds were not made current, why, and how to use one all the same."""
    from orchestrator.adapters.store.gates import GateStore
    from orchestrator.engines.build import installs

    store = GateStore(paths.gates_file)
    for each in installs.installed(engine, paths):
        judged = store.find(engine, each.build)
        if judged is None or each.current or judged.state == "accepted":
            continue

        if judged.state == "running":
            diagnostics.note(f"{engine} {each.build} is being judged against {judged.against}")
            continue

        if judged.state == "waiting":
            diagnostics.note(f"{engine} {each.build} has passed its gate, and waits: {judged.reason}")
        else:
            diagnostics.note(f"{engine} {each.build} was not made current ({judged.state}): {judged.reason}")

        all_the_same = "" if judged.state == "waiting" else " all the same"
        diagnostics.note(f"  `orch engines use {engine} {each.build}` makes it current{all_the_same}")
