"""How much of a model is read before a switch: what fits beside what serves, and nothing that would only cost time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.profile.settings import Value
from orchestrator.core.starts.read_ahead import read_ahead_bytes

GIB = 1 << 30


def bytes_of(settings: dict[str, Value], model: int, resident: int | None, free: int) -> int:
    return read_ahead_bytes(settings, model_bytes=model, resident_bytes=resident, free_bytes=free)


@pytest.mark.parametrize("settings", [{}, {"memory.prefetch": True}, {"memory.mmap": False}])
def test_a_model_that_fits_is_read_whole(settings: dict[str, Value]) -> None:
    assert bytes_of(settings, 20 * GIB, 0, 32 * GIB) == 20 * GIB
    assert bytes_of(settings, 20 * GIB, None, 32 * GIB) == 20 * GIB


@pytest.mark.parametrize("settings", [{"memory.prefetch": False}, {"memory.direct_io": True}])
def test_nothing_is_read_that_is_not_wanted_or_would_not_be_used(settings: dict[str, Value]) -> None:
    assert bytes_of(settings, 20 * GIB, 0, 32 * GIB) == 0


def test_what_is_there_is_not_read_again() -> None:
    assert bytes_of({}, 20 * GIB, 20 * GIB - 1, 32 * GIB) == 0
    assert bytes_of({}, 20 * GIB, 19 * GIB, 32 * GIB) == 20 * GIB


def test_what_serves_keeps_its_pages() -> None:
    assert bytes_of({}, 20 * GIB, 0, 13 * GIB) == 13 * GIB
    assert bytes_of({}, 20 * GIB, 0, 0) == 0


@given(*(st.integers(0, 200 * GIB) for _ in range(3)))
def test_it_is_never_more_than_the_model_and_leaves_room(model: int, resident: int, free: int) -> None:
    assert 0 <= bytes_of({}, model, resident, free) <= min(model, free)
