"""A failed check keeps from starting only what uses what it is about."""

from __future__ import annotations

import pytest

from orchestrator.core.verify.relevance import relevant_failures


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("weights in q4_1, prompt of 32", True),
        ("weights in q4_1, micro-batch 32, prompt of 33", True),
        ("weights in q4_K", False),
        ("cache in q8_0", True),
        ("cache in q4_0", False),
        ("slots side by side", False),
        ("MTP on: accepted drafts, temperature 1", False),
        ("MTP off: text at temperature 0", True),
        ("sampling: seeds differ, texts differ", True),
        ("answers: long", True),
    ],
)
def test_what_a_model_with_q4_1_a_cache_in_q8_0_and_one_slot_is_kept_from(name: str, matters: bool) -> None:
    found = relevant_failures([name], weight_types={"q4_1", "f32"}, kv_types={"q8_0"}, slots=1, mtp=False)
    assert found == ([name] if matters else [])


def test_slots_and_drafts_matter_to_who_has_them() -> None:
    names = ["slots side by side", "MTP on: distribution at temperature 1"]
    assert relevant_failures(names, weight_types=(), kv_types=(), slots=2, mtp=True) == names
