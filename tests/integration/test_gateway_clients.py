"""The real client libraries: what they make of comments, of errors, and of a stream that breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Refusal
from tests.integration.gateway_support import Running, Visit, drive, engine, gateway, until

if TYPE_CHECKING:  # seconds to import, which is for the tests that use them, not for each worker that collects them
    import openai

SOON = GatewayOptions(comment_after_s=0.01, comment_every_s=0.01)


@asynccontextmanager
async def openai_client(here: Running, *, retries: int = 0) -> AsyncIterator[openai.AsyncOpenAI]:
    import openai

    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{here.port}/v1", api_key="none", max_retries=retries
    ) as client:
        yield client


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "demo", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def hello(visit: Visit) -> None:
    await visit.begin_stream()
    for word in ("hel", "lo ", "wörld"):
        await visit.chunk(delta(word))

    await visit.chunk(b"data: [DONE]\n\n")
    await visit.end_stream()


async def told_to_wait(here: Running) -> None:
    """Return when the one request is held and has had comments; each of them takes a look at the view."""
    await until(lambda: here.dispatcher.queued == 1)
    looks = here.supervisor.looks
    await until(lambda: here.supervisor.looks >= looks + 3)


async def said(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_openais_client_reads_a_stream_that_began_with_comments() -> None:
    async def work() -> None:
        async with engine(hello) as there, gateway(config=SOON) as here, openai_client(here) as client:
            saying = asyncio.ensure_future(said(client))
            await told_to_wait(here)
            here.supervisor.show(serving=there.endpoint())
            assert await saying == "hello wörld"

    drive(work())


def test_openais_client_raises_when_a_held_stream_fails() -> None:
    import openai

    async def work() -> None:
        async with gateway(config=SOON) as here, openai_client(here) as client:
            saying = asyncio.ensure_future(said(client))
            await told_to_wait(here)
            here.supervisor.show(refusal=Refusal("out of device memory", "start_failed", None))
            with pytest.raises(openai.APIError, match="out of device memory"):
                await saying

    drive(work())


def test_openais_client_raises_when_the_engine_dies_in_mid_stream() -> None:
    import openai

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(delta("hel"))
        visit.hang_up()

    async def work() -> None:
        async with (
            engine(script) as there,
            gateway(config=GatewayOptions(recover_s=0.2)) as here,
            openai_client(here) as client,
        ):
            here.supervisor.show(serving=there.endpoint())
            with pytest.raises(openai.APIError, match="engine closed the connection"):
                await said(client)

    drive(work())


def test_openais_client_does_not_repeat_what_is_hopeless() -> None:
    import openai

    async def work() -> None:
        async with engine(hello) as there, gateway() as here, openai_client(here, retries=2) as client:
            here.supervisor.show(serving=there.endpoint())
            with pytest.raises(openai.ConflictError, match="orch switch other"):
                await client.chat.completions.create(model="other", messages=[])

            with pytest.raises(openai.NotFoundError, match="known models"):
                await client.chat.completions.create(model="gpt-4", messages=[])

            assert len(here.supervisor.records) == 2

    drive(work())


def test_openais_responses_api_sees_a_failed_response() -> None:
    from openai.types.responses import ResponseFailedEvent

    async def work() -> None:
        async with gateway(config=SOON) as here, openai_client(here) as client:

            async def events() -> list[object]:
                stream = await client.responses.create(model="demo", input="hi", stream=True)
                return [event async for event in stream]

            asking = asyncio.ensure_future(events())
            await told_to_wait(here)
            here.supervisor.show(refusal=Refusal("out of device memory", "start_failed", None))
            (event,) = await asking
            assert isinstance(event, ResponseFailedEvent)
            assert event.response.error is not None
            assert event.response.error.message == "out of device memory"

    drive(work())


def test_openais_client_lists_the_models() -> None:
    async def work() -> None:
        async with gateway() as here, openai_client(here) as client:
            assert [model.id async for model in client.models.list()] == ["demo", "other"]
            assert (await client.models.retrieve("demo-alias")).id == "demo"

    drive(work())


def test_anthropics_client_raises_when_a_held_stream_fails() -> None:
    import anthropic

    async def work() -> None:
        async with gateway(config=SOON) as here:
            base = f"http://127.0.0.1:{here.port}"
            async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as client:

                async def events() -> list[object]:
                    stream = await client.messages.create(model="demo", max_tokens=1, messages=[], stream=True)
                    return [event async for event in stream]

                asking = asyncio.ensure_future(events())
                await told_to_wait(here)
                here.supervisor.show(refusal=Refusal("out of device memory", "start_failed", None))
                with pytest.raises(anthropic.APIStatusError, match="out of device memory"):
                    await asking

                with pytest.raises(anthropic.NotFoundError, match="known models"):
                    await client.messages.create(model="claude", max_tokens=1, messages=[])

    drive(work())
