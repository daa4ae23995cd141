"""The files of the page: nothing in them becomes markup or code from text, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from orchestrator.gateway.page.serving import read_files

FILES = {path: file.body.decode() for path, file in read_files().items()}
SCRIPT, STYLE, PAGE = FILES["/page/page.js"], FILES["/page/page.css"], FILES["/"]


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(PAGE)
    return parser.found


@pytest.mark.parametrize(
    "way",
    [
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser",
        "createContextualFragment", "srcdoc", "setHTML", "localStorage", "document.cookie", "importScripts", "import(",
    ],
)  # fmt: skip
def test_the_script_has_no_way_from_text_to_markup_or_code_and_keeps_nothing_for_long(way: str) -> None:
    assert way not in SCRIPT


def test_timers_and_handlers_are_functions() -> None:
    assert not re.search(r"set(Timeout|Interval)\(\s*[\"'`]", SCRIPT)
    assert not re.search(r"\.on[a-z]+\s*=", SCRIPT)


def test_nothing_comes_from_another_address() -> None:
    for text in FILES.values():
        plain = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|[\"'(]//|@import|url\(", plain)


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    for tag, attributes in elements():
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag != "script" or attributes.get("src") == "/page/page.js"

    assert [tag for tag, _ in elements()].count("script") == 1


def test_each_element_that_the_script_looks_for_is_in_the_page() -> None:
    wanted = set(re.findall(r'\$\("([a-z-]+)"\)', SCRIPT))
    assert wanted <= {attributes.get("id") for _, attributes in elements()}
    assert len(wanted) > 30


def test_each_control_has_a_name() -> None:
    labels = {attributes.get("for") for tag, attributes in elements() if tag == "label"}
    inside = set(re.findall(r"<label[^>]*>.*?id=\"([a-z-]+)\"", PAGE))
    for tag, attributes in elements():
        if tag in ("input", "select", "textarea"):
            assert attributes["id"] in labels | inside, attributes
