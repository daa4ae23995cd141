"""The slots of both engines, and which of their figures show progress."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.measure.slots import Slot, read_slots

UPSTREAM: list[Any] = [
    {"id": 0, "n_ctx": 2048, "speculative": True, "is_processing": False},
    {
        "id": 1,
        "n_ctx": 2048,
        "speculative": True,
        "is_processing": True,
        "id_task": 7,
        "n_prompt_tokens": 57,
        "n_prompt_tokens_processed": 11,
        "n_prompt_tokens_cache": 2,
        "params": {},
        "next_token": [{"has_next_token": True, "has_new_line": False, "n_remain": 54, "n_decoded": 46}],
    },
]
FORK: list[Any] = [
    {
        "n_ctx": 8192,
        "id": 0,
        "id_task": 3,
        "state": 1,
        "prompt": "secret",
        "next_token": {"has_next_token": True, "n_remain": -1, "n_decoded": 46, "stopped_eos": False},
    }
]
UPSTREAM_READING: list[dict[str, object]] = [
    {"id": 0, "n_ctx": 4096, "is_processing": True, "id_task": 7, "n_prompt_tokens": 900,
     "n_prompt_tokens_processed": 512, "next_token": [{"has_next_token": True, "n_remain": -1, "n_decoded": 3}]},
    {"id": 1, "n_ctx": 4096, "is_processing": False},
]  # fmt: skip
FORK_TEXT: list[dict[str, object]] = [
    {"id": 0, "id_task": 7, "state": 1, "prompt": "hello", "temperature": 0.8,
     "next_token": {"has_next_token": True, "n_remain": 5, "n_decoded": 3, "stopping_word": ""}},
]  # fmt: skip


def slot_counters(answer: object) -> tuple[tuple[int | None, ...], ...] | None:
    slots = read_slots(answer)
    return tuple(slot.counters for slot in slots) if slots else None


def test_the_slots_of_upstream_are_read() -> None:
    assert read_slots(UPSTREAM) == (
        Slot(0, busy=False, context=2048),
        Slot(1, busy=True, context=2048, task=7, decoded=46, prompt_read=11, prompt=57),
    )


def test_the_slots_of_the_fork_are_read_and_its_prompt_is_not() -> None:
    assert read_slots(FORK) == (Slot(0, busy=True, context=8192, task=3, decoded=46),)
    assert "secret" not in repr(read_slots(FORK))


@pytest.mark.parametrize("answer", [None, {}, "x", {"error": {"code": 501}}])
def test_what_is_no_list_of_slots_is_none(answer: object) -> None:
    assert read_slots(answer) is None


@pytest.mark.parametrize("answer", [[1], [{}], [{"id": "x"}], [{"id": 0, "next_token": []}], [{"id": 0, "n_ctx": "a"}]])
def test_a_slot_of_another_shape_fails_nothing(answer: list[Any]) -> None:
    assert all(slot.decoded is None for slot in read_slots(answer) or ())


@pytest.mark.parametrize(
    ("slot", "done"),
    [
        (Slot(0, busy=True, context=9, decoded=0, prompt_read=2048, prompt=4096), None),
        (Slot(0, busy=True, context=9, decoded=5), 1.0),
        (Slot(0, busy=True, context=9), None),
        (Slot(0, busy=True, context=9, decoded=0, prompt_read=100, prompt=100, told=0.26), 0.26),
        (Slot(0, busy=False, context=9, prompt_read=100, prompt=100), None),
    ],
)
def test_how_much_of_a_prompt_was_read_is_told_where_its_length_is_known(slot: Slot, done: float | None) -> None:
    assert slot.prompt_done == done


@pytest.mark.parametrize("answer", [UPSTREAM_READING, FORK_TEXT], ids=["upstream", "fork"])
def test_the_counters_of_either_engine_move_with_its_work_alone(answer: list[dict[str, object]]) -> None:
    first = slot_counters(answer)
    assert first is not None
    nested = answer[0]["next_token"]
    inner = nested[0] if isinstance(nested, list) else nested
    assert isinstance(inner, dict)
    later = {**inner, "n_decoded": 4}
    moved = [{**answer[0], "next_token": [later] if isinstance(nested, list) else later}, *answer[1:]]
    assert slot_counters(moved) != first
    assert slot_counters([{**answer[0], "n_ctx": 1, "temperature": 0.1}, *answer[1:]]) == first


def test_a_prompt_that_is_being_read_moves_the_counters() -> None:
    moved = [{**UPSTREAM_READING[0], "n_prompt_tokens_processed": 1024}, UPSTREAM_READING[1]]
    assert slot_counters(moved) != slot_counters(UPSTREAM_READING)


@pytest.mark.parametrize("answer", [None, {}, [], "", [1, None], [{"id": 0}], {"error": {"code": 501}}])
def test_an_answer_without_counters_says_nothing(answer: object) -> None:
    assert slot_counters(answer) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["next_token", "n_decoded", "state", "x"]), inner)))  # fmt: skip
def test_whatever_an_engine_answers_can_be_compared(answer: object) -> None:
    assert {slot_counters(answer)} == {slot_counters(answer)}
