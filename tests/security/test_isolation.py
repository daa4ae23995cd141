"""What one client's key can do to another's: nothing beyond taking its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import Request
from orchestrator.core.failure.quarantine import QuarantinePolicy
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint
from orchestrator.gateway.crash_suspects import CrashSuspects, RequestFingerprint
from orchestrator.gateway.errors import GatewayError
from tests.integration.gateway_support import Client, ask, drive, gateway, post, until
from tests.support import Home, new_home
from tests.support import until as until_ready

BODY = b'{"prompt":"x"}'


@pytest.fixture
def home() -> Iterator[Home]:
    pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
    with new_home() as home:
        home.profile("demo", 'schema = 1\nmodel = "orch:demo"\nengine = "embedded"\n[context]\nsize = 2048\n')
        home.serve("demo")
        until_ready(lambda: home.status()["state"] == "ready", "it is ready")
        yield home


def identity(*headers: tuple[bytes, bytes]) -> RequestFingerprint:
    request = Request(
        "POST", "/completion", "1.1", list(headers), keep_alive=True, peer="", transport=asyncio.Transport()
    )
    return RequestFingerprint(request, "/completion", BODY)


def never(_after_s: float, _call: Callable[[], None]) -> None:
    return


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
def test_a_request_that_is_refused_for_one_key_is_not_for_another(name: bytes) -> None:
    crash_suspects = CrashSuspects(QuarantinePolicy(), 10.0, never, lambda: None)
    mine, same, other = (
        identity((name, b"Bearer one")),
        identity((name, b"Bearer one")),
        identity((name, b"Bearer two")),
    )
    for number in range(3):
        crash_suspects.lost(Endpoint(f"i-{number}", "demo", "upstream", "127.0.0.1", 1, None), mine)
        crash_suspects.attribute([f"i-{number}"], float(number))

    for refused in (mine, same):
        with pytest.raises(GatewayError) as caught:
            crash_suspects.check(refused, 3.0)

        assert caught.value.code == "request_quarantined"

    crash_suspects.check(other, 3.0)
    assert crash_suspects.may_enter(other, 5, 3.0)


def test_a_part_of_a_key_cannot_pass_for_a_part_of_a_body() -> None:
    assert identity((b"authorization", b"a")).digest != identity((b"x-api-key", b"a")).digest
    assert identity((b"authorization", b"ab")).digest != identity((b"authorization", b"a"), (b"x-api-key", b"b")).digest


def test_a_full_queue_is_refused_at_once_and_the_gateway_answers_on() -> None:
    config = GatewayOptions(max_queued=4, api_keys=(ApiKey("one"), ApiKey("two")))

    async def work() -> None:
        async with gateway(config=config) as here:
            waiting = [await Client.open(here.port) for _ in range(4)]
            for client in waiting:
                await client.send(post("/completion", {}, "Authorization: Bearer one"))

            await until(lambda: here.dispatcher.queued == 4)
            for key in ("one", "two"):
                answer = await ask(here.port, post("/completion", {}, f"Authorization: Bearer {key}"))
                assert (answer.status, answer.json["error"]["code"]) == (503, "queue_full")
                assert int(answer.headers["retry-after"]) >= 1

            assert here.dispatcher.queued == 4

    drive(work())


def test_a_prompt_is_in_the_cache_for_the_next_request_whatever_was_asked(home: Home) -> None:
    prompt = "A supervisor keeps one address alive, whatever engine is behind it. " * 4
    alone = home.complete(prompt, 4, cache_prompt=False)["timings"]
    other = home.complete(prompt, 4, cache_prompt=True)["timings"]
    again = home.complete(prompt, 4, cache_prompt=False)["timings"]
    assert alone["cache_n"] == again["cache_n"] == 0, "who says so takes nothing from the cache"
    assert other["cache_n"] > 0.9 * alone["prompt_n"], "and another client meets what it has left there"
