"""Which paths under a model's name are files of its engine's own page."""

from __future__ import annotations

import time

import pytest

from orchestrator.gateway.contract import Model
from orchestrator.gateway.page.engine_ui import EngineFile, find_file
from orchestrator.gateway.routes import ENGINE_ROUTES, MANAGE_ROUTES, OWN_ROUTES

MODELS = (Model("demo", ("org/demo", "org"), "", "loaded", 0), Model("other", (), "", "unloaded", 0))


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/upstream/demo", EngineFile("demo", "")),
        ("/upstream/demo/", EngineFile("demo", "/")),
        ("/upstream/demo/index.html", EngineFile("demo", "/index.html")),
        ("/upstream/demo/bundle.D3f-a_9.js", EngineFile("demo", "/bundle.D3f-a_9.js")),
        ("/upstream/demo/_app/version.json", EngineFile("demo", "/_app/version.json")),
        ("/upstream/org/demo/", EngineFile("org/demo", "/")),
        ("/upstream/org/demo", EngineFile("org/demo", "")),
        ("/upstream/org%2Fdemo/sw.js", EngineFile("org/demo", "/sw.js")),
        ("/upstream/org/bundle.css", EngineFile("org", "/bundle.css")),
    ],
)
def test_files_of_an_engine_s_page(path: str, file: EngineFile) -> None:
    assert find_file(path, MODELS) == file


@pytest.mark.parametrize(
    "path",
    [
        "/upstream/nobody/", "/upstream/nobody", "/upstream", "/upstream/", "/demo/", "/upstream/demo/..",
        "/upstream/demo/../x.js", "/upstream/demo/.git/x.js", "/upstream/demo/%2e%2e/x.js", "/upstream/demo//x.js",
        "/upstream/demo/tools", "/upstream/demo/cors-proxy", "/upstream/demo/x", "/upstream/demo/x.js/",
        "/upstream/demo/x.php", "/upstream/demo/x.js%0a", "/upstream/demo/a b.js", "/upstream/demo/x.js;y",
    ],
)  # fmt: skip
def test_nothing_else_is_one(path: str) -> None:
    assert find_file(path, MODELS) is None


def test_no_route_of_an_engine_is_taken_for_a_file_of_its_page() -> None:
    for path in (
        *ENGINE_ROUTES,
        *MANAGE_ROUTES,
        *OWN_ROUTES,
        "/v1/props",
        "/version",
        "/list",
        "/tools",
        "/cors-proxy",
    ):
        if path != "/":
            assert find_file(f"/upstream/demo{path}", MODELS) is None, path


def test_a_path_of_slashes_is_looked_at_in_a_moment() -> None:
    began = time.perf_counter()
    for _ in range(1000):
        assert find_file("/upstream/" + "/" * 8000, MODELS) is None
        assert find_file("/upstream/demo/" + "a/" * 4000, MODELS) is None

    assert time.perf_counter() - began < 5
