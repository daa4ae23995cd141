"""Requests whose bodies are compressed: the engine gets them as they were before, and nobody pays for a bomb."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from importlib import import_module

import pytest

from orchestrator.adapters.http1 import HttpLimits
from orchestrator.core.profile.variants import Variant
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Model
from tests.integration.gateway_support import (
    OTHER,
    Client,
    NotedRequests,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    gateway,
    post,
    until,
)

MIB = 1 << 20
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": import_module("backports.zstd").compress,
}
CHAT = "/v1/chat/completions"


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body)


@pytest.mark.parametrize("coding", COMPRESS)
def test_a_compressed_body_reaches_the_engine_as_it_was(coding: str) -> None:
    body = json.dumps({"model": "demo", "prompt": "a word " * 60_000}).encode()

    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, COMPRESS[coding](body), f"Content-Encoding: {coding}"))
            assert (answer.status, answer.body) == (200, body)
            (visit,) = there.visits
            assert visit.body == body
            assert "content-encoding" not in visit.headers

    drive(work())


def test_what_the_body_names_is_read_without_its_coding() -> None:
    async def work() -> None:
        manager = NotedRequests("demo")
        async with gateway(manager=manager) as here:
            unknown = await ask(here.port, post(CHAT, gzip.compress(b'{"model": "nobody"}'), "Content-Encoding: gzip"))
            assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
            load = post("/models/load", gzip.compress(b'{"model": "other"}'), "Content-Encoding: gzip")
            assert (await ask(here.port, load)).status == 200
            assert manager.loaded == ["demo", "other"]

    drive(work())


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("br", b"{}", 415, "unsupported_media_type"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 415, "unsupported_media_type"),
        ("gzip", b"{}", 400, "invalid_content_coding"),
        ("gzip", gzip.compress(b"{}")[:-1], 400, "invalid_content_coding"),
        ("gzip", gzip.compress(b"{") , 400, "invalid_json"),
        ("gzip", gzip.compress(b'{"a": "' + b" " * (2 * MIB) + b'"}'), 413, "body_too_large"),
    ],
    # Compressed data has the time in it, and each worker has to give its tests the same names.
    ids=["another coding", "two codings", "no gzip", "cut off", "no JSON", "too large"],
)  # fmt: skip
def test_what_cannot_be_read_is_told_and_reaches_no_engine(coding: str, body: bytes, status: int, code: str) -> None:
    async def work() -> None:
        limits = HttpLimits(body_bytes=MIB)
        async with engine(echo) as there, gateway(config=GatewayOptions(limits=limits)) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, body, f"Content-Encoding: {coding}"))
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
            assert answer.headers.get("accept-encoding") == ("gzip, zstd" if status == 415 else None)
            assert there.visits == []

    drive(work())


def test_what_came_out_counts_among_all_bodies_until_its_request_has_ended() -> None:
    large = gzip.compress(b'{"prompt": "' + b" " * (6 * MIB) + b'"}')

    async def work() -> None:
        over = asyncio.Event()

        async def hold(visit: Visit) -> None:
            await over.wait()
            await visit.answer(b"{}")

        limits = HttpLimits(body_bytes=8 * MIB, bodies_bytes=8 * MIB)
        async with engine(hold) as there, gateway(config=GatewayOptions(limits=limits)) as here:
            here.supervisor.show(serving=there.endpoint())
            first = await Client.open(here.port)
            await first.send(post(CHAT, large, "Content-Encoding: gzip"))
            await until(lambda: there.visits)
            refused = await ask(here.port, post(CHAT, large, "Content-Encoding: gzip"))
            assert (refused.status, refused.json["error"]["code"]) == (503, "bodies_too_large")
            assert refused.headers["retry-after"] == "5"
            over.set()
            assert (await first.answer()).status == 200
            assert (await ask(here.port, post(CHAT, large, "Content-Encoding: gzip"))).status == 200
            bodies = here.gateway._server._hub.bodies
            await until(lambda: bodies.held_bytes == 0)

    drive(work())


def test_a_variant_changes_what_was_compressed() -> None:
    cold = Variant("cold", always={"temperature": 0})
    model = Model("demo", (), "", "loaded", 1700000000, variants=(cold,))

    async def work() -> None:
        async with engine(echo) as there, gateway(Supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            here.supervisor.show_models(model, OTHER)
            answer = await ask(here.port, post(CHAT, gzip.compress(b'{"model": "cold"}'), "Content-Encoding: gzip"))
            assert answer.status == 200
            assert json.loads(there.visits[0].body)["temperature"] == 0

    drive(work())
