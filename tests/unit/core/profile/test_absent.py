from __future__ import annotations

import pytest

from orchestrator.core.profile.absent import explain_absent
from orchestrator.core.profile.settings import SETTINGS


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("allowed_origins", "CORS"), ("cors_allow_origins", "CORS"), ("cors", "CORS"), ("allow_origin", "CORS"),
        ("idle_unload_s", "orch down"), ("ttl", "orch down"), ("sleep-idle-seconds", "orch down"),
        ("keep_alive", "orch down"), ("resident", "one profile serves"), ("group", "one profile serves"),
        ("set", "one profile serves"), ("variants", "extends"), ("Presets", "extends"),
    ],
)  # fmt: skip
def test_what_people_look_for_and_is_not_there_is_told_with_what_to_do_instead(key: str, said: str) -> None:
    found = explain_absent(key)
    assert found is not None and said in found


def test_nothing_that_is_there_is_said_to_be_absent() -> None:
    assert [each.path for each in SETTINGS if explain_absent(each.key)] == []
    assert explain_absent("allowed_hosts") is None and explain_absent("x" * 10_000) is None
