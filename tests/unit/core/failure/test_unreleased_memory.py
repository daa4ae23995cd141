"""Device memory that a dead engine still holds, from what the next one's log tells."""

from __future__ import annotations

import pytest

from orchestrator.core.failure.unreleased_memory import parse_free_mib, unreleased_mib_between

UPSTREAM = "0.00.131.077 T llama_prepare_model_devices: using device {} ({}) (unknown id) - {} MiB free"
FORK = "RPC0[10.0.0.2:50052]: using device RPC0[10.0.0.2:50052] - {} MiB free"


def test_both_engines_tell_what_each_device_had_free() -> None:
    lines = ["build: 11434", UPSTREAM.format("CUDA0", "RTX", 11000), UPSTREAM.format("RPC0", "10.0.0.2:50052", 512)]
    assert parse_free_mib(lines) == {"CUDA0": 11000, "RPC0": 512}
    assert parse_free_mib([FORK.format(64), "CPU: using device CPU - 0 MiB free"]) == {"RPC0": 64}


def test_the_first_telling_counts() -> None:
    assert parse_free_mib([UPSTREAM.format("CUDA0", "RTX", free) for free in (11000, 9000)]) == {"CUDA0": 11000}


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
