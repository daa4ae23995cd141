from __future__ import annotations

import json
import random

import pytest

from orchestrator.gateway.requests.model_name import StreamRenamer, rename_whole

TRAP = '"model":"alpha"'
EVENTS = [
    {"choices": [{"delta": {"content": TRAP}}], "model": "alpha", "object": "chat.completion.chunk"},
    {"type": "message_start", "message": {"model": "alpha", "content": []}},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"model":"alpha"}'}}]}}], "model": "alpha"},
]
ODD = ["gpt-4.1", 'a"b', "a\\", "é/ü", "alpha-longer", "a"]


def stream(model: str) -> bytes:
    text = b": ping\n\n"
    for event in EVENTS * 3:
        whole = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        value = json.dumps(model, ensure_ascii=False)
        text += b"data: " + whole.replace(TRAP, f'"model":{value}').encode() + b"\n\n"

    return text + b"data: [DONE]\n\n"


@pytest.mark.parametrize("asked", [*ODD, "alpha"])
@pytest.mark.parametrize("said", ["alpha", "x" * 100, 'q"uo', "back\\"])
def test_wherever_a_stream_is_cut_it_says_the_asked_name(said: str, asked: str) -> None:
    given, wanted = stream(said), stream(asked)
    chance = random.Random(1)
    for most in (1, 2, 7, 40, 400, len(given)):
        renamer, out, at = StreamRenamer(asked), b"", 0
        while at < len(given):
            size = chance.randint(1, most)
            part = given[at : at + size]
            out += part if renamer.done else renamer.feed(part)
            at += size

        assert out + renamer.rest() == wanted


def test_a_name_that_is_right_ends_the_search() -> None:
    renamer = StreamRenamer("alpha")
    assert renamer.feed(stream("alpha")) == stream("alpha")
    assert renamer.done


def test_a_stream_without_a_name_is_passed_on() -> None:
    for text in (b'data: {"content":"x"}\n\n', b'data: {"model":null}\n\n', b'data: {"mod', b'{"model":"cut'):
        renamer = StreamRenamer("a")
        assert renamer.feed(text) + renamer.rest() == text


def test_of_a_whole_answer_the_outermost_field_alone_is_replaced() -> None:
    body = b'{"content":[{"type":"tool_use","input":{"model":"alpha","n":1.50}}],"model":"alpha","x":null}'
    assert rename_whole(body, 'b"').replace(b" ", b"") == body.replace(b'"model":"alpha","x"', b'"model":"b\\"","x"')


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"model":1', b'{"a":"\\"model\\":"}', b'{"model":"asked"}', b"\xff"])
def test_what_has_no_such_field_is_as_it_came(body: bytes) -> None:
    assert rename_whole(body, "asked") == body
