"""From a source to an installed build: plan, build, copy, probe, smoke test. Another step makes it `current`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.build_plan import (
    SERVER,
    Backend,
    BuildHost,
    build_id,
    choose_backend,
    cmake_definitions,
    default_jobs,
)
from orchestrator.engines.build import installs
from orchestrator.engines.build.compile import build as run_build
from orchestrator.engines.build.output import Progress
from orchestrator.engines.build.smoke import SmokeResult, smoke_test
from orchestrator.engines.build.sources import PreparedSource, Source, prepare_source
from orchestrator.engines.locate import BUILT_IN
from orchestrator.engines.probe import probe


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options of a build beside its source.

    :param definitions: more of cmake's `-D`, name to value
    :param idle: compile with what processors and disks have left
    """

    backend: Backend | None = None
    jobs: int | None = None
    definitions: dict[str, str] = field(default_factory=dict)
    idle: bool = False


@dataclass(frozen=True, slots=True)
class BuildObserver:
    """Takes the progress of a build.

    :param say: a line for people; one that begins with a carriage return replaces itself
    """

    say: Callable[[str], None]
    step: Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class InstallResult:
    """:param reused: the build was installed already"""

    install: installs.Install
    capabilities: Capabilities
    reused: bool
    log: str


def install_engine(
    engine: str, source: Source, options: BuildOptions, machine: BuildHost, paths: Paths, observer: BuildObserver
) -> InstallResult:
    """Build an engine and install it beside the builds that are there. Whatever fails, those are as they were.

    :raises OrchError: with what failed
    """
    kind = BUILT_IN[engine]
    choice = choose_backend(machine, options.backend)
    for reason in choice.reasons:
        observer.say(reason)

    jobs = options.jobs or default_jobs(machine.cores, machine.memory_mib)
    definitions = {**cmake_definitions(kind, choice.backend, machine), **options.definitions}
    with installs.locked(engine, paths):
        prepared = prepare_source(engine, source, paths, observer.say)
        name = build_id(prepared.label, choice.backend, prepared.digest, definitions)
        log = os.path.join(prepared.directory, f"build-{choice.backend}.log")
        known = next((each for each in installs.installed(engine, paths) if each.build == name), None)
        if known is not None and installs.verify(known.server) is None:
            capabilities = probe(known.server, paths).capabilities
            return InstallResult(installs.find(engine, name, paths), capabilities, True, log)

        observer.say(f"building {name} with {jobs} jobs; log: {log}")
        # A tree for each back end: cmake keeps what another one had set.
        tree = prepared.tree if choice.backend == "cpu" else f"{prepared.tree}-{choice.backend}"
        programs = machine.programs
        built = run_build(
            prepared.source, tree, log, definitions, programs["cmake"], programs["ninja"], jobs, observer.step,
            idle=options.idle,
        )  # fmt: skip
        observer.say("installing")
        directory = _copy(os.path.join(tree, "bin"), engine, name, built.targets, paths)
        try:
            capabilities, smoke = _test_build(directory, engine, paths, observer)
            facts = {
                "engine": engine,
                "build": name,
                **_facts(prepared, capabilities, choice.backend, definitions, smoke),
                "build_s": round(built.seconds, 1),
            }
            final = _finish_install(directory, facts)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

        probe(os.path.join(final, "bin", SERVER), paths)  # the first start need not ask
        return InstallResult(installs.find(engine, name, paths), capabilities, False, log)


def _copy(built: str, engine: str, name: str, targets: tuple[str, ...], paths: Paths) -> str:
    """Copy the programs and every library that was built to a partial directory, which is no build yet."""
    directory = os.path.join(installs.root_of(engine, paths), f"{name}{installs.PARTIAL}")
    shutil.rmtree(directory, ignore_errors=True)
    target = os.path.join(directory, "bin")
    os.makedirs(target)
    try:
        for file in sorted(os.listdir(built)):
            library = ".so" in file or file.endswith((".dylib", ".metallib", ".metal"))
            if file in targets or library:
                shutil.copy2(os.path.join(built, file), os.path.join(target, file), follow_symlinks=False)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise

    return directory


def _test_build(directory: str, engine: str, paths: Paths, observer: BuildObserver) -> tuple[Capabilities, SmokeResult]:
    server = os.path.join(directory, "bin", SERVER)
    capabilities = probe(server, paths).capabilities
    if capabilities.kind != BUILT_IN[engine]:
        raise OrchError(
            f"the source is not that of `{engine}`",
            details=(f"by its help the server is of kind `{capabilities.kind}`, expected `{BUILT_IN[engine]}`",),
            hint="choose the other engine's name, or another source",
        )

    observer.say("starting it for a smoke test")
    return capabilities, smoke_test(server, capabilities, paths)


def _facts(
    prepared: PreparedSource,
    capabilities: Capabilities,
    backend: Backend,
    definitions: dict[str, str],
    smoke: SmokeResult,
) -> dict[str, object]:
    return {
        "label": prepared.label,
        "version": capabilities.version,
        "commit": prepared.commit,
        "build_number": prepared.build_number,
        "source": prepared.record,
        "backend": backend,
        "cmake": definitions,
        "smoke": smoke._asdict(),
        "built_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _finish_install(directory: str, facts: dict[str, object]) -> str:
    """Write the manifest and give the directory its name."""
    files, links, size = installs.describe(directory)
    for name in files:
        descriptor = os.open(os.path.join(directory, name), os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a manifest must not outlive what it describes when the power fails
        finally:
            os.close(descriptor)

    installs.write_manifest(directory, {**facts, "size_bytes": size, "files": files, "links": links})
    final = directory.removesuffix(installs.PARTIAL)
    if os.path.exists(final):  # an install whose files were changed: this one replaces it
        broken = f"{final}.broken{installs.PARTIAL}"
        shutil.rmtree(broken, ignore_errors=True)
        os.rename(final, broken)
        os.rename(directory, final)
        shutil.rmtree(broken)
    else:
        os.rename(directory, final)

    return final
