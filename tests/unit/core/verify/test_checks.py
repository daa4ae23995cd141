"""Checks add up to a verdict, and a failure says how to see it again."""

from __future__ import annotations

import json
import shlex

import pytest

from orchestrator.core.verify.checks import Check, Reproduction, at_most, summary, verdict_of

SHOWN = Reproduction(("llama-server", "-m", "a b.gguf"), "/completion", {"prompt": "it's", "n_predict": 1})


@pytest.mark.parametrize(
    ("oks", "verdict"),
    [
        ([], "unverified"),
        ([None], "unverified"),
        ([True], "right"),
        ([True, None], "right"),
        ([True, False], "wrong"),
        ([None, False], "wrong"),
    ],
)
def test_one_failure_is_wrong_and_nothing_tested_is_unverified(oks: list[bool | None], verdict: str) -> None:
    assert verdict_of([Check("each", ok) for ok in oks]) == verdict


def test_a_number_at_its_bound_passes_and_above_it_is_shown_with_what_asks_for_it() -> None:
    assert at_most("x", 0.5, 0.5, shown_by=SHOWN) == Check("x", True, 0.5, None, 0.5)
    failed = at_most("x", 0.51, 0.5, shown_by=SHOWN)
    assert failed.ok is False
    assert failed.shown_by is SHOWN


def test_what_shows_a_failure_can_be_pasted_into_a_shell() -> None:
    start, ask = SHOWN.lines()
    assert shlex.split(start) == ["llama-server", "-m", "a b.gguf"]
    words = shlex.split(ask)
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8080/completion"]
    assert json.loads(words[-1]) == {"prompt": "it's", "n_predict": 1}


def test_the_json_has_the_promised_keys_and_more_only_where_there_is_more() -> None:
    assert Check("x", True, 1.0, 2.0, 3.0).as_json() == {
        "name": "x", "ok": True, "observed": 1.0, "expected": 2.0, "bound": 3.0,
    }  # fmt: skip
    told = Check("x", False, detail="why", shown_by=SHOWN).as_json()
    assert {"detail", "start", "ask"} < set(told)


def test_the_summary_counts_what_passed_failed_and_was_not_tested() -> None:
    assert summary([Check("a", True), Check("b", None)]) == "1 checks passed; 1 not tested"
    assert summary([Check("a", True), Check("b", False)]) == "1 of 2 checks failed: b"
