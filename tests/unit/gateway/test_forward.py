from __future__ import annotations

import pytest

from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.forward import error_message, peek, request_headers, response_headers


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"messages":[{"model":"inner","stream":true}],"model":"m","stream":true}', ("m", True)),
        (b'{"stream":false}', (None, False)),
        (b'{"stream":"yes","model":["m"]}', (None, False)),
        (b'{"stream":1}', (None, False)),
        (b"", (None, False)),
        (b"{", (None, False)),
        (b"null", (None, False)),
    ],
)
def test_only_two_fields_of_the_top_are_read(body: bytes, expected: tuple[str | None, bool]) -> None:
    assert peek(body) == expected


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    with pytest.raises(GatewayError, match="too deeply"):
        peek(b'{"a":' + b"[" * 10**5)


def test_fields_named_by_connection_are_dropped_in_both_directions() -> None:
    headers = [(b"connection", b"x-a, close"), (b"x-a", b"1"), (b"x-b", b"2"), (b"upgrade", b"h2c")]
    assert request_headers(headers, None) == [(b"x-b", b"2")]
    assert response_headers(headers) == [(b"x-b", b"2")]


def test_the_engines_key_replaces_the_clients() -> None:
    assert request_headers([(b"authorization", b"Bearer a"), (b"x-api-key", b"a")], "k") == [
        (b"authorization", b"Bearer k")
    ]


def test_only_event_streams_are_marked_for_proxies_in_front() -> None:
    stream = [(b"content-type", b"text/event-stream; charset=utf-8")]
    assert (b"x-accel-buffering", b"no") in response_headers(stream)
    assert response_headers([(b"content-type", b"application/json")]) == [(b"content-type", b"application/json")]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":"x"}', b'{"error":{"message":1}}', b"<html>"])
def test_an_error_without_a_message_names_its_status(body: bytes) -> None:
    assert error_message(body, 500) == "the engine answered 500"
