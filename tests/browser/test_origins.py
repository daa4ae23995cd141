"""A page of another origin in a real browser: what it may send and read, where it is named and where it is not."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.gateway.config import GatewayOptions
from tests.browser.page_server import page_server
from tests.browser.webdriver import Browser
from tests.integration.gateway_support import ShownPage

KEY = (ApiKey("secret"),)
SCRIPT = """
const [base, key, done] = arguments;
const bearer = key ? {authorization: 'Bearer ' + key} : {};
const chat = JSON.stringify({model: 'demo', stream: true, messages: [{role: 'user', content: 'hi'}]});
const told = {};
const ask = async (name, path, options) => {
  try {
    const answer = await fetch(base + path, options);
    told[name] = [answer.status, await answer.text(), answer.headers.get('x-request-id') !== null];
  } catch (error) {
    told[name] = error.name;
  }
};
const listen = () => new Promise((heard) => {
  const events = new EventSource(base + 'api/events');
  events.onmessage = (event) => { events.close(); heard(JSON.parse(event.data).type); };
  events.onerror = () => { events.close(); heard('error'); };
});
(async () => {
  const typed = {'content-type': 'application/json', 'x-stainless-lang': 'js', ...bearer};
  await ask('models', 'v1/models', {headers: bearer});
  await ask('chat', 'v1/chat/completions', {method: 'POST', headers: typed, body: chat});
  await ask('unknown', 'v1/chat/completions', {method: 'POST', headers: typed, body: '{"model": "nobody"}'});
  await ask('plain', 'v1/chat/completions', {method: 'POST', body: chat});
  await ask('other field', 'v1/models', {headers: {...bearer, 'x-evil': '1'}});
  told.events = key ? null : await listen();
  done(told);
})();
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        if self.path == "/sandboxed":
            self.send_header("content-security-policy", "sandbox allow-scripts")

        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def other_page() -> Iterator[str]:
    """Serve a page on a port of its own; its origin."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told_to_a_page(browser: Browser, url: str, options: GatewayOptions, key: str = "") -> tuple[dict[str, Any], int]:
    """Return what a page at this address is told by a gateway, and how many requests got to the engine."""
    with page_server(ShownPage(), options) as opened:
        browser.open(url)
        told = browser.command("POST", "/execute/async", {"script": SCRIPT, "args": [opened.url, key]})
        return told, len(opened.engine.visits)


@pytest.mark.parametrize("keys", [(), KEY], ids=["no key", "key"])
def test_a_page_that_is_named_reads_streams_errors_and_events(one_browser: Browser, keys: tuple[ApiKey, ...]) -> None:
    with other_page() as origin:
        options = GatewayOptions(allowed_origins=(origin,), api_keys=keys)
        told, visits = told_to_a_page(one_browser, origin, options, "secret" if keys else "")

    status, body, has_id = told["models"]
    assert (status, has_id) == (200, True)
    assert {each["id"] for each in json.loads(body)["data"]} >= {"demo", "other"}
    status, body, has_id = told["chat"]
    assert (status, has_id) == (200, True)
    assert body.endswith("data: [DONE]\n\n")
    assert told["unknown"][0] == 404
    assert json.loads(told["unknown"][1])["error"]["code"] == "model_not_found"
    assert told["plain"][0] == (401 if keys else 415), "read as well: what a page does wrong it is told"
    assert told["other field"] == "TypeError", "the browser sends no field that was not granted"
    assert told["events"] == (None if keys else "modelStatus")
    assert visits == 1


@pytest.mark.parametrize("allowed", [(), ("https://chat.example", "null")], ids=["none", "others"])
def test_a_page_that_is_not_named_reads_nothing_and_sends_no_json(
    one_browser: Browser, allowed: tuple[str, ...]
) -> None:
    with other_page() as origin:
        told, visits = told_to_a_page(one_browser, origin, GatewayOptions(allowed_origins=allowed))

    assert told == {
        "models": "TypeError", "chat": "TypeError", "unknown": "TypeError", "plain": "TypeError",
        "other field": "TypeError", "events": "error",
    }  # fmt: skip
    assert visits == 0


def test_a_page_without_a_name_is_null(one_browser: Browser) -> None:
    options = GatewayOptions(allowed_origins=("null",), api_keys=KEY)
    with other_page() as origin:
        told, visits = told_to_a_page(one_browser, f"{origin}/sandboxed", options, "secret")

    assert one_browser.run("return self.origin") == "null"
    assert (told["models"][0], told["chat"][0], visits) == (200, 200, 1)


def test_every_page_with_the_key_and_none_without_it(one_browser: Browser) -> None:
    options = GatewayOptions(allowed_origins=("*",), api_keys=KEY)
    with other_page() as origin:
        told, visits = told_to_a_page(one_browser, origin, options, "secret")
        assert (told["models"][0], told["chat"][0], visits) == (200, 200, 1)
        told, visits = told_to_a_page(one_browser, origin, options, "wrong")
        assert (told["models"][0], told["chat"][0], visits) == (401, 401, 0)
