"""Error events at the end of a stream."""

from __future__ import annotations

import json
import random

import pytest

from orchestrator.gateway.errors import Family
from orchestrator.gateway.requests.stream_errors import error_status
from orchestrator.gateway.timings import TAIL_BYTES, BodyTail

DELTA = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"", None),
        (DELTA + b"data: [DONE]\n\n", None),
        (DELTA + b'data: {"error":{"code":503}}\n\n', 503),
        (DELTA + b'data:{"error":{"code":503}}', 503),
        (b'error: {"code":400}\n\n', 400),
        (b"error: not JSON\n\n", 500),
        (b'event: error\ndata: {"code":429}\n\n', 429),
        (b"event:error\ndata: nothing of JSON\n\n", 500),
        (b'event: error\n\ndata: {"content":"a"}\n\n', None),  # an event without data is none
        (b'data: {"type":"error","error":{"type":"overloaded_error"}}\n\n', 500),
        (b'data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n', 500),
        (b'data: {"type":"response.incomplete","response":{"error":null}}\n\n', None),
        (b'data: {"error":{"code":true}}\n\n', 500),
        (b'data: {"error":{"code":200}}\n\n', 500),
        (b'data: {"error":{"code":1e999}}\n\n', None),
        (b'data: {"error":[[[' + b"[" * 9000, None),
        (b': error\n\ndata: {"error":null}\n\n', None),
        (b'data: "error"\n\n', None),
    ],
)
def test_an_error_event_is_found_with_its_status(tail: bytes, expected: int | None) -> None:
    assert error_status(tail, "plain") == expected


def test_text_that_the_tail_begins_in_is_no_event() -> None:
    event = b"data: " + json.dumps({"content": 'error: {"code":500} ' * 2000, "error": None}).encode() + b"\n\n"
    for size in random.Random(1).sample(range(TAIL_BYTES, len(event)), 200):
        tail = BodyTail()
        tail.add(event[:size] + b"\n\n" + DELTA)
        assert error_status(tail.value(), "plain") is None


def test_no_bytes_make_it_fail() -> None:
    source = random.Random(2)
    parts = [
        b"data: ",
        b"event: ",
        b"error",
        b":",
        b"\n",
        b"\r",
        b'{"error":',
        b"{}",
        b"[",
        b'"',
        b"\xff",
        b"500",
        b"}",
    ]
    for _ in range(3000):
        error_status(b"".join(source.choices(parts, k=source.randrange(30))), "openai")


STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
LONG = b"x" * 2 * TAIL_BYTES


@pytest.mark.parametrize(
    ("family", "stream", "expected"),
    [
        ("openai", DELTA + STOP + b"data: [DONE]\n\n", None),
        ("openai", DELTA + b"data: [DONE]\n\n", None),
        ("openai", DELTA + b"data:[DONE]\r\n\r\n", None),
        ("openai", DELTA + STOP, None),
        ("openai", DELTA, 500),
        ("openai", b"", 500),
        ("openai", b": only a comment\n\n", 500),
        ("openai", b'data: {"choices":[{"delta":{"content":"data: [DONE]"},"finish_reason":null}]}\n\n', 500),
        ("openai", b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"stop\\""}}]}\n\n', 500),
        ("openai", DELTA + b'data: {"error":{"code":503,"message":"' + LONG + b'"}}\n\n', 500),
        ("openai", DELTA + b'data: {"error":{"code":503}}\n\ndata: [DONE]\n\n', 503),
        ("completion", b'data: {"content":"a","stop":false}\n\n', 500),
        ("completion", b'data: {"content":"","stop":true,"timings":{}}\n\n', None),
        ("completion", b'data: {"stop":true,"prompt":"' + LONG + b'","stop_type":"limit","timings":{}}\n\n', None),
        ("completion", b'data: {"stop":true,"prompt":"' + LONG + b'","stopped_eos":true,"timings":{}}\n\n', None),
        ("completion", b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n', 500),
        ("completion", b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\ndata: [DONE]\n\n', None),
        ("completion", b'error: {"code":500,"message":"' + LONG + b'"}\n\n', 500),
        ("anthropic", b'event: message_stop\ndata: {"type":"message_stop"}\n\n', None),
        ("anthropic", b'event: error\ndata: {"type":"error","message":"' + LONG + b'"}\n\n', 500),
        ("anthropic", b'data: {"type":"content_block_delta","delta":{"text":"message_stop"}}\n\n', 500),
        ("responses", b'data: {"type":"response.output_text.delta"}\n\n', None),
    ],
)
def test_a_stream_without_its_end_was_cut_short(family: Family, stream: bytes, expected: int | None) -> None:
    tail = BodyTail()
    for at in range(0, len(stream), 1000):
        tail.add(stream[at : at + 1000])

    assert error_status(tail.value(), family) == expected
