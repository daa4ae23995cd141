"""When the engine is asked for its own projection, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import find_paths
from orchestrator.core.dialect.capabilities import Capabilities, Flag
from orchestrator.engines.projection import NoProjectionError, can_project, fitting_argv, project
from orchestrator.engines.registry import Engine

PATHS = find_paths({"ORCH_HOME": "/nonexistent"})
UPSTREAM = Capabilities("upstream", "b11434", 11434, None, {"--fit": Flag("--fit", ("-fit",), value=True)})
ENGINE = Engine("upstream", "/nonexistent/llama-server", UPSTREAM, "b11434", "path", "0" * 64)


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (("-c", "8", "--fit", "off", "-m", "x"), ("-c", "8", "-m", "x", "--fit", "on")),
        (("-fit", "on", "-fitt", "512"), ("-fitt", "512", "--fit", "on")),
        (("-ngl", "99"), ("-ngl", "99", "--fit", "on")),
    ],
)
def test_fitting_is_switched_on_whatever_the_profile_says(argv: tuple[str, ...], asked: tuple[str, ...]) -> None:
    assert fitting_argv(argv) == asked


def test_the_fork_and_builds_without_a_fit_are_not_asked() -> None:
    assert can_project(UPSTREAM)
    assert not can_project(replace(UPSTREAM, kind="ik"))
    assert not can_project(replace(UPSTREAM, flags={}))


@pytest.mark.parametrize(
    ("free_mib", "engine_runs", "why"),
    [([9000, 1200], True, "1272 MiB itself, and 1200 MiB are free"), ([], True, "another one runs")],
)
def test_a_full_card_is_not_asked(free_mib: list[int], engine_runs: bool, why: str) -> None:
    profile = ProfileStore(PATHS).load("demo")
    with pytest.raises(NoProjectionError, match=why):
        project(PATHS, profile, ENGINE, state_mib=248.0, free_mib=free_mib, engine_runs=engine_runs)
