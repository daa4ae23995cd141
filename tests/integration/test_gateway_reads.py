"""A GET says what is true of the model that it names, and never has one loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.fleet.model_figures import ModelFigures
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Refusal, RoutingView
from orchestrator.gateway.routes import ENGINE_ROUTES
from tests.integration.gateway_support import (
    DEMO,
    OTHER,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    exchange,
    gateway,
    get,
    post,
)

PLANNED = replace(OTHER, figures=ModelFigures(6144, 16384, "llama", 1000))
UNREAD = replace(OTHER, name="unread", aliases=("un/read",))
LOADING = replace(OTHER, name="coming", status="loading")
MODELS = (DEMO, PLANNED, UNREAD, LOADING)
PAGES = ("/health", "/metrics", "/props", "/slots", "/lora-adapters", "/models", "/v1/models")
SERVED = [f"/upstream/demo{page}" for page in PAGES] + ["/props", "/slots", "/lora-adapters"]


def supervised(*, on_request: bool = True) -> Supervised:
    return Supervised(RoutingView(1, None, None, "stopped", MODELS, on_request=on_request))


async def page(visit: Visit) -> None:
    await visit.answer(b'{"engine":"demo"}')


@pytest.mark.parametrize("name", ["other", "unread", "un/read", "un%2Fread", "coming"])
@pytest.mark.parametrize("path", PAGES)
def test_a_look_at_a_model_that_is_not_loaded_loads_nothing(path: str, name: str) -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            for serving in (None, there.endpoint()):
                here.supervisor.show(serving=serving)
                answer = await ask(here.port, get(f"/upstream/{name}{path}"))
                error = answer.json["error"]
                assert (answer.status, error["code"]) == (503, "loading" if name == "coming" else "model_unloaded")
                assert name == "coming" or "orch switch" in error["message"]
                head = await exchange(here.port, get(f"/upstream/{name}{path}", "Connection: close", method="HEAD"))
                assert head.startswith(b"HTTP/1.1 405 ")
                assert (here.dispatcher.hold.entered, there.visits) == (0, [])

    drive(work())


@pytest.mark.parametrize("path", ["/props", "/slots", "/lora-adapters", "/metrics"])
def test_the_query_is_obeyed(path: str) -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            for name in ("demo", "demo-alias", "org%2Fdemo", "org/demo"):
                assert (await ask(here.port, get(f"{path}?model={name}&autoload=true"))).status == 200

            for name in ("unread", "un%2Fread", "coming"):
                assert (await ask(here.port, get(f"{path}?autoload=true&model={name}"))).status == 503

            visits = len(there.visits)
            for name in ("nobody", "Demo", "demo:latest", "%00", "x" * 300):
                answer = await ask(here.port, get(f"{path}?model={name}"))
                assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")

            twice = await ask(here.port, get(f"{path}?model=demo&model=other"))
            assert (twice.status, twice.json["error"]["code"]) == (400, "ambiguous_model")
            assert (await ask(here.port, get(f"{path}?model=demo&model=demo-alias"))).status == 200
            assert here.dispatcher.hold.entered == 0
            assert len(there.visits) == visits + (path != "/metrics")

    drive(work())


def test_a_path_and_a_query_that_name_two_models_are_not_answered_for_either() -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, get("/upstream/demo/props?model=other"))
            assert answer.json["error"]["code"] == "ambiguous_model"
            assert (await ask(here.port, get("/upstream/demo/props?model=demo-alias"))).status == 200

    drive(work())


def test_the_properties_of_a_model_that_is_not_loaded_are_the_planned_ones_and_say_so() -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            for serving in (None, there.endpoint()):
                here.supervisor.show(serving=serving)
                said = (await ask(here.port, get("/props?model=other&autoload=true"))).json
                assert (said["model_alias"], said["default_generation_settings"]["n_ctx"]) == ("other", 6144)
                assert (said["planned"], said["status"]) == (True, "unloaded")

            assert there.visits == []

    drive(work())


def test_why_it_is_not_loaded_is_said_where_it_is_known() -> None:
    async def work() -> None:
        supervisor = supervised(on_request=False)
        async with gateway(supervisor) as here:
            supervisor.show(
                refusal=Refusal("no model is running; start one with `orch up PROFILE`", "not_running", None)
            )
            answer = await ask(here.port, get("/upstream/unread/health"))
            assert answer.status == 503
            assert "orch up" in answer.json["error"]["message"]

    drive(work())


@pytest.mark.parametrize("path", SERVED)
def test_a_page_of_another_site_cannot_look_at_the_engine(path: str) -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            for headers in (("Origin: https://evil.example",), ("Sec-Fetch-Site: cross-site",)):
                answer = await ask(here.port, get(path, *headers))
                assert (answer.status, answer.json["error"]["code"]) == (403, "cross_site")

            assert there.visits == []
            for header in ("Accept: */*", "Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"):
                assert (await ask(here.port, get(path, header))).status == 200

    drive(work())


def test_the_body_of_a_get_names_nothing() -> None:
    async def work() -> None:
        async with engine(page) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            body = b'{"model":"other"}'
            request = get("/props", f"Content-Length: {len(body)}", "Content-Type: application/json") + body
            assert (await ask(here.port, request)).json["engine"] == "demo"
            assert here.dispatcher.hold.entered == 0

    drive(work())


def test_the_list_says_how_much_context_a_request_has() -> None:
    async def work() -> None:
        async with gateway(supervised()) as here:
            listed = {each["id"]: each for each in (await ask(here.port, get("/v1/models"))).json["data"]}
            other = listed["other"]
            assert other["meta"] == {"n_ctx": 6144, "n_ctx_train": 16384, "size": 1000, "planned": True}
            assert (other["context_length"], other["architecture"]) == (6144, {"name": "llama"})
            assert "meta" not in listed["unread"]
            assert (await ask(here.port, get("/v1/models/other"))).json == other

    drive(work())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/upstream/nobody/health", "there is no model `nobody`"),
        ("/upstream/nobody/v1/chat/completions", "there is no model `nobody`"),
        ("/upstream/org/nobody/v1/models", "there is no model `org/nobody`"),
        ("/upstream/openai/demo/props", "did you mean `demo`?"),
        ("/upstream/demo:latest/slots", "did you mean `demo`?"),
        ("/upstream/demo/no-such-page", "there is no route"),
        ("/api/show", "not Ollama's"),
        ("/api/chat", "not Ollama's"),
        ("/api/blobs/sha256:00", "/v1"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(path: str, told: str) -> None:
    async def work() -> None:
        async with gateway(supervised()) as here:
            answer = await ask(here.port, post(path, {}) if path in ENGINE_ROUTES or "chat" in path else get(path))
            assert answer.status == 404
            assert told in answer.json["error"]["message"]

    drive(work())


def test_the_address_itself_says_what_it_is() -> None:
    async def work() -> None:
        async with gateway(supervised()) as here:
            answer = await ask(here.port, get("/", host="localhost:8080"))
            assert (answer.status, answer.json["name"]) == (200, "orch")
            assert "http://localhost:8080/v1" in answer.json["message"]
            head = await exchange(here.port, get("/", "Connection: close", method="HEAD"))
            assert head.startswith(b"HTTP/1.1 200 ")

    drive(work())


def test_a_host_that_is_not_allowed_is_named_with_the_setting_that_allows_it() -> None:
    async def work() -> None:
        async with gateway(supervised(), GatewayOptions(allowed_hosts=("gpu.lan",))) as here:
            for host in ("box.example:8080", "box.example"):
                answer = await ask(here.port, get("/v1/models", host=host))
                assert answer.status == 403
                assert "`box.example`" in answer.json["error"]["message"]
                assert "gateway.allowed_hosts" in answer.json["error"]["message"]

            assert (await ask(here.port, get("/v1/models", host="gpu.lan"))).status == 200

    drive(work())


def test_a_name_that_nobody_has_is_answered_by_the_default_where_there_is_one() -> None:
    starred = replace(UNREAD, aliases=("*",))
    for options, models, answered_by in (
        (GatewayOptions(default_model="demo"), MODELS, "demo"),
        (GatewayOptions(default_model="demo-alias"), MODELS, "demo"),
        (GatewayOptions(), (DEMO, starred), "unread"),
    ):

        async def work(
            options: GatewayOptions = options, models: tuple[object, ...] = models, answered_by: str = answered_by
        ) -> None:
            supervisor = Supervised(RoutingView(1, None, None, "stopped", models))  # type: ignore[arg-type]
            async with engine(page) as there, gateway(supervisor, options) as here:
                here.supervisor.show(serving=there.endpoint(profile=answered_by))
                for name in ("llama-server", "dummy", "gpt-4o", "claude-opus-4", "x" * 300):
                    assert (await ask(here.port, post("/v1/chat/completions", {"model": name}))).status == 200

                listed = (await ask(here.port, get("/v1/models"))).json["data"]
                assert all("*" not in each["aliases"] for each in listed)

        drive(work())


def test_without_a_default_the_answer_says_how_to_have_one() -> None:
    async def work() -> None:
        async with gateway(supervised()) as here:
            answer = await ask(here.port, post("/v1/chat/completions", {"model": "gpt-4o"}))
            assert answer.status == 404
            assert "gateway.default_model" in answer.json["error"]["message"]

        async with gateway(supervised(), GatewayOptions(default_model="gone")) as here:
            answer = await ask(here.port, post("/v1/chat/completions", {"model": "gpt-4o"}))
            assert "`gone`" in answer.json["error"]["message"]

    drive(work())
