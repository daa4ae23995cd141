"""Variants: other names for what is loaded, whose requests are changed on their way, and nobody else's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.core.profile.variants import Variant
from tests.integration.gateway_support import (
    DEMO,
    LOADING,
    OTHER,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    gateway,
    get,
    post,
)

CHAT = "/v1/chat/completions"
FAST = Variant("demo:fast", "without thoughts", {"temperature": 0.1}, {"max_tokens": 50}, ("top_k",), {"think": False})


def supervised() -> Supervised:
    return Supervised(replace(LOADING, models=(replace(DEMO, variants=(FAST,)), OTHER)))


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body)


def test_a_request_for_a_variant_is_changed_and_goes_to_what_is_loaded() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            body = {"model": "demo:fast", "top_k": 5, "temperature": 1, "messages": [{"content": "é"}], "n": 1}
            answer = await ask(here.port, post(CHAT, json.dumps(body).encode()))
            assert answer.status == 200
            sent = json.loads(there.visits[0].body)
            assert sent == {
                "model": "demo:fast", "temperature": 0.1, "max_tokens": 50, "messages": [{"content": "é"}],
                "n": 1, "chat_template_kwargs": {"think": False},
            }  # fmt: skip
            assert int(there.visits[0].headers["content-length"]) == len(there.visits[0].body)

    drive(work())


@pytest.mark.parametrize("name", ["demo", "demo-alias"])
def test_a_request_for_the_model_itself_stays_as_it_is(name: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            body = b'{ "top_k":5 , "model": "%b"}' % name.encode()
            await ask(here.port, post(CHAT, body))
            assert there.visits[0].body == body

    drive(work())


def test_a_variant_is_listed_as_a_model_that_says_whose_it_is() -> None:
    async def work() -> None:
        async with gateway(supervised()) as here:
            listed = json.loads((await ask(here.port, get("/v1/models"))).body)["data"]
            assert [each["id"] for each in listed] == ["demo", "demo:fast", "other"]
            assert (listed[1]["variant_of"], listed[1]["status"]) == ("demo", listed[0]["status"])
            assert listed[1]["description"] == "without thoughts"
            one = json.loads((await ask(here.port, get("/v1/models/demo:fast"))).body)
            assert one["id"] == "demo:fast"

    drive(work())


def test_an_answer_names_the_variant_that_was_asked_for() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(supervised()) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, b'{"model":"demo:fast"}'))
            assert json.loads(answer.body)["model"] == "demo:fast"

    drive(work())
