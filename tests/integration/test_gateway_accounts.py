"""What the gateway keeps of an instance, and that it ends with it."""

from __future__ import annotations

import asyncio

from tests.integration.gateway_support import Client, Visit, drive, engine, gateway, post, until

CHAT = "/v1/chat/completions"


def test_nothing_is_kept_of_an_instance_that_was_replaced_while_it_streamed() -> None:
    replaced = asyncio.Event()

    async def stream(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: 1\n\n")
        await replaced.wait()
        await visit.chunk(b"data: 2\n\n")
        await visit.end_stream()

    async def work() -> None:
        async with engine(stream) as old, engine(stream) as new, gateway() as here:
            here.supervisor.show(serving=old.endpoint("i-1"))
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            assert await client.chunk() == b"data: 1\n\n"
            assert here.dispatcher.relayed("i-1") == len(b"data: 1\n\n")
            here.supervisor.show(serving=new.endpoint("i-2"))
            await until(lambda: here.dispatcher.relayed("i-1") == 0)
            replaced.set()
            assert await client.chunks() == b"data: 2\n\n"
            await until(lambda: here.dispatcher.in_flight("i-1") == 0)
            assert here.dispatcher.relayed("i-1") == 0

    drive(work())
