"""Pages of other origins: those that the configuration names read answers and send JSON, the others get nothing."""

from __future__ import annotations

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import HttpLimits
from orchestrator.gateway.config import GatewayOptions
from tests.integration.gateway_support import Answer, Client, Visit, ask, drive, engine, gateway, get, post

PAGE = "https://chat.example"
CHAT = "/v1/chat/completions"
FROM_PAGE = (f"Origin: {PAGE}", "Sec-Fetch-Site: cross-site")
ASKING = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type,x-evil")
KEY = (ApiKey("secret"),)


def options(*origins: str, keys: tuple[ApiKey, ...] = (), limits: HttpLimits | None = None) -> GatewayOptions:
    return GatewayOptions(allowed_origins=origins or (PAGE,), api_keys=keys, limits=limits or HttpLimits())


def permission(headers: dict[str, str]) -> str | None:
    return headers.get("access-control-allow-origin")


async def echo(visit: Visit) -> None:
    await visit.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\n"
        b"Access-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\n{}"
    )


async def stream(visit: Visit) -> None:
    await visit.begin_stream()
    await visit.chunk(b"data: {}\n\n")
    await visit.end_stream()


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/models", "/no-such-route"])
@pytest.mark.parametrize("keys", [(), KEY], ids=["no keys", "keys"])
def test_a_named_page_may_ask_whether_it_may_without_a_key(path: str, keys: tuple[ApiKey, ...]) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=options(keys=keys)) as here:
            here.supervisor.show(serving=there.endpoint())
            more = ("Access-Control-Request-Private-Network: true", "Connection: close")
            answer = await ask(here.port, get(path, *FROM_PAGE, *ASKING, *more, method="OPTIONS"))
            assert (answer.status, answer.body, permission(answer.headers)) == (204, b"", PAGE)
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST"
            assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
            assert answer.headers["access-control-allow-private-network"] == "true"
            assert answer.headers["vary"] == "Origin"
            assert there.visits == []

    drive(work())


def test_answers_streams_and_errors_of_all_kinds_have_the_permission() -> None:
    async def work() -> None:
        config = options(limits=HttpLimits(body_bytes=1000))
        async with engine(echo) as there, engine(stream) as streaming, gateway(config=config) as here:

            async def told(request: bytes) -> Answer:
                answer = await ask(here.port, request)
                assert permission(answer.headers) == PAGE
                assert answer.headers["vary"] == "Origin"
                assert "x-request-id" in answer.headers["access-control-expose-headers"]
                assert "access-control-allow-credentials" not in answer.headers
                return answer

            here.supervisor.show(serving=there.endpoint())
            assert (await told(post(CHAT, {}, *FROM_PAGE))).status == 200
            for path in ("/v1/models", "/metrics", "/props", "/api/version", "/unload"):
                assert (await told(get(path, *FROM_PAGE))).status == 200, path

            assert (await told(post(CHAT, {"model": "nobody"}, *FROM_PAGE))).status == 404
            assert (await told(post(CHAT, b"x" * 1001, *FROM_PAGE))).status == 413, "which the server answers itself"
            here.supervisor.show(serving=streaming.endpoint("i-2"))
            assert (await told(post(CHAT, {"stream": True}, *FROM_PAGE))).body == b"data: {}\n\n"

    drive(work())


def test_a_wrong_key_is_told_to_the_page_as_well() -> None:
    async def work() -> None:
        async with gateway(config=options(keys=KEY)) as here:
            answer = await ask(here.port, post(CHAT, {}, *FROM_PAGE, "Authorization: Bearer wrong"))
            assert (answer.status, permission(answer.headers)) == (401, PAGE)

    drive(work())


def test_a_stream_of_events_has_the_permission_in_its_head() -> None:
    async def work() -> None:
        async with gateway(config=options()) as here:
            client = await Client.open(here.port)
            await client.send(get("/api/events", *FROM_PAGE))
            status, headers = await client.head()
            assert (status, permission(headers)) == (200, PAGE)

    drive(work())


@pytest.mark.parametrize("origin", ["https://evil.example", "http://chat.example", "null", "http://localhost:3000"])
def test_another_page_gets_nothing_and_its_owner_reads_which_setting_gives_it(origin: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=options(keys=KEY)) as here:
            here.supervisor.show(serving=there.endpoint())
            asked = await ask(here.port, get(CHAT, f"Origin: {origin}", *ASKING, method="OPTIONS"))
            assert (asked.status, asked.json["error"]["code"]) == (403, "cross_site")
            assert f"`{origin}` to gateway.allowed_origins" in asked.json["error"]["message"]
            key = "Authorization: Bearer secret"
            read = await ask(here.port, get("/v1/models", f"Origin: {origin}", key))
            for answer in (asked, read):
                assert not [name for name in answer.headers if name.startswith("access-control")]
                assert answer.headers["vary"] == "Origin", "a cache must not give it to another page"

            if not origin.startswith("http://localhost"):
                sent = await ask(here.port, post(CHAT, {}, f"Origin: {origin}", key))
                assert (sent.status, sent.json["error"]["code"]) == (403, "cross_site")
                assert there.visits == []

    drive(work())


@pytest.mark.parametrize("origin", ["app://obsidian.md", "vscode-webview://1a2b", "tauri://localhost", "null"])
def test_applications_and_pages_without_a_name_are_origins_too(origin: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=options(origin)) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}, f"Origin: {origin}", "Sec-Fetch-Site: cross-site"))
            assert (answer.status, permission(answer.headers)) == (200, origin)

    drive(work())


def test_a_star_is_every_page_that_has_the_key() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=options("*", keys=KEY)) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}, *FROM_PAGE, "Authorization: Bearer secret"))
            assert (answer.status, permission(answer.headers)) == (200, "*")
            assert (await ask(here.port, post(CHAT, {}, *FROM_PAGE))).status == 401

    drive(work())


def test_a_named_page_does_not_open_a_foreign_host() -> None:
    async def work() -> None:
        async with gateway(config=options()) as here:
            for request in (
                get(CHAT, *FROM_PAGE, *ASKING, method="OPTIONS", host="evil.example"),
                post(CHAT, {}, *FROM_PAGE, host="evil.example"),
            ):
                answer = await ask(here.port, request)
                assert (answer.status, answer.json["error"]["code"]) == (403, "host_not_allowed")

    drive(work())


def test_who_asks_from_no_page_sees_no_difference() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=options()) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}))
            assert answer.status == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]
            plain = await ask(here.port, get(CHAT, method="OPTIONS"))
            assert (plain.status, plain.headers["allow"]) == (405, "POST")

    drive(work())
