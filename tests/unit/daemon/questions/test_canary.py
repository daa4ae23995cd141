"""The canary against engines that answer by a script: rightly, wrongly, with errors of the text, and refusing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.readiness import no_drafts
from orchestrator.daemon.questions import canary
from orchestrator.daemon.questions.canary import send_canary

Answer = tuple[int, Any]
UTF8 = {"error": {"code": 500, "message": "[json.exception.type_error.316] invalid UTF-8 byte at index 1: 0xC3"}}
LOST = {"error": {"code": 500, "message": "decode() failed: vk::Queue::submit: ErrorDeviceLost"}}
NO_POOLING = {"error": {"code": 400, "message": "Pooling type 'none' is not OAI compatible"}}
TOO_LARGE = {
    "error": {"code": 500, "message": "input (544 tokens) is too large to process. increase the physical batch size"}
}
TOO_LONG = {"error": {"code": 400, "message": "request (300 tokens) exceeds the available context size (256 tokens)"}}


class Scripted:
    """An engine on loopback.

    :param answer: status and document for a path and a body; a list is a stream of events
    :ivar asked: what it was asked
    """

    def __init__(self, answer: Callable[[str, dict[str, Any]], Answer]) -> None:
        self._answer = answer
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        path = head.split(" ")[1]
        self.asked.append({"path": path, **body})
        status, document = self._answer(path, body)
        if isinstance(document, list):
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in document)
        else:
            text = json.dumps(document)

        data = text.encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()


async def sent(scripted: Scripted, **more: Any) -> Failure | None:
    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    probe = EngineProbe("127.0.0.1", server.sockets[0].getsockname()[1], None)
    wanted = {"embeddings": False, "reranking": False, "mtp": False, "drafts_in_log": lambda: 0, "timeout_s": 5.0}
    wanted["undrafted"] = lambda answers: no_drafts("p", answers)
    try:
        return await send_canary(probe, **{**wanted, **more})
    finally:
        await probe.aclose()
        server.close()


def text(*tokens: str, likely: float | None = 0.97, drafts: int | None = None) -> Answer:
    """A stream with one event a token; upstream's likelihoods are logarithms."""
    events: list[dict[str, Any]] = []
    for token in tokens:
        told = [{"token": token, "top_logprobs": [{"token": token, "logprob": -0.03}]}]
        events.append({"content": token, "stop": False, **({"completion_probabilities": told} if likely else {})})

    timings = {"predicted_n": len(tokens) + 1, **({"draft_n": drafts} if drafts else {})}
    return 200, [*events, {"content": "", "stop": True, "timings": timings}]


def in_turn(*answers: Answer) -> Callable[[str, dict[str, Any]], Answer]:
    """One answer after the other; the last one goes on."""
    left = list(answers)
    return lambda path, body: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.asyncio
async def test_an_engine_that_says_the_same_at_once_and_in_pieces_is_ready() -> None:
    scripted = Scripted(lambda path, body: text(" one", " two"))
    assert await sent(scripted) is None
    first, *pieces, last = scripted.asked
    assert first["prompt"] == last["prompt"] and len(first["prompt"].split()) > 32
    assert first["n_predict"] >= 64 and first["temperature"] == 0
    assert [each["cache_prompt"] for each in scripted.asked] == [False, False, *[True] * (len(pieces) - 1), True]
    read = [each["prompt"] for each in (*pieces, last)]
    assert all(more.startswith(f"{piece} ") for piece, more in itertools.pairwise(read))
    assert max(more.count(" ") - piece.count(" ") for piece, more in itertools.pairwise(read)) <= 8
    assert {each["n_predict"] for each in pieces} == {1}


@pytest.mark.asyncio
async def test_a_piece_that_is_not_answered_is_told() -> None:
    scripted = Scripted(lambda path, body: (500, LOST) if body["n_predict"] == 1 else text(" one"))
    failure = await sent(scripted)
    assert failure is not None and "ErrorDeviceLost" in failure.message


@pytest.mark.asyncio
async def test_half_a_character_after_a_piece_is_no_dead_engine() -> None:
    scripted = Scripted(lambda path, body: (500, UTF8) if body["n_predict"] == 1 else text(" one"))
    assert await sent(scripted) is None


@pytest.mark.parametrize("fresh", [(), (" wrong",)], ids=["empty", "another text"])
@pytest.mark.asyncio
async def test_an_engine_that_goes_on_otherwise_when_it_reads_in_pieces_is_never_ready(fresh: tuple[str, ...]) -> None:
    scripted = Scripted(lambda path, body: text(" one", " two") if body["cache_prompt"] else text(*fresh))
    failure = await sent(scripted)
    assert failure is not None and failure.permanent
    assert "computes wrongly" in failure.message and "' one two'" in failure.message
    whole = {each["prompt"] for each in scripted.asked if each["n_predict"] > 1}
    assert len(whole) == 2, "asked again before it was judged"


@pytest.mark.asyncio
async def test_an_engine_that_differed_once_is_asked_again_and_believed() -> None:
    assert await sent(Scripted(in_turn(text(" odd"), text(" one")))) is None


@pytest.mark.asyncio
async def test_a_model_that_ends_at_once_is_ready_and_one_that_makes_nothing_is_not() -> None:
    assert await sent(Scripted(lambda path, body: text())) is None  # the end of the text was counted
    nothing: Answer = (200, [{"content": "", "stop": True, "tokens_predicted": 0}])
    failure = await sent(Scripted(lambda path, body: nothing))
    assert failure is not None and "no token" in failure.message and failure.action == "restart"


@pytest.mark.asyncio
async def test_half_a_character_that_was_drawn_is_no_dead_engine() -> None:
    assert await sent(Scripted(in_turn((500, UTF8), text(" one")))) is None
    assert await sent(Scripted(lambda path, body: (500, UTF8))) is None  # it computes, whatever it draws


@pytest.mark.asyncio
async def test_an_error_is_asked_again_with_other_words_and_then_told() -> None:
    scripted = Scripted(lambda path, body: (500, LOST))
    failure = await sent(scripted)
    assert failure is not None and "ErrorDeviceLost" in failure.message
    assert (failure.failure_class, failure.action) == ("engine_bug", "restart")
    assert len({each["prompt"] for each in scripted.asked}) == len(canary.PROMPTS)
    assert await sent(Scripted(in_turn((500, LOST), text(" one")))) is None


@pytest.mark.asyncio
async def test_an_error_in_the_stream_is_an_error() -> None:
    failure = await sent(Scripted(lambda path, body: (200, [{"content": " o", "stop": False}, LOST])))
    assert failure is not None and "ErrorDeviceLost" in failure.message


@pytest.mark.asyncio
async def test_a_small_context_gets_a_short_prompt() -> None:
    scripted = Scripted(lambda path, body: text(" a"))
    assert await sent(scripted, context_tokens=64) is None
    assert all(len(each["prompt"]) < 32 and each["n_predict"] <= 16 for each in scripted.asked)
    answered = Scripted(lambda path, body: (400, TOO_LONG) if len(body["prompt"]) > 100 else text(" a"))
    assert await sent(answered) is None


@pytest.mark.asyncio
async def test_with_mtp_drafts_have_to_be_counted() -> None:
    assert await sent(Scripted(lambda path, body: text(" a", drafts=3)), mtp=True) is None
    failure = await sent(Scripted(lambda path, body: text(" a")), mtp=True)
    assert failure is not None and "without a single draft" in failure.message
    why = await sent(
        Scripted(lambda path, body: text(" a")), mtp=True, undrafted=lambda answers: no_drafts("p", answers, "a line")
    )
    assert why is not None and why.evidence == "a line"


@pytest.mark.parametrize("purpose", ["embeddings", "reranking"])
@pytest.mark.asyncio
async def test_the_longest_input_shows_a_batch_that_is_too_small(purpose: str) -> None:
    def answer(path: str, body: dict[str, Any], ubatch: int = 512) -> Answer:
        said = str(body.get("input") or body.get("documents") or body.get("content"))
        count = len(said.split())
        if path == "/tokenize":
            return 200, {"tokens": list(range(count))}

        return (500, TOO_LARGE) if count > ubatch else (200, {"data": [1], "results": [1]})

    failure = await sent(Scripted(answer), **{purpose: True}, context_tokens=8192, ubatch=512)
    assert failure is not None and (failure.failure_class, failure.action) == ("bad_flag", "give_up")
    assert "too large to process" in failure.message and "batch.ubatch" in (failure.hint or "")
    assert await sent(Scripted(answer), **{purpose: True}, context_tokens=512, ubatch=512) is None
    enough = Scripted(lambda path, body: answer(path, body, 4096))
    assert await sent(enough, **{purpose: True}, context_tokens=4096, ubatch=4096) is None
    assert max(len(str(each).split()) for each in enough.asked) > 4000


@pytest.mark.asyncio
async def test_a_refusal_says_that_the_settings_are_wrong() -> None:
    failure = await sent(Scripted(lambda path, body: (400, NO_POOLING)), embeddings=True)
    assert failure is not None and (failure.failure_class, failure.action) == ("bad_flag", "give_up")
    assert "Pooling type" in failure.message
    failure = await sent(Scripted(lambda path, body: (501, {"error": "start it with `--embeddings`"})), embeddings=True)
    assert failure is not None and failure.permanent


@pytest.mark.asyncio
async def test_an_engine_without_a_tokenizer_s_route_is_asked_briefly() -> None:
    scripted = Scripted(lambda path, body: (404, {}) if path == "/tokenize" else (200, {"data": [1]}))
    assert await sent(scripted, embeddings=True, context_tokens=8192) is None


@pytest.mark.parametrize("purpose", [{}, {"embeddings": True}, {"reranking": True}], ids=["text", "embed", "rerank"])
@pytest.mark.asyncio
async def test_what_was_proven_before_is_asked_one_short_thing(purpose: dict[str, bool]) -> None:
    document = {"data": [{"embedding": [0.1]}], "results": [{"index": 0, "relevance_score": 0.5}]}
    scripted = Scripted(lambda path, body: (200, document) if purpose else text(" one"))
    assert await sent(scripted, proven=True, **purpose) is None
    assert len(scripted.asked) == 1


@pytest.mark.asyncio
async def test_what_was_proven_before_and_fails_the_short_thing_is_asked_all_of_it() -> None:
    scripted = Scripted(lambda path, body: (500, LOST))
    failure = await sent(scripted, proven=True)
    assert failure is not None and "ErrorDeviceLost" in failure.message
    assert len(scripted.asked) > 1
