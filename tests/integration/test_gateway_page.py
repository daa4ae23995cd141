"""The page at `/` and the engines' own pages, over raw sockets; `tests/browser` opens them in a browser."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.api.top_frames import RequestRow
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import RoutingView
from orchestrator.gateway.page import engine_ui, feed
from orchestrator.gateway.page.contract import PageFrame
from tests.integration.gateway_support import (
    DEMO,
    OTHER,
    Client,
    ShownPage,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    exchange,
    gateway,
    get,
    page_model,
    post,
    until,
)

VIEW = RoutingView(1, None, None, "ready demo", (DEMO, OTHER))
HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
KEYED = GatewayOptions(api_keys=(ApiKey("one", "laptop"),))
FILES = ("/page/page.css", "/page/page.js", "/page/icon.svg")
ROW = RequestRow(
    id=1, started="2026-01-01T00:00:00Z", profile="demo", engine="upstream", build="b1", route="/v1/chat/completions",
    outcome="complete", status=200, prompt_tokens=5, output_tokens=7, first_token_s=0.1, prompt_tok_s=50.0,
    decode_tok_s=20.0, draft_tokens=None, draft_accepted=None, held_s=0.0, total_s=0.5, request_id="r-1",
    client="laptop",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed has a frame each tenth of a second, and waits for an engine as long as a busy machine needs."""
    monkeypatch.setattr(feed, "EVERY_S", 0.1)
    monkeypatch.setattr(engine_ui, "LOOK_S", 30.0)


class Feed:
    """A client of the feed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def open(cls, port: int, *headers: str) -> Feed:
        client = await Client.open(port)
        await client.send(get("/page/feed", *headers))
        status, fields = await client.head()
        assert (status, fields["content-type"], fields["cache-control"]) == (200, "text/event-stream", "no-store")
        return cls(client)

    def close(self) -> None:
        self._client.close()

    async def event(self) -> tuple[str, Any]:
        text = (await self._client.chunk()).decode()
        name, _, data = text.strip().partition("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def chunk(self) -> bytes:
        return await self._client.chunk()

    async def until(self, name: str) -> Any:
        """The data of the next event of this name."""
        while True:
            found, data = await self.event()
            if found == name:
                return data


def test_a_browser_gets_the_page_and_a_script_what_it_got_before() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), page=ShownPage()) as here:
            page = await ask(here.port, get("/", HTML))
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert page.body.startswith(b"<!doctype html>")
            for accept in ((), ("Accept: */*",), ("Accept: application/json",)):
                script = await ask(here.port, get("/", *accept))
                assert (script.status, script.json["models"]) == (200, "/v1/models")

            head = await exchange(here.port, get("/", HTML, "Connection: close", method="HEAD"))
            assert f"content-length: {page.headers['content-length']}".encode() in head.lower()
            assert head.endswith(b"\r\n\r\n")

    drive(work())


def test_the_page_s_files_allow_nothing_from_elsewhere_and_are_small() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), page=ShownPage()) as here:
            size = 0
            for path in ("/", *FILES):
                answer = await ask(here.port, get(path, HTML))
                policy = dict(
                    part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
                )
                assert policy == {
                    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
                    "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
                }  # fmt: skip
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["referrer-policy"] == "no-referrer"
                size += len(answer.body) if path.endswith((".css", ".js")) else 0
                again = await ask(
                    here.port, get(path, HTML, "Connection: close", f"If-None-Match: {answer.headers['etag']}")
                )
                assert (again.status, again.body) == (304, b"")

            assert 10_000 < size < 60 * 1024

    drive(work())


def test_the_page_needs_no_key_and_what_it_shows_does() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), KEYED, page=ShownPage()) as here:
            for path in ("/", *FILES):
                assert (await ask(here.port, get(path, HTML))).status == 200

            for request in (get("/page/feed"), get("/"), post("/page/switch", {"model": "other"})):
                assert (await ask(here.port, request)).status == 401

            for host in ("evil.example", "127.0.0.1.evil.example"):
                assert (await ask(here.port, get("/", HTML, host=host))).status == 403

    drive(work())


@pytest.mark.parametrize("page", ["on", "read-only"])
def test_a_page_of_another_site_gets_no_feed(page: Any) -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), replace(KEYED, page=page), page=ShownPage()) as here:
            for header in ("Sec-Fetch-Site: cross-site", "Origin: https://evil.example"):
                for key in ((), ("Authorization: Bearer one",)):
                    answer = await ask(here.port, get("/page/feed", header, *key))
                    assert answer.status in (401, 403)

    drive(work())


def test_where_the_page_is_off_there_is_none() -> None:
    async def work() -> None:
        shown = ShownPage()
        async with gateway(Supervised(VIEW), GatewayOptions(page="off"), page=shown) as here:
            about = await ask(here.port, get("/", HTML))
            assert (about.status, about.json["name"]) == (200, "orch")
            for path in (*FILES, "/page/feed", "/upstream/demo/"):
                assert (await ask(here.port, get(path, HTML))).status == 404

            assert (await ask(here.port, post("/page/switch", {"model": "other"}))).status == 404
            assert shown.switched == []

    drive(work())


def test_the_feed_begins_with_all_and_goes_on_with_what_is_new() -> None:
    async def work() -> None:
        shown = ShownPage(page_model("demo", state="ready"), page_model("other"))
        shown.lines = ["one", "two"]
        async with gateway(Supervised(VIEW), page=shown) as here:
            watcher = await Feed.open(here.port)
            hello = await watcher.event()
            assert hello[0] == "hello"
            assert (hello[1]["may"], hello[1]["keyed"], hello[1]["manage"]) == (True, False, True)
            assert (await watcher.event()) == ("points", [{"at_s": 1700000000.0, "decode_tok_s": 12.5}])
            name, frame = await watcher.event()
            assert (name, frame["rates"]["decode_tok_s"]) == ("frame", 42.0)
            assert [model["name"] for model in frame["models"]] == ["demo", "other"]
            assert await watcher.event() == ("log", ["one", "two"])
            shown.lines.append("three")
            assert await watcher.event() == ("log", ["three"]), "a frame that is the same is not sent again"
            shown.now["queued"] = 3
            assert (await watcher.until("frame"))["queued"] == 3

    drive(work())


def test_all_who_look_share_one_frame_a_second_and_nobody_makes_any_once_they_left() -> None:
    class Counts(ShownPage):
        async def frame(self) -> PageFrame:
            self.change(queued=self.made)
            return await super().frame()

    async def four_frames(watcher: Feed) -> list[int]:
        return [(await watcher.until("frame"))["queued"] for _ in range(4)]

    async def work() -> None:
        shown = Counts()
        async with gateway(Supervised(VIEW), page=shown) as here:
            before = len(asyncio.all_tasks())
            watchers = [await Feed.open(here.port) for _ in range(20)]
            seen = await asyncio.gather(*map(four_frames, watchers))
            # Each of the 80 that arrived would have been made for one alone; on a busy machine some more than four are.
            assert shown.made < 40
            assert all(frames == sorted(set(frames)) for frames in seen), "no frame twice, none out of order"
            for watcher in watchers:
                watcher.close()

            await until(lambda: len(asyncio.all_tasks()) <= before)

    drive(work())


def test_read_only_shows_figures_without_the_key_and_nothing_of_the_log_or_of_who_asked() -> None:
    async def work() -> None:
        secret = "/home/me/models/x.gguf is not there"
        told = {"cause": secret, "hint": secret}
        shown = ShownPage(page_model("demo", state="failed", waits=secret, **told))
        shown.change(requests=[ROW], notice=secret, **told)
        shown.lines = ["a line of the log"]
        async with gateway(Supervised(VIEW), replace(KEYED, page="read-only"), page=shown) as here:
            looks, acts = await Feed.open(here.port), await Feed.open(here.port, "Authorization: Bearer one")
            assert (await looks.event())[1]["may"] is False
            assert (await acts.event())[1]["may"] is True
            frame = await looks.until("frame")
            assert secret not in json.dumps(frame)
            assert (frame["state"], frame["models"][0]["state"]) == ("ready", "failed")
            row = frame["requests"][0]
            assert (row["client"], row["request_id"], row["output_tokens"]) == (None, None, 7)
            whole = await acts.until("frame")
            assert (whole["cause"], whole["requests"][0]["client"]) == (secret, "laptop")
            assert await acts.until("log") == ["a line of the log"]
            shown.now["queued"], shown.lines = 1, ["a line of the log", "another"]
            assert (await looks.event())[0] == "frame"
            wrong = await ask(here.port, get("/page/feed", "Authorization: Bearer wrong"))
            assert wrong.status == 401
            for request in (post("/page/switch", {"model": "demo"}), get("/v1/models"), get("/v1/requests")):
                assert (await ask(here.port, request)).status == 401

    drive(work())


def test_the_feed_ends_with_the_gateway() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), page=ShownPage()) as here:
            watcher = await Feed.open(here.port)
            await watcher.event()
            here.gateway.stop_accepting()
            async with asyncio.timeout(10):
                while await watcher.chunk():
                    pass

    drive(work())


def test_the_page_switches_by_name_or_alias() -> None:
    async def work() -> None:
        shown = ShownPage()
        async with gateway(Supervised(VIEW), page=shown) as here:
            answer = await ask(here.port, post("/page/switch", {"model": "demo-alias"}))
            assert (answer.status, shown.switched) == (200, ["demo"])
            for body, status in (({"model": "nobody"}, 404), ({}, 400), ({"model": ""}, 404)):
                assert (await ask(here.port, post("/page/switch", body))).status == status

            foreign = await ask(here.port, post("/page/switch", {"model": "other"}, "Origin: https://evil.example"))
            assert (foreign.status, shown.switched) == (403, ["demo"])

    drive(work())


PAGE = gzip.compress(b"<!doctype html><script src='./bundle.js'></script>")


async def _engine_with_a_page(visit: Visit) -> None:
    if visit.line.split(" ")[1].partition("?")[0] == "/":
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Encoding: gzip\r\n"
        more = 'Set-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nService-Worker-Allowed: /\r\nETag: "e"\r\n'
        await visit.send(f"{head}{more}Content-Length: {len(PAGE)}\r\n\r\n".encode() + PAGE)
    elif "bundle.js" in visit.line:
        await visit.answer(b"1", kind="text/javascript")
    else:
        await visit.answer(b"{}", status="401 Unauthorized")


async def _engine_without_one(visit: Visit) -> None:
    await visit.answer(b'{"error":{"message":"File Not Found"}}', status="404 Not Found")


def test_an_engine_s_page_comes_with_a_policy_and_is_asked_for_without_any_key() -> None:
    async def work() -> None:
        async with engine(_engine_with_a_page) as there:
            view = replace(VIEW, serving=there.endpoint())
            async with gateway(Supervised(view), KEYED, page=ShownPage()) as here:
                headers = ("Accept-Encoding: gzip, br", "Cookie: c=d", "Authorization: Bearer one", HTML)
                page = await ask(here.port, get("/upstream/demo/?x=1", *headers))
                assert (page.status, page.body) == (200, PAGE)
                assert page.headers["content-encoding"] == "gzip"
                assert page.headers["etag"] == '"e"'
                assert "connect-src 'self'" in page.headers["content-security-policy"]
                assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
                for name in ("set-cookie", "access-control-allow-origin", "service-worker-allowed"):
                    assert name not in page.headers

                seen = there.visits[-1]
                assert (seen.line, seen.headers["accept-encoding"]) == ("GET /?x=1 HTTP/1.1", "gzip, br")
                assert not {"authorization", "cookie", "x-api-key"} & seen.headers.keys()
                moved = await ask(here.port, get("/upstream/demo"))
                assert (moved.status, moved.headers["location"]) == (308, "/upstream/demo/")
                assert (await ask(here.port, get("/upstream/demo/bundle.js"))).body == b"1"
                visits = len(there.visits)
                for path in ("/upstream/demo/props", "/upstream/demo/v1/models", "/upstream/demo/tools"):
                    assert (await ask(here.port, get(path))).status == 401

                assert len(there.visits) == visits
                refused = await ask(here.port, get("/upstream/demo/secret.json"))
                assert (refused.status, refused.json["error"]["code"]) == (404, "no_engine_ui")

    drive(work())


def test_who_shows_no_key_is_not_told_what_is_loaded() -> None:
    async def work() -> None:
        async with engine(_engine_with_a_page) as there:
            view = replace(VIEW, serving=there.endpoint())
            async with gateway(Supervised(view), KEYED, page=ShownPage()) as here:
                for path in ("/upstream/other/", "/upstream/other", "/upstream/nobody/", "/upstream/other/x.js"):
                    assert (await ask(here.port, get(path, HTML))).status == 401, path

    drive(work())


def test_a_build_without_a_page_says_so() -> None:
    async def work() -> None:
        async with engine(_engine_without_one) as there:
            view = replace(VIEW, serving=there.endpoint())
            async with gateway(Supervised(view), page=ShownPage()) as here:
                answer = await ask(here.port, get("/upstream/demo/"))
                assert (answer.status, answer.json["error"]["code"]) == (404, "no_engine_ui")
                assert "has no page of its own" in answer.json["error"]["message"]
                unloaded = await ask(here.port, get("/upstream/other/"))
                assert (unloaded.status, unloaded.json["error"]["code"]) == (503, "model_unloaded")

    drive(work())


@pytest.mark.parametrize(("script", "ui"), [(_engine_with_a_page, True), (_engine_without_one, False)])
def test_the_page_knows_which_engine_has_one_and_asks_it_once(script: Any, ui: bool) -> None:
    async def work() -> None:
        shown = ShownPage(page_model("demo", state="ready"), page_model("other"))
        async with engine(script) as there:
            view = replace(VIEW, serving=there.endpoint())
            async with gateway(Supervised(view), page=shown) as here:
                watcher = await Feed.open(here.port)
                frame = await watcher.until("frame")
                assert [model["ui"] for model in frame["models"]] == [ui, False]
                shown.now["queued"] = 1
                assert (await watcher.until("frame"))["queued"] == 1
                assert len(there.visits) == 1

    drive(work())


def test_an_engine_that_does_not_say_whether_it_has_a_page_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_ui, "LOOK_S", 0.1)
    monkeypatch.setattr(engine_ui, "AGAIN_S", 0.3)
    asked = 0

    async def busy_at_first(visit: Visit) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await visit.gone()
        else:
            await _engine_with_a_page(visit)

    async def work() -> None:
        shown = ShownPage(page_model("demo", state="ready"))
        async with engine(busy_at_first) as there:
            view = replace(VIEW, serving=there.endpoint())
            async with gateway(Supervised(view), page=shown) as here:
                watcher = await Feed.open(here.port)
                assert (await watcher.until("frame"))["models"][0]["ui"] is False
                while not (await watcher.until("frame"))["models"][0]["ui"]:
                    pass

                assert asked == 2

    drive(work())


def test_a_frame_that_cannot_be_made_leaves_the_one_before_and_ends_nothing() -> None:
    class Fails(ShownPage):
        fails = True

        async def frame(self) -> PageFrame:
            if self.fails:
                raise OSError(24, "too many open files")

            return await super().frame()

    async def work() -> None:
        shown = Fails(page_model("demo", state="ready"))
        shown.lines = ["one"]
        async with gateway(Supervised(VIEW), page=shown) as here:
            watcher = await Feed.open(here.port)
            assert (await watcher.event())[0] == "hello"
            assert await watcher.event() == ("log", ["one"])
            shown.fails = False
            assert [(await watcher.event())[0] for _ in range(2)] == ["points", "frame"]
            shown.fails = True
            shown.lines.append("two")
            assert await watcher.event() == ("log", ["two"])
            shown.fails = False
            shown.change(queued=5)
            assert (await watcher.until("frame"))["queued"] == 5

    drive(work())
