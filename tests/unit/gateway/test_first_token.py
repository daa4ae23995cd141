from __future__ import annotations

import json

import pytest

from orchestrator.gateway.first_token import MAX_EVENT_BYTES, FirstToken, only_comments

ROLE = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
PROGRESS = {"choices": [], "prompt_progress": {"total": 900, "processed": 512}}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.mark.parametrize(
    "value",
    [
        {"content": "a", "stop": False},
        {"content": "", "tokens": [7]},
        {"choices": [{"text": "a"}]},
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [{"delta": {"role": "assistant", "reasoning_content": "a"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "response.output_text.delta", "delta": "a"},
    ],
)
def test_what_was_generated_is_a_token(value: object) -> None:
    assert FirstToken().within(event(value))


@pytest.mark.parametrize(
    "data",
    [
        b": orch: loading demo\n\n",
        b":\n\n",
        b"data: [DONE]\n\n",
        b"data: " + b"[" * 5000 + b"\n\n",
        b"data: \xff\n\n",
        b"data: 7\n\n",
        event(ROLE),
        event(PROGRESS),
        event({"content": "", "prompt_progress": {"total": 9}}),
        event({"choices": ["odd", {"delta": 1}]}),
        event({"type": "message_start", "message": {"content": []}}),
        event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        event({"type": "response.created"}),
        event({"error": {"message": "Loading model"}}),
    ],
)
def test_what_comes_before_is_none(data: bytes) -> None:
    assert not FirstToken().within(data)


def test_a_token_after_an_opening_in_one_part_is_seen() -> None:
    assert FirstToken().within(b": wait\n\n" + event(ROLE) + event({"choices": [{"delta": {"content": "a"}}]}))


def test_a_stream_may_be_cut_anywhere() -> None:
    stream = event(ROLE) + event({"choices": [{"delta": {"content": "a"}}]}) + event(ROLE)
    token_ends = stream.index(b'"a"')
    for size in (1, 2, 7, 50):
        first = FirstToken()
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        seen = [number for number, part in enumerate(parts) if first.within(part)]
        assert len(seen) == 1
        assert token_ends <= (seen[0] + 1) * size


def test_what_is_kept_of_an_event_without_end_is_bounded() -> None:
    assert FirstToken().within(b"data: " + b"x" * MAX_EVENT_BYTES)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b":\n\n", True),
        (b": orch: loading\n\n: still\r\n\r\n", True),
        (b":\n\ndata: 1\n\n", False),
        (b": cut in two", True),
        (b":\rdata: 1\n\n", False),
    ],
)
def test_comments_are_told_from_events(data: bytes, expected: bool) -> None:
    assert only_comments(data) is expected
