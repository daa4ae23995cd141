"""Reports to hand on: nothing is loaded from elsewhere, nothing of another's text is markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from orchestrator.core.bench.blocks import progress_of
from orchestrator.core.bench.curves import depth_summary, load_summary
from orchestrator.core.bench.differences import bench_differences, difference_lines
from orchestrator.core.bench.documents import html_page, markdown, single_markdown, single_page
from orchestrator.core.bench.report import bench_report, summary
from orchestrator.core.bench.single_text import single_lines
from tests.unit.core.bench.benches import PLAN, TOKENS, answer, pairs, sides

MACHINE = {
    "orch": "1",
    "system": "Linux",
    "processor": "CPU",
    "cpus": 2,
    "memory_mib": 100,
    "devices": [],
    "driver": None,
}


def report(b: float = 110, **of_b: object) -> dict[str, Any]:
    made = bench_report(sides(**of_b), PLAN, progress_of(pairs(3, 100, b, 0.001)), TOKENS)
    more = {
        "id": 7,
        "workload": "chat",
        "workload_digest": "d",
        "machine": MACHINE,
        "command": ["orch", "bench", "a b", "c"],
    }
    return {**made, **more}


def single(kind: str) -> dict[str, Any]:
    row = {"name": "p", "output_tokens": 101, **summary([answer("p", 50)])}
    total = {**summary([answer("p", 50)]), "output_tokens": 101, "draft_tokens": 0, "draft_accepted": 0, "wall_s": 2.1}
    series: dict[str, Any] = {
        "pass": {"rows": [row], "total": total},
        "depth": depth_summary([(512, answer("p", 100)), (1024, answer("q", 80))]),
        "load": {"rows": [{**load_summary(2, [answer("p", 50)], 3.0, 1), "errors": ["it <failed>"]}]},
    }[kind]
    return {
        "kind": kind, "id": 3, "target": "t", "engine": "e", "build": "b1", "verified": None, "machine": MACHINE,
        "command": ["orch", "bench", kind, "t"], "series": [{"target": "t", "strangers": 0, **series}],
    }  # fmt: skip


class Page(HTMLParser):
    """The tags of a page, and what its attributes refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_a_page_is_one_file_with_its_plots() -> None:
    page = Page(html_page(report()))
    assert page.tags.count("svg") == 2
    assert page.references == []
    assert "script" not in page.tags


def test_names_are_no_markup() -> None:
    text = html_page(report(name="<script>x</script>", build="<b>"))
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;" in text


def test_markdown_has_the_verdict_the_conditions_and_the_command_that_repeats_it() -> None:
    text = markdown(report(verified=None))
    assert text.startswith("**B (ik-fork) is faster")
    assert "orch bench 'a b' c" in text
    assert "- nobody has verified" in text
    assert "/m.gguf" not in text


@pytest.mark.parametrize("kind", ["pass", "depth", "load"])
def test_a_result_of_one_target_has_text_page_and_post(kind: str) -> None:
    found = single(kind)
    lines = single_lines(found)
    assert "nobody has verified" in lines[0]
    assert Page(single_page(found)).references == []
    assert "failed" not in Page(single_page(found)).tags
    assert f"orch bench {kind} t" in single_markdown(found)


def test_a_request_of_a_client_is_told_beside_the_figures() -> None:
    found = single("load")
    found["series"][0]["strangers"] = 2
    assert any("requests of clients ran meanwhile: 2" in line for line in single_lines(found))


def test_two_benches_side_by_side_have_no_verdict_and_say_what_is_not_the_same() -> None:
    found = bench_differences(report(), report(120, build="b2"))
    assert found["differ"] == ["B, build: b1 and b2"]
    assert found["b"]["decode_tok_s"]["ratio"] == pytest.approx(120 / 110, abs=0.001)
    assert "verdict" not in found
    assert "no comparison" in difference_lines(found)[-1]
