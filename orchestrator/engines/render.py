"""From a profile and an engine to the command line that would start it. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.adapters.hardware.cpu_topology import read_topology
from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.dialect.render import render
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.core.profile.remarks import find_remarks
from orchestrator.core.profile.rules import checked_when_read, refuse_combinations
from orchestrator.core.starts.cpu_pinning import LogicalCpu, Pinning, pinning_of
from orchestrator.core.starts.margins import MarginOffset, moved_margin
from orchestrator.engines.model_file import model_file
from orchestrator.engines.probe import ask_arguments
from orchestrator.engines.registry import Engine

PORT_PLACEHOLDER = "PORT"
KEY_FILE_PLACEHOLDER = "KEY_FILE"


@dataclass(frozen=True, slots=True)
class RenderedLaunch:
    """The command line and environment that a process is started with.

    :param engine: the engine's id
    :param argv: the binary first
    :param cpus: that the process is bound to; empty for all
    :param env: the whole environment, nothing else is inherited
    :param notes: what a person should know about how settings were expressed
    :param profile: the profile as it stands for this engine
    """

    engine: str
    build: str
    binary: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    notes: tuple[str, ...]
    profile: EngineProfile
    cpus: tuple[int, ...] = ()


def render_profile(
    paths: Paths,
    profile: Profile,
    engine: Engine,
    *,
    adjust: Callable[[EngineProfile], EngineProfile] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    api_key_file: str | None = None,
    offset: MarginOffset | None = None,
    topology: Sequence[LogicalCpu] | None = None,
) -> RenderedLaunch:
    """Put the profile into the engine's words.

    :param adjust: changes the profile's settings before they are rendered: a rung of the ladder
    :param offset: how far the margin of the build's fit is moved (`start_plan.offset_of`)
    :param topology: the CPUs that may be used (`read_topology`); None reads them where the profile pins
    :param port: None shows a placeholder, as no port has been chosen yet; so does `api_key_file`
    :raises OrchError: when the engine cannot express a setting, or not this combination of them
    """
    chosen = profile.for_engine(engine.id)
    if not checked_when_read(profile, engine.id, engine.capabilities.kind):
        refuse_combinations(chosen, engine.capabilities.kind)

    if adjust is not None:
        chosen = adjust(chosen)

    moved, note = moved_margin(chosen, offset)
    pinning = None
    if "cpu.pin" in moved.settings:
        pinning = pinning_of(moved.settings, read_topology() if topology is None else topology)

    rendered = render(
        moved if pinning is None else _with_a_thread_each(moved, pinning),
        ask_arguments(engine.path, paths, chosen.extra_args, engine.capabilities),
        build=f"{engine.id} {engine.build}",
        model=model_file(paths, chosen.model).path,
        host=host,
        port=PORT_PLACEHOLDER if port is None else str(port),
        api_key_file=api_key_file or KEY_FILE_PLACEHOLDER,
    )
    pinned = pinning.note if pinning is not None else ""
    notes = (*_changed(engine), *rendered.notes, note, pinned, *find_remarks(chosen, engine.capabilities.kind))
    return RenderedLaunch(
        engine=engine.id,
        build=engine.build,
        binary=engine.path,
        argv=(engine.path, *rendered.argv),
        env=child_environment(os.environ, state_dir=paths.state, extra=chosen.environment),
        notes=tuple(filter(None, notes)),
        profile=chosen,
        cpus=pinning.cpus if pinning is not None else (),
    )


def _with_a_thread_each(profile: EngineProfile, pinning: Pinning) -> EngineProfile:
    """Say how many threads compute where the profile does not: an engine counts the machine's cores by itself."""
    threads = profile.settings.get("cpu.threads")
    if not pinning.cpus or isinstance(threads, int):
        return profile

    return replace(profile, settings={**profile.settings, "cpu.threads": len(pinning.cpus)})


def _changed(engine: Engine) -> tuple[str, ...]:
    if not engine.changed:
        return ()

    return (f"{engine.path} is not the program that was added: run `orch engines add {engine.id} {engine.path}`",)
