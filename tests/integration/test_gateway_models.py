"""Several engines behind one address: each request, look and failure is its own model's affair."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.core.fleet.routing_states import ResidentRoute
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Refusal, RoutingView
from tests.integration.gateway_support import (
    DEMO,
    OTHER,
    Client,
    Script,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    gateway,
    get,
    post,
    until,
)

CHAT = "/v1/chat/completions"
QUICK = GatewayOptions(recover_s=0.3, trial_s=0.3)
COMING = replace(OTHER, name="coming", status="loading")
MODELS = (DEMO, replace(OTHER, status="loaded"), COMING)


class Fleet(Supervised):
    """A supervisor of several models, which can say that an instance died by itself."""

    def __init__(self) -> None:
        super().__init__(RoutingView(1, None, None, "loading demo", MODELS, on_request=True))

    def fall(self, *instances: str) -> None:
        self._view = replace(self._view, fallen=(*self._view.fallen, *instances))


def answering(name: str) -> Script:
    async def answer(visit: Visit) -> None:
        await visit.answer(b'{"engine":"%b"}' % name.encode())

    return answer


@pytest.mark.parametrize("first", ["/slots", "/props", "/lora-adapters"])
def test_each_request_and_each_look_goes_to_the_engine_of_the_model_that_it_names(first: str) -> None:
    async def work() -> None:
        async with (
            engine(answering("demo")) as demo,
            engine(answering("other")) as other,
            gateway(Fleet(), QUICK) as here,
        ):
            here.supervisor.show(serving=demo.endpoint("d-1"))
            here.supervisor.show_beside(other=ResidentRoute(other.endpoint("o-1", "other"), None, "ready other"))
            for name, path in (
                ("demo", first),
                ("demo", f"{first}?model=demo-alias"),
                ("other", f"{first}?model=other"),
                ("other", f"/upstream/other{first}"),
                ("demo", f"/upstream/demo{first}"),
            ):
                assert (await ask(here.port, get(path))).json["engine"] == name

            for number in range(20):
                name = "other" if number % 3 else "demo"
                assert (await ask(here.port, post(CHAT, {"model": name}))).json == {"engine": name}

            assert (await ask(here.port, post(CHAT, {}))).json == {"engine": "demo"}
            assert (await ask(here.port, post("/upstream/other/v1/completions", {}))).json == {"engine": "other"}
            assert here.dispatcher.hold.entered == 0
            unknown = await ask(here.port, post(CHAT, {"model": "nobody"}))
            assert unknown.status == 404
            records = here.supervisor.records
            assert {each.instance for each in records if each.profile == "other"} == {"o-1"}
            assert {each.instance for each in records if each.profile == "demo"} == {"d-1"}

    drive(work())


def test_a_stream_of_one_goes_on_while_the_other_dies_and_its_request_is_sent_to_the_next_instance() -> None:
    go_on = asyncio.Event()

    async def stream(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b'data: {"n":1}\n\n')
        await go_on.wait()
        await visit.chunk(b"data: [DONE]\n\n")
        await visit.end_stream()

    async def hang_up(visit: Visit) -> None:
        visit.hang_up()

    async def work() -> None:
        fleet = Fleet()
        async with (
            engine(stream) as demo,
            engine(hang_up) as other,
            engine(answering("again")) as again,
            gateway(fleet, QUICK) as here,
        ):
            fleet.show(serving=demo.endpoint("d-1"))
            fleet.show_beside(other=ResidentRoute(other.endpoint("o-1", "other"), None, "ready other"))
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo", "stream": True}))
            await client.head()
            assert b'"n":1' in await client.chunk()
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"model": "other"})))
            await until(lambda: other.visits)
            fleet.fall("o-1")
            fleet.show_beside(other=ResidentRoute(None, None, "other failed, it will be started again"))
            await until(lambda: len(here.dispatcher.hold) == 1)
            assert here.dispatcher.in_flight("d-1") == 1
            fleet.show_beside(other=ResidentRoute(again.endpoint("o-2", "other"), None, "ready other"))
            assert (await asked).json == {"engine": "again"}
            go_on.set()
            assert (await client.chunks()).endswith(b"data: [DONE]\n\n")
            await until(lambda: len(fleet.records) == 2)
            assert sorted((each.profile, each.replays, each.outcome) for each in fleet.records) == [
                ("demo", 0, "complete"), ("other", 1, "complete"),
            ]  # fmt: skip

    drive(work())


def test_what_became_of_an_engine_is_told_from_its_own_seat() -> None:
    async def half(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b'data: {"n":1}\n\n')
        visit.hang_up()

    async def work() -> None:
        fleet = Fleet()
        async with engine(answering("demo")) as demo, engine(half) as other, gateway(fleet, QUICK) as here:
            fleet.show(serving=demo.endpoint("d-1"))
            fleet.show_beside(other=ResidentRoute(other.endpoint("o-1", "other"), None, "ready other"))
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"model": "other", "stream": True})))
            await until(lambda: other.visits)
            fleet.fall("o-1")
            refusal = Refusal("other failed: out of device memory", "device_oom", None, "other")
            fleet.show_beside(other=ResidentRoute(None, refusal, "failed other"))
            assert b"other failed: out of device memory" in (await asked).body
            answer = await ask(here.port, post(CHAT, {"model": "other"}))
            assert (answer.status, answer.json["error"]["code"]) == (503, "device_oom")
            assert (await ask(here.port, post(CHAT, {"model": "demo"}))).json == {"engine": "demo"}
            assert (await ask(here.port, post(CHAT, {}))).json == {"engine": "demo"}

    drive(work())


def test_who_waits_for_one_that_loads_is_told_of_that_one_and_keeps_nobody_from_the_others() -> None:
    async def work() -> None:
        fleet = Fleet()
        options = replace(QUICK, comment_after_s=0.01)
        async with (
            engine(answering("demo")) as demo,
            engine(answering("coming")) as coming,
            gateway(fleet, options) as here,
        ):
            fleet.show(serving=demo.endpoint("d-1"), progress="ready demo")
            fleet.show_beside(coming=ResidentRoute(None, None, "loading coming (40 % read)"))
            streamed = await Client.open(here.port)
            await streamed.send(post(CHAT, {"model": "coming", "stream": True}))
            await streamed.head()
            assert await streamed.chunk() == b": orch: loading coming (40 % read)\n\n"
            waiting = [asyncio.ensure_future(ask(here.port, post(CHAT, {"model": "coming"}))) for _ in range(30)]
            await until(lambda: len(here.dispatcher.hold) == 31)
            for _ in range(10):
                assert (await ask(here.port, post(CHAT, {"model": "demo"}))).json == {"engine": "demo"}

            look = await ask(here.port, get("/slots?model=coming"))
            assert "loading coming (40 % read)" in look.json["error"]["message"]
            assert here.dispatcher.hold.waiting()["coming"][0] == 31
            fleet.show_beside(coming=ResidentRoute(coming.endpoint("c-1", "coming"), None, "ready coming"))
            for answer in await asyncio.gather(*waiting):
                assert answer.json == {"engine": "coming"}

            await until(lambda: len(coming.visits) == 31)

    drive(work())


def test_the_lists_name_all_that_is_loaded_with_their_limits_and_since_when_the_others_are_not() -> None:
    async def work() -> None:
        fleet = Fleet()
        models = (replace(DEMO, idle_limit_s=600.0), MODELS[1], COMING, replace(OTHER, name="old", unloaded_since=0.0))
        fleet._view = replace(fleet._view, models=models)
        async with gateway(fleet, QUICK) as here:
            running = (await ask(here.port, get("/running"))).json["running"]
            assert [(each["model"], each["state"], each["ttl"]) for each in running] == [
                ("demo", "ready", 600), ("other", "ready", 0), ("coming", "starting", 0),
            ]  # fmt: skip
            listed = {each["id"]: each["status"] for each in (await ask(here.port, get("/v1/models"))).json["data"]}
            assert (listed["demo"], listed["coming"]) == ({"value": "loaded"}, {"value": "loading"})
            assert listed["old"]["value"] == "unloaded"
            assert listed["old"]["detail"].startswith("idle ")
            one = (await ask(here.port, get("/v1/models/old"))).json
            assert one["status"] == listed["old"]

    drive(work())
