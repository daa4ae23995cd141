"""Device memory that a dead engine still holds, from what the next one's log tells."""

from __future__ import annotations

import pytest

from orchestrator.core.failure.unreleased_memory import unreleased_mib_between


@pytest.mark.parametrize(
    ("before", "now", "taken"),
    [
        ({"CUDA0": 11000}, {"CUDA0": 4000}, 7000),
        ({"CUDA0": 11000}, {"CUDA0": 10900}, 0),
        ({"CUDA0": 4000}, {"CUDA0": 11000}, 0),
        ({"RPC0": 30}, {"RPC0": 29}, 0),
        ({"RPC0": 30}, {"RPC0": 18}, 12),
        ({}, {"CUDA0": 4000}, 0),
        ({"CUDA0": 11000, "CUDA1": 8000}, {"CUDA0": 4000, "CUDA1": 7000}, 8000),
        ({"CUDA0": 11000}, {}, 0),
    ],
)
def test_what_was_free_before_and_is_not_now_is_still_taken(
    before: dict[str, int], now: dict[str, int], taken: int
) -> None:
    assert unreleased_mib_between(before, now) == taken
