"""`orch engines build|update|use|rollback`, the installed builds in `list`, and their part of `remove`."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.cli.engine_builds import gating, news
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.adapters.store.gates import GateRecord
    from orchestrator.engines.build.install import BuildOptions, InstallResult
    from orchestrator.engines.build.installs import Install
    from orchestrator.engines.build.output import Progress
    from orchestrator.engines.build.sources import GitSource, Source

Adder = Callable[[str, str], argparse.ArgumentParser]

_BACKENDS = ("cuda", "rocm", "metal", "vulkan", "cpu")
"""A copy of `build_plan.BACKENDS`, which this module imports only to build; a test compares them."""

WATCH_EXAMPLES = """\
  orch engines watch                     # each engine that orch built
  orch engines watch upstream --jobs 2
  orch engines watch --json"""

_DEFAULT = ""

JUDGED = ("accepted", "waiting", "refused")
"""States of a gate that came to its end."""


def add_actions(action: Adder) -> None:
    build = action("build", "compile an engine from source and install it beside the builds that are there")
    build.add_argument("id", metavar="ID", help="upstream or ik-fork")
    source = build.add_mutually_exclusive_group()
    source.add_argument(
        "--git",
        nargs="?",
        const=_DEFAULT,
        metavar="URL",
        help="fetch with git (the default; without URL the project's)",
    )
    source.add_argument("--path", metavar="CHECKOUT", help="a source tree on this machine; it is not written to")
    source.add_argument(
        "--pypi", nargs="?", const=_DEFAULT, metavar="VERSION", help="a source archive of the Python package index"
    )
    build.add_argument("--commit", metavar="SHA", help="with git: 40 hexadecimal digits")
    build.add_argument("--branch", metavar="NAME", help="with git: a branch or tag; its commit of now is pinned")
    _add_build_options(build)

    update = action("update", "build the newest of what the current build was made from, and show what changed")
    update.add_argument("id", metavar="ID")
    _add_build_options(update)
    use = action("use", "make an installed build the current one, whatever was found of it")
    use.add_argument("id", metavar="ID")
    use.add_argument("build", metavar="BUILD", help="`orch engines list --builds` shows them")
    news = action("outdated", "tell what there is newer than the current builds, and build nothing")
    news.add_argument("id", metavar="ID", nargs="?", help="of this engine alone")
    watch = action("watch", "look once for newer sources, build them at idle priority, judge and tell; for a timer")
    watch.epilog = f"examples:\n{WATCH_EXAMPLES}"
    watch.add_argument("id", metavar="ID", nargs="?", help="this engine alone")
    watch.add_argument("--jobs", type=int, metavar="N", help="compilers at once, by default by cores and memory")
    action("rollback", "go back to the build that was current before").add_argument("id", metavar="ID")


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", choices=_BACKENDS, help="by default what the machine has a device and tools for")
    parser.add_argument("--jobs", type=int, metavar="N", help="compilers at once, by default by cores and memory")
    parser.add_argument(
        "--no-verify", action="store_true", help="leave out `orch verify`, some 20 s; the smoke test stays"
    )
    parser.add_argument(
        "--no-gate", action="store_true", help="make it current without comparing it with the current build"
    )
    parser.add_argument(
        "--define", action="append", default=[], metavar="NAME=VALUE", help="one more cmake definition; repeatable"
    )


def run_action(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths

    paths = find_paths()
    if args.id is not None:
        check_id(args.id)

    actions = {
        "build": _build,
        "update": _update,
        "rollback": _rollback,
        "use": gating.use,
        "outdated": news.outdated,
    }
    return actions[args.action](paths, args)


def _build(paths: Paths, args: argparse.Namespace) -> int:
    return _show(args, paths, *install_and_settle(args, _source(args), paths))


def _update(paths: Paths, args: argparse.Namespace) -> int:
    from orchestrator.engines.build import git as build_git
    from orchestrator.engines.build import installs
    from orchestrator.engines.build import sources as build_sources

    before = installs.current(args.id, paths)
    if before is None:
        raise UsageError(f"engine `{args.id}` has no installed build", hint=f"run `orch engines build {args.id}`")

    source = build_sources.source_of_record(before.manifest["source"])
    result, judged = install_and_settle(args, source, paths, before)
    old, new = before.manifest["source"], result.install.manifest["source"]
    changes = None
    if old.get("commit") and new.get("commit") and new["kind"] == "git" and old["commit"] != new["commit"]:
        changes = build_git.commits_between(build_sources.repository_of(args.id, paths), old["commit"], new["commit"])

    if result.install.build == before.build:
        diagnostics.note(f"`{before.build}` is the newest already")
    else:
        diagnostics.note(f"{before.build} -> {result.install.build}")
        if changes is not None:
            number, lines = changes
            diagnostics.note(f"{number} commits between them{', the newest:' if number > len(lines) else ':'}")
            for line in lines:
                diagnostics.note(f"  {line}")

    more: dict[str, object] = {"previous": before.build, "changed": result.install.build != before.build}
    if changes is not None:
        more |= {"commits": changes[0], "log": list(changes[1])}

    return _show(args, paths, result, judged, more)


def _rollback(paths: Paths, args: argparse.Namespace) -> int:
    from orchestrator.engines.build import installs

    before, now = installs.rollback(args.id, paths)
    if args.json:
        output.json_data({"id": args.id, "from": before, "to": now})
    else:
        output.line(f"`{args.id}` is {now} again, it was {before}")
        gating.note_restart()

    return exit_codes.OK


def remove_builds(paths: Paths, args: argparse.Namespace) -> int:
    """Delete installed builds: the one that `--build` names, or all."""
    from orchestrator.engines.build import installs

    check_id(args.id)
    gone = installs.remove(args.id, paths, args.build)
    freed_mib = sum(each.size_bytes for each in gone) >> 20
    if args.json:
        output.json_data({"removed": args.id, "builds": [each.build for each in gone], "freed_mib": freed_mib})
    else:
        output.line(f"removed {', '.join(each.build for each in gone)} of `{args.id}`: {freed_mib} MiB")

    return exit_codes.OK


def has_builds(paths: Paths, engine: str) -> bool:
    from orchestrator.engines.build import installs
    from orchestrator.engines.build.git import REMOTES

    return engine in REMOTES and bool(installs.installed(engine, paths))


def described_builds(engine: str, paths: Paths) -> list[dict[str, object]]:
    """Return the installed builds of an engine as `--json` prints them."""
    from orchestrator.engines.build import installs

    return [_described(each, paths) for each in installs.installed(engine, paths)]


def note_disk_use(paths: Paths, engines: tuple[str, ...]) -> None:
    from orchestrator.engines.build import installs

    for engine in engines:
        builds = installs.installed(engine, paths)
        if builds:
            size = sum(each.size_bytes for each in builds) / 2**20
            plural = "s" if len(builds) > 1 else ""
            diagnostics.note(f"{engine}: {len(builds)} installed build{plural}, {size:.1f} MiB (`--builds` lists them)")
            gating.note_kept_beside(paths, engine)


def list_builds(paths: Paths, engines: tuple[str, ...], args: argparse.Namespace) -> int:
    """Print one line for each installed build."""
    from orchestrator.engines.build import installs

    if args.json:
        output.json_data([each for engine in engines for each in described_builds(engine, paths)])
        return exit_codes.OK

    rows = [
        (
            each.engine,
            each.build,
            "current" if each.current else "previous" if each.previous else "-",
            each.manifest["version"],
            each.manifest["backend"],
            f"{each.size_bytes / 2**20:.1f}",
            each.manifest["built_at"],
        )
        for engine in engines
        for each in installs.installed(engine, paths)
    ]
    if not rows:
        diagnostics.note("no build is installed (`orch engines build upstream`)")

    output.table(("ID", "BUILD", "STATE", "VERSION", "BACKEND", "SIZE_MIB", "BUILT_AT"), rows)
    for engine in engines:
        gating.note_kept_beside(paths, engine)

    return exit_codes.OK


def install_and_settle(
    args: argparse.Namespace,
    source: Source,
    paths: Paths,
    before: Install | None = None,
    *,
    unattended: bool = False,
    flip: bool = True,
) -> tuple[InstallResult, GateRecord | None]:
    """Build, and make the build current unless its gate refuses it.

    :param unattended: build at idle priority, and do not judge again what was judged
    :param flip: whether a build that has passed is made current, or waits
    """
    from dataclasses import replace

    from orchestrator.adapters.store.gates import GateStore
    from orchestrator.engines.build.install import BuildObserver, install_engine
    from orchestrator.engines.build.machine import read_build_host

    def say(text: str) -> None:
        (diagnostics.progress if text.startswith("\r") else diagnostics.note)(text.lstrip("\r"))

    # The compilers are in a session of their own: what ends orch has to end them.
    previous_handlers = {
        each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        options = replace(_build_options(args, before), idle=unattended)
        result = install_engine(args.id, source, options, read_build_host(), paths, BuildObserver(say, _show_step))
        diagnostics.clear_progress()
        known = GateStore(paths.gates_file).find(args.id, result.install.build) if unattended else None
        if known is not None and known.state in JUDGED and not (flip and known.state == "waiting"):
            return result, known

        return result, gating.settle(args, paths, result.install, flip=flip)
    finally:
        diagnostics.clear_progress()
        for each, handler in previous_handlers.items():
            signal.signal(each, handler)


def _build_options(args: argparse.Namespace, before: Install | None) -> BuildOptions:
    from orchestrator.engines.build.install import BuildOptions

    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs is to be 1 or more, not {args.jobs}")

    definitions: dict[str, str] = {}
    for text in args.define:
        name, equals, value = text.partition("=")
        if not equals or not name.replace("_", "").isalnum():
            raise UsageError(f"`--define {text}` is not NAME=VALUE", hint="for example `--define GGML_NATIVE=OFF`")

        definitions[name] = value

    backend = args.backend or (before.manifest["backend"] if before is not None else None)
    return BuildOptions(backend, args.jobs, definitions)


def _source(args: argparse.Namespace) -> Source:
    from orchestrator.engines.build.package_index import PACKAGES
    from orchestrator.engines.build.sources import PathSource, PypiSource

    if args.path is None and args.pypi is None:
        return _git_source(args)

    if args.commit or args.branch:
        raise UsageError("--commit and --branch belong to a source in git", hint="leave out --path and --pypi")

    if args.path is not None:
        return PathSource(os.path.abspath(args.path))

    return PypiSource(PACKAGES[args.id], args.pypi or None)


def _git_source(args: argparse.Namespace) -> GitSource:
    from orchestrator.engines.build.git import REMOTES, check_commit
    from orchestrator.engines.build.sources import GitSource

    if args.commit and args.branch:
        raise UsageError("--commit and --branch exclude each other", hint="a commit needs no branch")

    return GitSource(args.git or REMOTES[args.id], check_commit(args.commit) if args.commit else None, args.branch)


def check_id(engine: str) -> None:
    from orchestrator.core.problems import did_you_mean
    from orchestrator.engines.build.git import REMOTES

    if engine not in REMOTES:
        raise UsageError(
            f"`{engine}` is no engine that orch can build",
            details=(f"allowed: {', '.join(REMOTES)}",),
            hint=did_you_mean(engine, REMOTES) or f"run `orch engines add {engine} PATH` for a program of your own",
        )


def _show_step(step: Progress) -> None:
    left = "" if step.left_s is None else f", about {_clock(step.left_s)} left"
    diagnostics.progress(f"[{step.done}/{step.total}] {_clock(step.elapsed_s)}{left}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _show(
    args: argparse.Namespace,
    paths: Paths,
    result: InstallResult,
    judged: GateRecord | None,
    more: dict[str, object] | None = None,
) -> int:
    from orchestrator.core.dialect.model_limits import known_limits
    from orchestrator.engines.build import installs

    limits = known_limits(result.capabilities.kind, result.capabilities.spec_stages)
    for limit in limits:
        diagnostics.warn(limit)

    install = installs.find(result.install.engine, result.install.build, paths)
    code = exit_codes.OK if install.current else exit_codes.FAILED
    if args.json:
        facts = {**_described(install, paths), "reused": result.reused, "log": result.log, "limits": list(limits)}
        output.json_data({**facts, **({"update": more} if more else {})})
        return code

    if not install.current:
        against = judged.against if judged is not None else "another build"
        output.line(f"`{install.engine}` {install.build} is installed, and {against} stays current")
        gating.note_kept_beside(paths, install.engine)
        return code

    how = "is installed already, and current" if result.reused else f"is installed and current: {install.server}"
    output.line(f"`{install.engine}` {install.build} {how}")
    if judged is not None:
        diagnostics.note(judged.reason)
        gating.note_restart()

    return code


def _described(install: Install, paths: Paths) -> dict[str, object]:
    manifest = install.manifest
    kept = ("version", "commit", "build_number", "backend", "source", "built_at", "build_s", "size_bytes")
    return {
        "id": install.engine,
        "build": install.build,
        "current": install.current,
        "previous": install.previous,
        "server": install.server,
        "gate": gating.gate_of(paths, install.engine, install.build),
        **{name: manifest.get(name) for name in kept},
    }
