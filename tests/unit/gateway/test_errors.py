from __future__ import annotations

import json
from typing import get_args

import pytest

from orchestrator.gateway.errors import CODES, MAX_RETRY_AFTER_S, Family, GatewayError, family_of, render, sse_event

FAMILIES: tuple[Family, ...] = get_args(Family)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_error_has_a_body_in_every_dialect(code: str, family: Family) -> None:
    status, headers, body = render(family, GatewayError(code, "what happened"))
    decoded = json.loads(body)
    assert status == CODES[code][0]
    assert (b"content-type", b"application/json") in headers
    assert decoded["error"]["message"] == "what happened"
    assert decoded["error"]["type"]
    if family == "anthropic":
        assert decoded["type"] == "error"
    else:
        assert (decoded["src"], decoded["error"]["code"], decoded["error"]["param"]) == ("orch", code, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_event_is_one_event_whatever_the_message_holds(family: Family) -> None:
    event = sse_event(family, GatewayError("engine_died", "a\r\n\r\ndata: [DONE]\n\n\udcff\x1b"))
    lines = event.decode().split("\n")
    assert lines[-2:] == ["", ""]
    assert len([line for line in lines if line.startswith("data: ")]) == 1
    assert event.count(b"\n\n") == 1
    assert b"\r" not in event
    json.loads(event.split(b"data: ", 1)[1])


def test_a_code_of_the_daemon_is_a_503() -> None:
    assert render("openai", GatewayError("start_failed", "x"))[0] == 503


@pytest.mark.parametrize(("asked", "told"), [(0, 1), (5, 5), (600, MAX_RETRY_AFTER_S)])
def test_retry_after_stays_within_what_clients_obey(asked: int, told: int) -> None:
    headers = dict(render("openai", GatewayError("queue_full", "x", retry_after_s=asked))[1])
    assert headers[b"retry-after"] == b"%d" % told
    assert b"x-should-retry" not in headers


@pytest.mark.parametrize(
    ("path", "family"),
    [("/v1/messages", "anthropic"), ("/upstream/m/v1/messages", "anthropic"), ("/v1/chat/completions", "openai")],
)
def test_the_path_tells_the_dialect_of_an_early_error(path: str, family: str) -> None:
    assert family_of(path) == family
