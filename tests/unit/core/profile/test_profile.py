from __future__ import annotations

import pytest

from orchestrator.core.profile.profile import EngineOverride, Profile, split_target


@pytest.mark.parametrize(
    ("text", "profile", "engine"),
    [
        ("mine", "mine", None),
        ("mine@upstream", "mine", "upstream"),
        ("mine@upstream@b1-cpu-12", "mine", "upstream@b1-cpu-12"),
        ("/a@b/mine.toml@upstream", "/a@b/mine.toml", "upstream"),
        ("mine@", "mine", ""),
    ],
)
def test_a_target_is_a_profile_and_an_engine_or_one_of_its_builds(text: str, profile: str, engine: str | None) -> None:
    assert split_target(text) == (profile, engine)


def test_a_build_of_an_engine_has_what_the_profile_says_for_the_engine() -> None:
    profile = Profile("p", "p.toml", "/m", "upstream", overrides={"upstream": EngineOverride({"batch.size": 64})})
    chosen = profile.for_engine("upstream@b1-cpu-12")
    assert (chosen.engine, chosen.settings) == ("upstream", {"batch.size": 64})
