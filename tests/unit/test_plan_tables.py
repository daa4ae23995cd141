"""The tables in docs/plan.md are those that the benchmark prints."""

from __future__ import annotations

from benchmarks.plan_tables import DOCUMENT, cache_lines, card_lines


def test_the_document_has_the_tables_as_they_are_printed() -> None:
    written = DOCUMENT.read_text(encoding="utf-8").splitlines()
    missing = [line for line in (*card_lines(), *cache_lines()) if line not in written]
    assert missing == [], "run `python -m benchmarks.plan_tables --write`"
