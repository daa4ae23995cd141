"""Who may ask, and for what: hosts, sites, keys, routes, model names."""

from __future__ import annotations

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.routes import ENGINE_ROUTES, OWN_ROUTES
from tests.integration.gateway_support import Visit, ask, drive, engine, exchange, gateway, get, post

CHAT = "/v1/chat/completions"
EVERY_ROUTE = [*OWN_ROUTES, *ENGINE_ROUTES, "/v1/models/demo", "/upstream/demo/health", "/no-such-route"]


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body or b'{"engine":true}')


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "localhost.evil.com",
        "",
        ":11434",
        "128.0.0.1",
        "0.0.0.0",
        "[::2]",
        "127.0.0.1.nip.io",
        "a b",
        "[::1",
    ],
)
def test_a_foreign_host_is_refused_on_every_route(host: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for path in EVERY_ROUTE:
                request = post(path, {}, host=host) if path in ENGINE_ROUTES else get(path, host=host)
                assert (await ask(here.port, request)).status == 403, path

            assert there.visits == []

    drive(work())


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "127.0.0.1:1",
        "127.0.0.1.",
        "127.0.0.2",
        "[::1]",
        "[::1]:8080",
        "gpu.lan",
    ],
)
def test_the_machines_own_names_are_allowed(host: str) -> None:
    async def work() -> None:
        async with gateway(config=GatewayOptions(allowed_hosts=("gpu.lan",))) as here:
            assert (await ask(here.port, get("/v1/models", host=host))).status == 200

    drive(work())


def test_an_http_1_0_request_without_a_host_is_refused() -> None:
    async def work() -> None:
        async with gateway() as here:
            assert (await exchange(here.port, b"GET /health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 403 ")

    drive(work())


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Sec-Fetch-Site: cross-site", 403),
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("Content-Type: text/plain", 415),
        ("Content-Type: Text/Plain;charset=UTF-8", 415),
        ("Content-Type: multipart/form-data; boundary=x", 415),
        ("Content-Encoding: br", 415),
        ("Origin: http://localhost:3000", 200),
        ("Sec-Fetch-Site: same-site", 200),
        ("Content-Type: application/x-www-form-urlencoded", 200),
    ],
)
def test_pages_from_elsewhere_cannot_ask(header: str, status: int) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}, header))
            assert answer.status == status
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert len(there.visits) == (1 if status == 200 else 0)

    drive(work())


PERMISSIONS = (
    b"Access-Control-Allow-Origin: *\r\nACCESS-CONTROL-ALLOW-CREDENTIALS: true\r\n"
    b"access-control-allow-headers: *\r\nAccess-Control-Expose-Headers: X-Secret\r\n"
    b"Access-Control-Allow-Private-Network: true\r\nAccess-Control-Max-Age: 9\r\n"
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/completion", "/tokenize", "/props"])
def test_no_page_gets_the_permission_that_an_engine_gives(path: str, stream: bool) -> None:
    """Both engines answer any page's Origin with permission."""

    async def generous(visit: Visit) -> None:
        assert "origin" not in visit.headers and "referer" not in visit.headers
        kind, end = (b"text/event-stream", b"data: {}\n\n") if stream else (b"application/json", b"{}")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b"
        await visit.send(head % (kind, PERMISSIONS, len(end), end))

    async def work() -> None:
        async with engine(generous) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            origin = ("Origin: http://localhost:3000", "Referer: http://localhost:3000/page")
            monitor = ENGINE_ROUTES[path].methods == ("GET",)
            answer = await ask(here.port, get(path, *origin) if monitor else post(path, {"stream": stream}, *origin))
            assert answer.status == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]

    drive(work())


@pytest.mark.parametrize("path", EVERY_ROUTE)
def test_a_page_that_asks_whether_it_may_gets_no_permission(path: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            fields = ("Origin: http://localhost:3000", "Access-Control-Request-Method: POST")
            answer = await ask(here.port, get(path, *fields, method="OPTIONS"))
            assert answer.status >= 400
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert there.visits == []

    drive(work())


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X: y", 401),
        ("Authorization: Bearer wrong", 401),
        ("Authorization: Basic one", 401),
        ("Authorization: Bearer ", 401),
        ("Authorization: Bearer one", 200),
        ("authorization: bearer two", 200),
        ("X-Api-Key: two", 200),
        ("X-Api-Key: three", 401),
        ("api-key: one", 200),
        ("api-key: three", 401),
        ("Authorization: Basic dTpvbmU=", 200),
        ("Authorization: Basic OnR3bw==", 200),
        ("Authorization: Basic b25lOg==", 401),
        ("Authorization: Basic dTp3cm9uZw==", 401),
        ("Authorization: Basic %%%", 401),
    ],
)
def test_any_of_the_keys_opens_and_nothing_else(header: str, status: int) -> None:
    async def work() -> None:
        async with (
            engine(echo) as there,
            gateway(config=GatewayOptions(api_keys=(ApiKey("one"), ApiKey("two")))) as here,
        ):
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}, header))
            assert answer.status == status
            if status == 401:
                assert answer.json["error"]["code"] == "invalid_api_key"
                assert there.visits == []
            else:
                assert there.visits[0].headers["authorization"] == "Bearer engine-secret"
                assert not {"x-api-key", "api-key"} & set(there.visits[0].headers)

    drive(work())


def test_with_keys_only_health_is_open() -> None:
    async def work() -> None:
        async with gateway(config=GatewayOptions(api_keys=(ApiKey("one"),))) as here:
            for path in EVERY_ROUTE:
                expected = {"/health": 200, "/v1/health": 200, "/ui": 302, "/ui/": 302}.get(path, 401)
                assert (await ask(here.port, get(path))).status == expected, path

            assert (await ask(here.port, get("/health"))).body == b'{"status":"ok"}'

    drive(work())


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/index.html", "GET"), ("/cors-proxy", "POST"), ("/v1/chat/completions/control", "POST"),
        ("/models/download", "POST"), ("/tools", "POST"), ("/v1/stream", "GET"), ("/slots/0", "POST"),
        ("/v1/chat/../../props", "POST"), ("//props", "GET"), ("/%70rops", "GET"), ("/props/", "GET"),
        ("/PROPS", "GET"), ("/upstream/demo/cors-proxy", "POST"), ("/upstream/demo/slots/0", "POST"),
        ("/upstream/demo", "GET"), ("/upstream/", "GET"),
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_does_not_exist(path: str, method: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            request = post(path, {}) if method == "POST" else get(path, method=method)
            answer = await ask(here.port, request)
            assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
            assert answer.json["error"].keys() == {"message", "type", "param", "code"}
            assert there.visits == []

    drive(work())


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [("/props", "POST", "GET"), ("/slots", "POST", "GET"), (CHAT, "GET", "POST"), ("/health", "POST", "GET, HEAD"),
     (CHAT, "OPTIONS", "POST"), ("/upstream/demo/props", "POST", "GET"),
     ("/lora-adapters", "POST", "GET"), ("/v1/responses/input_tokens", "GET", "POST")],
)  # fmt: skip
def test_another_method_is_refused_with_the_allowed_ones(path: str, method: str, allowed: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            request = post(path, {}) if method == "POST" else get(path, method=method)
            answer = await ask(here.port, request)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
            assert there.visits == []

    drive(work())


@pytest.mark.parametrize("path", ENGINE_ROUTES)
def test_every_route_of_the_list_reaches_the_engine_by_both_ways(path: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for prefix in ("", "/upstream/demo", "/upstream/org/demo"):
                monitor = ENGINE_ROUTES[path].methods == ("GET",)
                request = get(prefix + path) if monitor else post(prefix + path, {"a": 1})
                assert (await ask(here.port, request)).status == 200

            assert [visit.line.split(" ")[1] for visit in there.visits] == [path] * 3

    drive(work())


def test_models_are_listed_as_three_kinds_of_clients_read_them() -> None:
    async def work() -> None:
        async with gateway() as here:
            for path in ("/v1/models", "/models"):
                listed = (await ask(here.port, get(path))).json
                assert listed["object"] == "list"
                assert [entry["id"] for entry in listed["data"]] == ["demo", "other"]
                assert [entry["status"]["value"] for entry in listed["data"]] == ["loaded", "unloaded"]
                assert listed["data"][0]["aliases"] == ["demo-alias", "org/demo"]
                assert listed["data"][0]["owned_by"] == "orch"

            assert (await ask(here.port, get("/v1/models/org%2Fdemo"))).json["id"] == "demo"
            assert (await ask(here.port, get("/v1/models/nobody"))).json["error"]["code"] == "model_not_found"
            running = (await ask(here.port, get("/running"))).json["running"]
            assert [(entry["model"], entry["state"]) for entry in running] == [("demo", "ready")]
            assert (await ask(here.port, get("/metrics"))).body == b"orch_up 1\n"

    drive(work())


def test_head_is_answered_without_a_body() -> None:
    async def work() -> None:
        async with gateway() as here:
            told = await exchange(here.port, get("/health", "Connection: close", method="HEAD"))
            assert told.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: 15" in told
            assert told.endswith(b"\r\n\r\n")

    drive(work())


@pytest.mark.parametrize("name", ["demo", "demo-alias", "org/demo", "", None])
def test_a_name_of_the_loaded_model_or_none_goes_to_it(name: str | None) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            assert (await ask(here.port, post(CHAT, {"model": name}))).status == 200

    drive(work())


def test_an_unknown_model_is_refused_with_the_nearest_name_even_while_nothing_is_ready() -> None:
    async def work() -> None:
        async with gateway() as here:
            answer = await ask(here.port, post(CHAT, {"model": "demmo"}))
            assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
            assert "did you mean `demo`?" in answer.json["error"]["message"]
            default = await ask(here.port, post(CHAT, {"model": "gpt-3.5-turbo"}))
            assert "known models: demo, other" in default.json["error"]["message"]
            anthropic = await ask(here.port, post("/v1/messages", {"model": "claude"}))
            assert anthropic.json["type"] == "error"
            assert anthropic.json["error"]["type"] == "not_found_error"

    drive(work())


def test_a_model_that_is_not_loaded_says_what_is_and_how_to_switch() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {"model": "other"}))
            assert (answer.status, answer.json["error"]["code"]) == (409, "model_not_loaded")
            assert answer.headers["x-should-retry"] == "false"
            assert "`demo` is" in answer.json["error"]["message"]
            assert "orch switch other" in answer.json["error"]["message"]
            assert there.visits == []

    drive(work())


@pytest.mark.parametrize(
    "body", [b"not json", b"[1]", b'{"model":1}', b'{"model":"\xff"}', b'{"model":"demo","x":NaN}']
)
def test_a_body_whose_model_cannot_be_read_reaches_no_engine(body: bytes) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, body))
            assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")
            assert there.visits == []
            for kept in (b"", b'\xef\xbb\xbf{"model":"demo"}'):
                assert (await ask(here.port, post(CHAT, kept))).status == 200
                assert there.visits[-1].body == kept

    drive(work())


def test_a_body_nested_too_deeply_is_refused() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
            assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")
            assert there.visits == []

    drive(work())


def test_names_are_quoted_back_as_text_and_never_as_headers() -> None:
    async def work() -> None:
        async with gateway() as here:
            told = await exchange(here.port, post(CHAT, {"model": "x\r\nSet-Cookie: a=b\0"}, "Connection: close"))
            head, _, body = told.partition(b"\r\n\r\n")
            assert b"set-cookie" not in head.lower()
            assert b"\r\n" not in body

    drive(work())
