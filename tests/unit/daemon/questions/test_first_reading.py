"""The first verification of a model on a build, with engines that answer by a script: rightly, wrongly, not at all."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.verify.agreement import CLOSE, Bounds, bounds_of
from orchestrator.daemon.questions.first_reading import QuickResult, read_first
from tests.unit.daemon.questions.test_canary import LOST, TOO_LONG, UTF8, Answer, Scripted


def result_of(scripted: Scripted, limit_s: float = 5.0, bounds: Bounds = CLOSE) -> QuickResult:
    result = asyncio.run(result_or_none(scripted, limit_s, bounds))
    assert result is not None
    return result


async def result_or_none(scripted: Scripted, limit_s: float = 5.0, bounds: Bounds = CLOSE) -> QuickResult | None:
    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    probe = EngineProbe("127.0.0.1", server.sockets[0].getsockname()[1], None)
    try:
        return await read_first(probe, limit_s, bounds)
    finally:
        await probe.aclose()
        server.close()


def tokens(body: dict[str, Any], share: float) -> Answer:
    """A stream in which one token has a share, and another one the rest."""
    count = body["n_predict"]
    tops = [{"token": text, "logprob": math.log(part)} for text, part in (("a", share), ("b", 1 - share))]
    step = {"content": "a", "completion_probabilities": [{"token": "a", "top_logprobs": tops}]}
    return 200, [*[step] * count, {"content": "", "stop": True, "timings": {"predicted_n": count}}]


def steady(path: str, body: dict[str, Any]) -> Answer:
    return tokens(body, 0.8)


def off_from_32_rows(share: float) -> Scripted:
    """An engine whose token has another share after a prompt of 32 words and more that is read at once."""

    def answer(path: str, body: dict[str, Any]) -> Answer:
        many = len(body["prompt"].split(" ")) >= 32 and not body["cache_prompt"]
        return tokens(body, share if many else 0.8)

    return Scripted(answer)


def test_an_engine_that_reads_alike_in_both_ways_is_right() -> None:
    result = result_of(Scripted(steady))
    assert (result.verdict, result.failure) == ("right", None)
    assert "same" in result.summary
    assert "36 positions" in result.summary


def test_one_that_computes_many_rows_differently_is_wrong_and_must_not_serve() -> None:
    result = result_of(off_from_32_rows(0.3))
    assert result.verdict == "wrong"
    assert result.failure is not None
    assert result.failure.action == "give_up"
    assert "--unverified" in (result.failure.hint or "")


def test_the_rounding_of_other_kernels_is_not_wrong() -> None:
    assert result_of(off_from_32_rows(0.79)).verdict == "right"


def test_a_cache_of_four_bits_has_wider_bounds() -> None:
    assert result_of(off_from_32_rows(0.64)).verdict == "wrong"
    assert result_of(off_from_32_rows(0.64), bounds=bounds_of(("f16", "q4_0"))).verdict == "right"


def test_one_that_tells_no_likelihoods_is_unverified_and_serves() -> None:
    answer = 200, [{"content": "a"}, {"content": "", "stop": True}]
    engine = Scripted(lambda path, body: answer)
    result = result_of(engine)
    assert (result.verdict, result.failure) == ("unverified", None)
    assert len(engine.asked) == 1


def test_one_with_drafts_tells_the_likelihoods_of_its_first_tokens_and_is_verified_by_these() -> None:
    def drafting(share_of_long: float) -> Scripted:
        def answer(path: str, body: dict[str, Any]) -> Answer:
            long = len(body["prompt"].split(" ")) >= 32 and not body["cache_prompt"]
            status, events = tokens(body, share_of_long if long else 0.8)
            return status, [events[0], *[{"content": "a", "completion_probabilities": []}] * 3, events[-1]]

        return Scripted(answer)

    assert result_of(drafting(0.8)).verdict == "right"
    assert "9 positions" in result_of(drafting(0.8)).summary
    assert result_of(drafting(0.3)).verdict == "wrong"


def test_one_without_time_is_unverified_and_serves() -> None:
    result = result_of(Scripted(steady), limit_s=1e-6)
    assert (result.verdict, result.failure) == ("unverified", None)
    assert "too few" in result.summary


def test_one_that_does_not_answer_within_the_time_is_unverified_and_serves() -> None:
    class Slow(Scripted):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked.append({})
            with contextlib.closing(writer):
                while await reader.read(65536):  # until the other side has given up
                    pass

    engine = Slow(steady)
    result = result_of(engine, limit_s=0.05)
    assert (result.verdict, result.failure) == ("unverified", None)
    assert len(engine.asked) == 1


def test_a_context_that_is_full_ends_the_reading_and_what_was_read_counts() -> None:
    def answer(path: str, body: dict[str, Any]) -> Answer:
        return (400, TOO_LONG) if len(body["prompt"].split(" ")) > 70 else steady(path, body)

    assert result_of(Scripted(answer)).verdict == "right"


def test_an_error_about_the_text_that_was_drawn_says_nothing() -> None:
    def answer(path: str, body: dict[str, Any]) -> Answer:
        return (500, UTF8) if len(body["prompt"].split(" ")) == 33 else steady(path, body)

    assert result_of(Scripted(answer)).verdict == "right"


def test_an_engine_that_fails_is_told_elsewhere() -> None:
    assert asyncio.run(result_or_none(Scripted(lambda path, body: (500, LOST)))) is None
