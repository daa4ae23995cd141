from __future__ import annotations

import pytest

from orchestrator.gateway.contract import Model
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.models import profile_for
from orchestrator.gateway.routes import ENGINE_ROUTES, find_route

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
        find_route(method, "/models/load", MODELS)

    assert caught.value.status == 404


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
