"""The page that a real build has of its own, through the gateway."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator

import pytest

from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.browser.webdriver import ENTER, MISSING, browser
from tests.support import Home, new_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROFILE = """\
schema = 1
model = "{model}"
engine = "{engine}"
[context]
size = 4096
[cpu]
threads = 1
threads_batch = 1
"""


@pytest.fixture
def home(upstream: Engine, fork: Engine) -> Iterator[Home]:
    with new_home() as home:
        home.env |= {"ORCH_ENGINE_UPSTREAM": upstream.path, "ORCH_ENGINE_IK_FORK": fork.path}
        path = os.path.join(home.root, "llama.gguf")
        write_known_model(path, "llama")
        for name, engine in (("of-the-fork", "ik-fork"), ("of-upstream", "upstream")):
            home.profile(name, PROFILE.format(model=path, engine=engine))

        yield home


def test_a_build_without_network_has_no_page_and_says_so(home: Home) -> None:
    home.serve("of-upstream")
    home.ready("of-upstream")
    status, _, body = home.request("GET", "/upstream/of-upstream/", headers={"accept-encoding": "gzip"})
    assert (status, json.loads(body)["error"]["code"]) == (404, "no_engine_ui")


def test_the_fork_s_page_chats_through_the_gateway(home: Home) -> None:
    home.serve("of-the-fork")
    home.ready("of-the-fork")
    status, headers, body = home.request("GET", "/upstream/of-the-fork/", headers={"accept-encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert b"<html" in gzip.decompress(body)
    if MISSING:
        pytest.skip(f"not opened in a browser: {MISSING} missing")

    with browser() as page:
        page.open(home.url.removesuffix("/v1") + "/upstream/of-the-fork/")
        page.wait("document.querySelector('textarea')")
        page.run("document.querySelector('textarea').focus()")
        page.press("hello", ENTER)
        page.wait("document.body.innerText.includes('supervisor')", "the model's text")
        assert [line for line in page.console() if line.startswith("SEVERE")] == []
