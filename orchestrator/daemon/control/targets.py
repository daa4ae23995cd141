"""Lists the targets that could be started: each profile on each engine that is there. Blocking: runs in a thread.

Whether a build can express a profile is not looked at here: that is the preview's (`POST /v1/switch` with `dry_run`).
"""

from __future__ import annotations

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.api.choices import TargetChoice, Targets
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import EngineRegistry


def list_targets(paths: Paths, running: Target | None) -> Targets:
    """Return the choices by profile, its own engine first, and what is left out."""
    registry = EngineRegistry(paths)
    builds: dict[str, str] = {}
    left_out: list[str] = []
    for engine in registry.ids():
        try:
            builds[engine] = registry.resolve(engine).build
        except OrchError as error:
            left_out.append(error.message)

    profiles, problems = ProfileStore(paths).load_all()
    left_out += [problem.message for problem in problems]
    targets: list[TargetChoice] = []
    for profile in sorted(profiles, key=lambda each: each.name):
        model = model_file(paths, profile.model)
        if not model.is_available():
            left_out.append(f"profile {profile.name}: the model file does not exist: {model.path}")
            continue

        targets += [
            TargetChoice(
                profile=profile.name,
                engine=engine,
                build=builds[engine],
                description=profile.description,
                default=engine == profile.engine,
                running=running == Target(profile.name, engine),
            )
            for engine in dict.fromkeys((profile.engine, *sorted(builds)))
            if engine in builds
        ]

    return Targets(targets=targets, left_out=left_out)
