"""The profiles that orch ships, in the words of a recent build of each engine."""

from __future__ import annotations

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore, shipped_directory
from orchestrator.adapters.paths import find_paths
from orchestrator.core.dialect.render import render
from orchestrator.core.profile.rules import find_conflicts
from tests.unit.core.dialect.fixture_builds import FORK_STAGES, UPSTREAM
from tests.unit.core.dialect.fixture_builds import build as recorded

STORE = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"}), shipped_directory())
PROFILES = {profile.name: profile for profile in STORE.load_all()[0]}


@pytest.mark.parametrize("build", [UPSTREAM, FORK_STAGES])
@pytest.mark.parametrize("name", [name for name in PROFILES if name != "demo"])
def test_a_model_profile_works_on_both_engines(name: str, build: str) -> None:
    caps = recorded(build)
    profile = PROFILES[name].for_engine("upstream" if build == UPSTREAM else "ik-fork")
    assert find_conflicts(profile, caps.kind) == []
    argv = render(profile, caps, build=build, model="/m", host="127.0.0.1", port="1", api_key_file="/k").argv
    margin = argv[argv.index("--fit-target" if build == UPSTREAM else "--fit-margin") + 1]
    assert margin == str(profile.settings["memory.fit_margin"])
    assert argv[argv.index("--ctx-size") + 1] == str(profile.settings["context.size"])


def test_the_demo_works_on_upstreams_server() -> None:
    profile = PROFILES["demo"].for_engine("embedded")
    argv = render(profile, recorded(UPSTREAM), build="b", model="/m", host="h", port="1", api_key_file="/k").argv
    assert argv[argv.index("--spec-type") + 1] == "draft-mtp"
    assert argv[argv.index("--parallel") + 1] == "2"
