from __future__ import annotations

import pytest

from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.forward import error_message, form_model, peek, request_headers, response_headers


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"messages":[{"model":"inner","stream":true}],"model":"m","stream":true}', ("m", True)),
        (b'{"stream":false}', (None, False)),
        (b'{"stream":"yes","model":null}', (None, False)),
        (b'{"stream":1}', (None, False)),
        # The engine's parser: the last of two, a byte order mark skipped, keys unescaped.
        (b'{"model":"a","model":"m"}', ("m", False)),
        (b'{"model":5,"model":"m"}', ("m", False)),
        (b'{"mod\\u0065l":"m"}', ("m", False)),
        (b'\xef\xbb\xbf{"model":"m"}', ("m", False)),
        (b'{"x":1e999,"model":"m"}', ("m", False)),
    ],
)
def test_only_two_fields_of_the_top_are_read(body: bytes, expected: tuple[str | None, bool]) -> None:
    assert peek(body) == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model":"m","x":NaN}', r"byte 17"),
        (b'{"model":"m","x":-Infinity}', r"byte 18"),
        (b'{"x":"\\ud83d","model":"m"}', r"byte 12"),
        (b'{"model":"\\udc00"}', "no valid JSON"),
        (b'{"model":"\xff"}', r"not UTF-8 \(byte 10\)"),
        (b'{"x":"\xff","model":"m"}', r"not UTF-8 \(byte 6\)"),
        (b'{"x":"\xed\xa0\x80","model":"m"}', r"not UTF-8 \(byte 6\)"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"model":"m"}', "byte 0"),
        ('{"model":"m"}'.encode("utf-16"), "byte 0"),
        (b'{"model":"m",}', "trailing comma"),
        (b'{/**/"model":"m"}', "byte 1"),
        (b'{"model":"m"}{"model":"a"}', "trailing characters"),
        (b'{"model":"m"}\0', "trailing characters"),
        (b'{"x":"\x01","model":"m"}', "byte 6"),
        (b"{", "truncated"),
        (b"", "truncated"),
        (b"model=m", "byte 0"),
        (b"null", "got `null`"),
        (b'[{"model":"m"}]', "got `array`"),
        (b'{"model":["m"]}', "`model`: expected a string, found a list"),
        (b'{"model":"m","model":5}', "found a number"),
        (b'{"model":{}}', "found an object"),
        (b'{"model":true}', "found a boolean"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_where(body: bytes, said: str) -> None:
    with pytest.raises(GatewayError, match=said) as caught:
        peek(body)

    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_a_form_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(GatewayError, match="begin with its boundary") as caught:
        form_model(b"multipart/form-data; boundary=X", b"model=m")

    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


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
