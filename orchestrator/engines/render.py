"""From a profile and an engine's name to the command line that would start it. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.dialect.render import render
from orchestrator.core.profile.profile import DEMO_MODEL, EngineProfile, Profile
from orchestrator.core.profile.rules import refuse_combinations
from orchestrator.engines.registry import Engine, EngineRegistry

PORT_PLACEHOLDER = "PORT"
KEY_FILE_PLACEHOLDER = "KEY_FILE"


@dataclass(frozen=True, slots=True)
class RenderedLaunch:
    """All that a process is started with.

    :param engine: the engine's id
    :param argv: the binary first
    :param env: the whole environment, nothing is inherited besides
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


def render_profile(
    paths: Paths,
    profile: Profile,
    engine_id: str | None,
    *,
    adjust: Callable[[EngineProfile], EngineProfile] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    api_key_file: str | None = None,
) -> RenderedLaunch:
    """Resolve the engine and put the profile into its words.

    :param engine_id: a name or a path, by default the profile's own engine
    :param adjust: changes the profile's settings before they are rendered: a rung of the ladder
    :param port: None shows a placeholder, as no port has been chosen yet; so does `api_key_file`
    :raises OrchError: when the engine is not there, or cannot express a setting
    """
    engine = EngineRegistry(paths).resolve(engine_id or profile.engine)
    chosen = profile.for_engine(engine.id)
    refuse_combinations(chosen, engine.capabilities.kind)
    if adjust is not None:
        chosen = adjust(chosen)

    rendered = render(
        chosen,
        engine.capabilities,
        build=f"{engine.id} {engine.build}",
        model=model_path(paths, chosen.model),
        host=host,
        port=PORT_PLACEHOLDER if port is None else str(port),
        api_key_file=api_key_file or KEY_FILE_PLACEHOLDER,
    )
    return RenderedLaunch(
        engine=engine.id,
        build=engine.build,
        binary=engine.path,
        argv=(engine.path, *rendered.argv),
        env=child_environment(os.environ, state_dir=paths.state, extra={}),
        notes=(*_changed(engine), *rendered.notes),
        profile=chosen,
    )


def model_path(paths: Paths, model: str) -> str:
    """The file that a profile's `model` stands for."""
    return os.path.join(paths.cache, "demo", "demo.gguf") if model == DEMO_MODEL else model


def _changed(engine: Engine) -> tuple[str, ...]:
    if not engine.changed:
        return ()

    return (f"{engine.path} is not the program that was added: run `orch engines add {engine.id} {engine.path}`",)
