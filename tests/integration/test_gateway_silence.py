"""A stream whose engine says nothing for long: the head and comments come from the gateway, within one stream."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest

from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import EngineProgress
from tests.integration.gateway_support import Client, Visit, drive, engine, gateway, post, until
from tests.integration.test_gateway_clients import delta, hello, openai_client

SOON = GatewayOptions(silence_s=0.02, comment_every_s=0.02, recover_s=0.3)
CHAT = "/v1/chat/completions"


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


async def comments(client: Client, count: int) -> list[bytes]:
    return [await client.chunk() for _ in range(count)]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/completion"])
def test_the_head_and_the_prompts_progress_come_before_the_engine_says_anything(path: str) -> None:
    async def work() -> None:
        async def silent(visit: Visit) -> None:
            await visit.gone()

        async with engine(silent) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            here.dispatcher.progress = lambda: {each.id: EngineProgress(0.43) for each in here.dispatcher.underway()}
            client = await Client.open(here.port)
            await client.send(post(path, {"model": "demo", "stream": True}))
            status, headers = await client.head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            assert "x-request-id" in headers
            assert await comments(client, 2) == [b": orch: the engine has read 43% of the prompt\n\n"] * 2

    drive(work())


def test_an_engine_that_sent_a_head_and_nothing_else_is_no_different() -> None:
    async def work() -> None:
        async def head_only(visit: Visit) -> None:
            await visit.begin_stream()
            await visit.gone()

        async with engine(head_only) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo", "stream": True}))
            assert (await client.head())[0] == 200
            assert await client.chunk() == b": orch: the engine has the request; no token yet\n\n"

    drive(work())


def test_a_comment_never_comes_into_the_middle_of_what_the_engine_says() -> None:
    async def work() -> None:
        async def halting(visit: Visit) -> None:
            await visit.begin_stream()
            await visit.chunk(b": a keep-alive that is c")
            await visit.gone()

        async with engine(halting) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo", "stream": True}))
            await client.head()
            first = await client.chunk()
            await until(lambda: here.supervisor.looks > 0)
            assert b"keep-alive" in first or first.startswith(b": orch")

    drive(work())


def test_nothing_is_said_once_the_answer_has_begun() -> None:
    async def work() -> None:
        async def slow(visit: Visit) -> None:
            await visit.begin_stream()
            await visit.chunk(delta("a"))
            await until(lambda: stop)
            await visit.chunk(delta("b"))
            await visit.end_stream()

        stop: list[int] = []
        async with engine(slow) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo", "stream": True}))
            await client.head()
            assert await client.chunk() == delta("a")
            for _ in range(20):
                await _moment()

            stop.append(1)
            assert await client.chunks() == delta("b")

    drive(work())


async def _moment() -> None:
    await asyncio.sleep(0.005)


def test_a_whole_answer_is_left_alone() -> None:
    async def work() -> None:
        async def late(visit: Visit) -> None:
            for _ in range(20):
                await _moment()

            await visit.answer(b'{"error":{"message":"too long"}}', status="400 Bad Request")

        async with engine(late) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo"}))
            assert (await client.answer()).status == 400

    drive(work())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, b'data: {"error":{"message":"the prompt is too long"'),
        ("/completion", b'data: {"error":{"message":"the prompt is too long"'),
        ("/v1/messages", b"event: error\ndata: "),
        ("/v1/responses", b"event: response.failed\ndata: "),
    ],
)
def test_an_error_after_that_is_an_event_of_its_family(path: str, expected: bytes) -> None:
    async def work() -> None:
        refuse: list[int] = []

        async def late(visit: Visit) -> None:
            await until(lambda: refuse)
            await visit.answer(b'{"error":{"message":"the prompt is too long","code":400}}', status="400 Bad Request")

        async with engine(late) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(path, {"model": "demo", "stream": True}))
            assert (await client.head())[0] == 200
            await client.chunk()
            refuse.append(1)
            rest = await client.chunks()
            assert expected in rest
            assert b"the prompt is too long" in rest
            assert b"[DONE]" not in rest

    drive(work())


def test_an_engine_that_dies_after_that_is_replaced_within_the_same_stream() -> None:
    async def work() -> None:
        async def dies(visit: Visit) -> None:
            await until(lambda: told)
            visit.hang_up()

        told: list[int] = []
        async with engine(dies) as first, engine(hello) as second, gateway(config=SOON) as here:
            here.supervisor.show(serving=first.endpoint("i-1"))
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo", "stream": True}))
            assert (await client.head())[0] == 200
            assert (await client.chunk()).startswith(b": orch: ")
            told.append(1)
            here.supervisor.show(serving=second.endpoint("i-2"))
            rest = await client.chunks()
            assert rest.count(delta("hel")) == 1
            assert rest.endswith(b"data: [DONE]\n\n")
            assert here.supervisor.records[0].replays == 1

    drive(work())


async def waits(visit: Visit) -> None:
    for _ in range(30):
        await _moment()


def test_openais_chat_and_responses_do_not_choke() -> None:
    async def work() -> None:
        async def chat(visit: Visit) -> None:
            await waits(visit)
            await hello(visit)

        async with engine(chat) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            async with openai_client(here) as client:
                stream = await client.chat.completions.create(
                    model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
                )
                assert "".join([each.choices[0].delta.content or "" async for each in stream]) == "hello wörld"

        async def responses(visit: Visit) -> None:
            await waits(visit)
            await visit.begin_stream()
            await visit.chunk(event("response.output_text.delta", delta="hi", item_id="a", output_index=0,
                                    content_index=0, sequence_number=1, logprobs=[]))  # fmt: skip
            await visit.end_stream()

        async with engine(responses) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            async with openai_client(here) as client:
                events = await client.responses.create(model="demo", input="hi", stream=True)
                assert [each.type async for each in events] == ["response.output_text.delta"]

    drive(work())


def test_anthropics_messages_do_not_choke() -> None:
    async def work() -> None:
        async def messages(visit: Visit) -> None:
            await waits(visit)
            await visit.begin_stream()
            await visit.chunk(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}))
            await visit.end_stream()

        async with engine(messages) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            address = f"http://127.0.0.1:{here.port}"
            async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
                stream = await client.messages.create(
                    model="demo", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
                )
                assert [each.type async for each in stream] == ["content_block_delta"]

    drive(work())


def test_the_sdks_raise_what_comes_instead_of_an_answer() -> None:
    async def work() -> None:
        async def refuses(visit: Visit) -> None:
            await waits(visit)
            await visit.answer(b'{"error":{"message":"too long for the context"}}', status="400 Bad Request")

        async with engine(refuses) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            async with openai_client(here) as client:
                stream = await client.chat.completions.create(
                    model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
                )
                with pytest.raises(openai.APIError, match="too long for the context"):
                    [each async for each in stream]

            address = f"http://127.0.0.1:{here.port}"
            async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as other:
                told = await other.messages.create(
                    model="demo", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
                )
                with pytest.raises(anthropic.APIError, match="too long for the context"):
                    [each async for each in told]

    drive(work())
