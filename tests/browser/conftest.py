from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.browser.page_server import OpenedPage, Serve, page_server
from tests.browser.webdriver import MISSING, Browser, browser


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    if MISSING:
        pytest.skip(f"no browser to test in: {MISSING} missing (Debian: apt-get install chromium chromium-driver)")

    with browser() as opened:
        yield opened


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves pages, which are there until the browser has left them."""
    with contextlib.ExitStack() as servers:

        def enter(*arguments: object, **more: object) -> OpenedPage:
            return servers.enter_context(page_server(*arguments, **more))  # type: ignore[arg-type]

        yield enter


@pytest.fixture
def page(one_browser: Browser, serve: Serve) -> Iterator[Browser]:
    """A browser in which nothing is open: light, 1280 pixels wide. At the end its console has had nothing."""
    one_browser.open("about:blank")
    one_browser.console()
    one_browser.scheme("light")
    one_browser.size(1280, 900)
    yield one_browser
    said = one_browser.console()
    one_browser.open("about:blank")
    assert said == []
