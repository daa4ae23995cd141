from __future__ import annotations

import json

import pytest

from orchestrator.gateway.timings import TAIL_BYTES, BodyTail, EngineFigures, figures

TIMINGS = {"prompt_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 2, "draft_n": 5, "draft_n_accepted": 2}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_the_last_timings_count() -> None:
    early = compact({"timings": {**TIMINGS, "predicted_n": 1}})
    body = b"data: " + early + b"\n\ndata: " + compact({"timings": TIMINGS}) + b"\n\ndata: [DONE]\n\n"
    assert figures(body) == EngineFigures(3, 1.5, 4, 2.0, 5, 2)


@pytest.mark.parametrize(
    ("more", "depth", "cached"),
    [
        ({"cache_n": 1000}, 1007, 1000),
        ({"n_past": 1007, "n_ctx": 4096}, 1007, 1000),
        ({}, None, None),
        ({"cache_n": "x"}, None, None),
    ],
    ids=["upstream", "fork", "older builds", "broken"],
)
def test_the_depth_of_the_context_counts_what_was_in_the_cache(
    more: dict[str, object], depth: int | None, cached: int | None
) -> None:
    found = figures(compact({"timings": {**TIMINGS, **more}}))
    assert (found.depth_tokens, found.cached_tokens) == (depth, cached)


def test_text_that_looks_like_timings_is_not_taken() -> None:
    body = compact(
        {"content": '"timings":{"prompt_n":99}', "timings": {"prompt_n": 3}, "more": '"timings":{"prompt_n":9}'}
    )
    assert figures(body).prompt_tokens == 3


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 1}}, (6, 8, 1)),
        ({"input_tokens": 37, "output_tokens": 8, "input_tokens_details": {"cached_tokens": 36}}, (1, 8, 36)),
        ({"cache_read_input_tokens": 37, "input_tokens": 1, "output_tokens": 8}, (1, 8, 37)),
        ({"input_tokens": 7, "output_tokens": 8}, (7, 8, None)),
        ({"input_tokens": 7, "output_tokens": 8, "input_tokens_details": None}, (7, 8, None)),
    ],
)
def test_usage_serves_where_there_are_no_timings(
    usage: dict[str, object], expected: tuple[int, int, int | None]
) -> None:
    found = figures(compact({"usage": usage, "id": "x"}))
    assert (found.prompt_tokens, found.output_tokens, found.cached_tokens) == expected
    assert found.output_ms is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"timings":{',
        b'{"timings":{"prompt_n":',
        b'{"timings":{"prompt_n":null,"prompt_ms":"x"}}',
        b'{"timings":{"prompt_n":-1,"prompt_ms":NaN,"predicted_n":true,"predicted_ms":Infinity}}',
        b'{"timings":{"prompt_n":1' + b"0" * 30 + b',"prompt_ms":1e300,"predicted_ms":-0.5}}',
        b"\xff",
    ],
)
def test_what_is_missing_or_broken_is_none(body: bytes) -> None:
    assert figures(body) == EngineFigures()


def test_a_tail_keeps_the_end_and_is_bounded() -> None:
    tail = BodyTail()
    for number in range(5000):
        tail.add(b"%07d," % number)

    value = tail.value()
    assert value.endswith(b"0004998,0004999,")
    assert TAIL_BYTES <= len(value) < TAIL_BYTES + 8


def test_one_large_part_is_cut_to_its_end() -> None:
    tail = BodyTail()
    tail.add(b"a" * 10**6 + b"end")
    assert tail.value().endswith(b"end")
    assert len(tail.value()) == TAIL_BYTES
