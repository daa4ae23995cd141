from __future__ import annotations

from orchestrator.core.health.drafting import DraftHistory, add_answer


def test_an_engine_that_stops_drafting_is_noticed_once_and_so_is_its_return() -> None:
    drafting = DraftHistory()
    news = []
    for drafted in (True, *[False] * 10, True, False):
        drafting, each = add_answer(drafting, 300, drafted=drafted)
        news.append(each)

    assert news == [None] * 4 + ["lost"] + [None] * 6 + ["back", None]


def test_a_few_answers_without_drafts_are_chance() -> None:
    drafting = DraftHistory()
    for _ in range(3):
        drafting, news = add_answer(drafting, 5000, drafted=False)
        assert news is None


def test_short_answers_without_drafts_are_chance() -> None:
    drafting = DraftHistory()
    for _ in range(100):
        drafting, news = add_answer(drafting, 10, drafted=False)
        assert news is None
