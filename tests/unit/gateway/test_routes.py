from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote

import pytest

from orchestrator.gateway import models as names
from orchestrator.gateway import routes
from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.models import profile_for
from orchestrator.gateway.routes import ENGINE_ROUTES, OWN_ROUTES, find_route

MODELS = (Model("demo", ("org/demo", "org"), "", "loaded", 0), Model("other", (), "", "unloaded", 0))


def test_the_route_under_a_model_is_the_same_route() -> None:
    for path, route in ENGINE_ROUTES.items():
        match = find_route(route.methods[0], "/upstream/demo" + path, MODELS)
        assert (match.route, match.path, match.model) == (route, path, "demo")


@pytest.mark.parametrize("prefix", ["/upstream/org/demo", "/upstream/org%2Fdemo"])
def test_an_alias_may_hold_a_slash(prefix: str) -> None:
    match = find_route("GET", prefix + "/props", MODELS)
    assert (match.path, match.model) == ("/props", "org/demo")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_404_whatever_the_method(method: str) -> None:
    with pytest.raises(GatewayError) as caught:
        find_route(method, "/models/download", MODELS)

    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/show", "not Ollama's"), ("/api/chat", "not Ollama's"), ("/api/blobs/sha256:0", "not Ollama's"),
        ("/api/models/load", "orch switch NAME"), ("/logs/tail", "/logs/stream"),
        ("/api/metrics/stats", "/metrics"), ("/slots/0", "/slots"), ("/v1", "/v1/models"), ("/v1/", "/v1/models"),
        ("/version", "/v1/models"), ("/v1/tokenize", "did you mean /tokenize?"),
        ("/messages", "did you mean /v1/messages?"), ("/v1/props", "did you mean /props?"),
        ("/v1/v1/messages", "did you mean /v1/messages?"), ("/api/v1/models", "did you mean /v1/models?"),
        ("/v1/chat/completions/", "did you mean /v1/chat/completions?"), ("/requests", "did you mean /v1/requests?"),
        ("/v/chat/completions", "did you mean /chat/completions?"), ("/openai/metrics", "did you mean /metrics?"),
        ("/api/profiles/active", "/v1/models` lists the profiles"),
        ("/upstream", "such as /health"), ("/upstream/", "such as /health"), ("/upstream/demo", "such as /health"),
        ("/upstream/demo/", "such as /health"), ("/upstream/demo/tools", "such as /health"),
        ("/v1/chat/completions/control", "/v1/requests/ID/cancel"), ("/v1/streams/lookup", "/v1/requests/ID/cancel"),
        ("/v1/stream", "/v1/requests/ID/cancel"), ("/api/inflight", "/v1/requests/ID/cancel"),
    ],
)  # fmt: skip
def test_who_asks_for_another_program_s_route_is_told_where_it_is_here(path: str, said: str) -> None:
    with pytest.raises(GatewayError) as caught:
        find_route("GET", path, MODELS)

    assert (caught.value.status, caught.value.message.count(";")) == (404, 1)
    assert said in caught.value.message


@pytest.mark.parametrize("path", ["/index.html", "/v1/files", "/v1/images/generations", "/logsx", "/unloaded"])
def test_a_route_of_nobody_has_no_hint(path: str) -> None:
    with pytest.raises(GatewayError) as caught:
        find_route("GET", path, MODELS)

    assert caught.value.message == f"there is no route {path}"


def test_who_asks_for_permission_is_told_which_setting_gives_it() -> None:
    with pytest.raises(GatewayError, match=r"allows POST, not OPTIONS; gateway.allowed_origins names the pages"):
        find_route("OPTIONS", "/v1/chat/completions", MODELS)


@pytest.mark.parametrize(
    ("name", "profile"),
    [("demo", "demo"), ("org/demo", "demo"), ("org", "demo"), ("other", "other"), ("", None), (None, None)],
)
def test_names_and_aliases_stand_for_profiles(name: str | None, profile: str | None) -> None:
    assert profile_for(name, MODELS) == profile


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(GatewayError, match=r"known models: demo, other") as caught:
        profile_for("gpt-4", MODELS)

    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    with pytest.raises(GatewayError, match=r"known models: none"):
        profile_for("x", ())


_PIECES = ("%41/", "%C3%A9/", "/", "%", "%2F", "a/", "demo/", "org/", "%F0%9F%99%82/", "%zz/")
_STARTS = ("/upstream/", "/upstream/demo/", "/upstream/org/demo/", "/v1/models/", "/api/blobs/", "/")


@pytest.mark.parametrize("piece", _PIECES)
def test_looking_for_a_route_costs_a_hostile_path_its_length(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unescaped is counted: eight times the path is not more than eight times the work, for every route."""
    unescaped = 0

    def counting(text: str, **options: str) -> str:
        nonlocal unescaped
        unescaped += len(text)
        return unquote(text, **options)

    monkeypatch.setattr(routes, "unquote", counting)
    models = (*MODELS, *(Model(f"model-{i}", (f"a/b/c/{i}", "/".join("a" * 20)), "", "unloaded", 0) for i in range(20)))
    for start in _STARTS:
        for end in ("", *ENGINE_ROUTES, *OWN_ROUTES):
            for size in (1000, 8000):
                unescaped = 0
                with suppress(GatewayError):
                    find_route("GET", start + piece * (size // len(piece)) + end, models)

                assert unescaped <= 10_000 + 2 * size, (start, piece, end)


def test_a_long_name_is_compared_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(names, "nearest", lambda word, allowed: compared.append(len(word)))
    with pytest.raises(GatewayError) as caught:
        profile_for("a" * (1 << 20), MODELS)

    assert compared == [names.MAX_NAME]
    assert len(caught.value.message) < 1000
