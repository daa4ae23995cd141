"""Asks upstream what a start would take: `llama-server --fit on` with its own flags, ended once it has said so.

About a second; no weights are read. The probe opens a device context, and on models with a recurrent state it really
allocates that, so that it is never run beside a full card. `llama-fit-params` reserves logits that a server does not,
and the fork's `--dry-run` allocates everything: neither is asked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.ports import free_port
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.engine_log.projection import PROJECTED, Projection, read_projection
from orchestrator.core.errors import OrchError
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.core.profile.speculation import drafts_with_mtp
from orchestrator.engines.ask import ask
from orchestrator.engines.registry import Engine
from orchestrator.engines.render import render_profile

TIMEOUT_S = 30.0

PROBE_MIB = 1024
"""A device context and its modules: what has to be free for the question, beside the recurrent state."""

_FIT = ("--fit", "-fit")


class NoProjectionError(OrchError):
    """Raised when the engine was not asked, or did not say."""


def can_project(capabilities: Capabilities) -> bool:
    """Return whether a build projects what the settings as given would take."""
    return capabilities.kind == "upstream" and any(flag in capabilities.flags for flag in _FIT)


def project(
    paths: Paths, profile: Profile, engine: Engine, *, state_mib: float, free_mib: Sequence[int], engine_runs: bool
) -> Projection:
    """Ask the engine.

    :param state_mib: the recurrent state that the probe allocates
    :param free_mib: free memory of each device; empty where that is not known
    :param engine_runs: an engine of ours is running: without figures of the devices nothing is asked then
    :raises NoProjectionError: when it is not asked, or does not answer
    """
    if not can_project(engine.capabilities):
        raise NoProjectionError(f"`{engine.id}` does not project: only upstream with `--fit` does")

    need_mib = state_mib + PROBE_MIB
    if free_mib and min(free_mib) < need_mib:
        raise NoProjectionError(
            f"the engine is not asked: that takes {need_mib:.0f} MiB itself, and {min(free_mib)} MiB are free",
            hint="ask again when nothing runs (`orch down`)",
        )

    if engine_runs and not free_mib:
        raise NoProjectionError(
            "the engine is not asked: another one runs, and how much memory its device has left is not known",
            hint="ask again when nothing runs (`orch down`)",
        )

    with tempfile.TemporaryDirectory(prefix="orch-plan-") as directory:
        key_file = os.path.join(directory, "key")
        with open(key_file, "w", encoding="ascii") as file:
            file.write("none\n")

        rendered = render_profile(paths, profile, engine, port=free_port(), api_key_file=key_file)
        words = fitting_argv(rendered.argv[1:])
        try:
            answer = ask(engine.path, words, env=rendered.env, cwd=directory, timeout_s=TIMEOUT_S, enough=PROJECTED)
        except OSError as error:
            raise NoProjectionError(f"{engine.path} cannot be started: {error.strerror or error}") from error

    found = read_projection(answer.text.splitlines(), mtp_in_model=_mtp_in_model(rendered.profile))
    if found is None:
        lines = [line for line in answer.text.splitlines() if line.strip()]
        raise NoProjectionError(f"`{engine.id}` said nothing of its memory", details=tuple(lines[-3:]))

    if not found.weights:
        raise NoProjectionError(f"`{engine.id}` could not project", details=(found.error,))

    return found


def fitting_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the flags with fitting switched on: a build projects nothing without it, and says so with it."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in _FIT:
            skip = True
        else:
            kept.append(word)

    return (*kept, "--fit", "on")


def _mtp_in_model(profile: EngineProfile) -> bool:
    return drafts_with_mtp(profile.settings) and "speculative.draft_model" not in profile.settings
