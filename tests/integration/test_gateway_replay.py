"""What is sent again, in which order, and what no engine's death makes of it: scripted byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import replace

import pytest

from orchestrator.gateway.config import GatewayOptions
from tests.integration.gateway_support import LOADING, Supervised, Visit, ask, drive, engine, gateway, post, until

CHAT = "/v1/chat/completions"
QUICK = GatewayOptions(recover_s=0.3, trial_s=0.3)


class Falling(Supervised):
    """A supervisor that can say that an instance died by itself."""

    def fall(self, *instances: str) -> None:
        self._view = replace(self._view, fallen=(*self._view.fallen, *instances))
        self.show(progress="starting again")


async def hang_up(visit: Visit) -> None:
    visit.hang_up()


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body)


def test_comments_of_the_engine_are_not_the_beginning_of_an_answer() -> None:
    async def ping_and_die(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b":\n\n")
        await visit.chunk(b":\n\n")
        visit.hang_up()

    async def stream(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: [DONE]\n\n")
        await visit.end_stream()

    async def work() -> None:
        supervisor = Falling()
        async with engine(ping_and_die) as first, engine(stream) as second, gateway(supervisor, QUICK) as here:
            supervisor.show(serving=first.endpoint("i-1"))
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"stream": True})))
            await until(lambda: first.visits)
            assert here.dispatcher.relayed("i-1") == 0
            supervisor.fall("i-1")
            supervisor.show(serving=second.endpoint("i-2"))
            answer = await asked
            assert answer.status == 200
            assert answer.body.endswith(b"data: [DONE]\n\n") and b"error" not in answer.body
            await until(lambda: supervisor.records)
            assert supervisor.records[0].replays == 1
            assert here.dispatcher.relayed("i-2") == len(b"data: [DONE]\n\n")

    drive(work())


def test_a_comment_that_was_cut_does_not_swallow_the_answer_of_the_next_engine() -> None:
    async def die_in_a_comment(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b": half of a com")
        visit.hang_up()

    async def stream(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b'data: {"n":1}\n\n')
        await visit.end_stream()

    async def work() -> None:
        supervisor = Falling()
        async with engine(die_in_a_comment) as first, engine(stream) as second, gateway(supervisor, QUICK) as here:
            supervisor.show(serving=first.endpoint("i-1"))
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"stream": True})))
            await until(lambda: first.visits)
            supervisor.fall("i-1")
            supervisor.show(serving=second.endpoint("i-2"))
            lines = (await asked).body.split(b"\n")
            assert b'data: {"n":1}' in lines

    drive(work())


def test_an_event_that_comes_with_a_comment_is_the_beginning_of_an_answer() -> None:
    async def ping_and_answer_at_once(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b':\n\ndata: {"n":1}\n\n')
        visit.hang_up()

    async def work() -> None:
        supervisor = Falling()
        async with (
            engine(ping_and_answer_at_once) as first,
            engine(echo) as second,
            gateway(supervisor, QUICK) as here,
        ):
            supervisor.show(serving=first.endpoint("i-1"))
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"stream": True})))
            await until(lambda: first.visits)
            supervisor.fall("i-1")
            supervisor.show(serving=second.endpoint("i-2"))
            answer = await asked
            assert answer.body.count(b'data: {"n":1}') == 1
            assert b'"error"' in answer.body
            assert second.visits == []

    drive(work())


def test_a_connection_that_an_engine_closes_and_lives_on_is_an_error_and_no_death() -> None:
    async def work() -> None:
        supervisor = Falling()
        async with engine(hang_up) as there, gateway(supervisor, QUICK) as here:
            supervisor.show(serving=there.endpoint())
            for _ in range(4):
                answer = await ask(here.port, post(CHAT, {}))
                assert answer.status == 502
                assert answer.json["error"]["code"] == "engine_died"

            assert len(there.visits) == 4
            assert [record.replays for record in supervisor.records] == [0] * 4

    drive(work())


def test_a_request_is_sent_to_two_engines_that_die_and_to_no_third() -> None:
    """Others were in flight as well, so it is not refused as the cause: the limit alone keeps it from the third."""

    async def work() -> None:
        supervisor = Falling()
        patient = replace(QUICK, recover_s=10.0)

        async def die_with_both(visit: Visit) -> None:
            here = first if visit in first.visits else second
            await until(lambda: len(here.visits) == 2)
            visit.hang_up()

        async with (
            engine(die_with_both) as first,
            engine(die_with_both) as second,
            engine(echo) as third,
            gateway(supervisor, patient) as here,
        ):
            supervisor.show(serving=first.endpoint("i-1"))
            asked = [asyncio.ensure_future(ask(here.port, post(CHAT, {"n": n}))) for n in range(2)]
            await until(lambda: len(first.visits) == 2 and not first.open)
            await asyncio.sleep(0.05)  # the gateway has seen both connections end
            supervisor.fall("i-1")
            supervisor.show(serving=second.endpoint("i-2"))
            await until(lambda: len(second.visits) == 2 and not second.open)
            await asyncio.sleep(0.05)
            supervisor.fall("i-2")
            supervisor.show(serving=third.endpoint("i-3"))
            answers = [await each for each in asked]
            assert [answer.json["error"]["code"] for answer in answers] == ["not_replayed"] * 2
            assert [answer.status for answer in answers] == [503] * 2
            assert "two engines died" in answers[0].json["error"]["message"]
            assert third.visits == []
            assert [record.replays for record in supervisor.records] == [1, 1]
            assert (await ask(here.port, post(CHAT, {"n": 3}))).status == 200

    drive(work())


def test_an_instance_that_was_stopped_on_purpose_makes_no_suspects() -> None:
    async def work() -> None:
        supervisor = Falling()
        async with engine(hang_up) as there, engine(echo) as last, gateway(supervisor, QUICK) as here:

            def seen(count: int) -> bool:
                return len(there.visits) == count

            for number in range(3):
                supervisor.show(serving=there.endpoint(f"i-{number}"))
                asked = asyncio.ensure_future(ask(here.port, post(CHAT, {})))
                await until(functools.partial(seen, number + 1))
                supervisor.show(progress="switching")
                supervisor.show(serving=last.endpoint(f"last-{number}"))
                assert (await asked).status == 200

    drive(work())


@pytest.mark.parametrize(
    "path", ["/tokenize", "/apply-template", "/v1/messages/count_tokens", "/v1/responses/input_tokens"]
)
def test_an_answer_without_inference_is_no_progress(path: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(Supervised(LOADING), QUICK) as here:
            here.supervisor.show(serving=there.endpoint())
            assert (await ask(here.port, post(path, {}))).status == 200
            assert here.dispatcher.relayed("i-1") == 0
            assert (await ask(here.port, post(CHAT, {"n": 1}))).status == 200
            assert here.dispatcher.relayed("i-1") == len(b'{"n": 1}')

    drive(work())


def test_a_suspect_is_tried_alone_and_for_a_short_while_only() -> None:
    """Two requests met a death. The first is tried, does not end, and gets company after `trial_s`."""
    order: list[bytes] = []
    released = asyncio.Event()

    async def slow(visit: Visit) -> None:
        order.append(visit.body)
        if b"first" in visit.body:
            await released.wait()

        await visit.answer(visit.body)

    async def work() -> None:
        supervisor = Falling()

        async def silent(visit: Visit) -> None:
            await until(lambda: len(dying.visits) == 2)
            visit.hang_up()

        async with engine(silent) as dying, engine(slow) as next_one, gateway(supervisor, QUICK) as here:
            supervisor.show(serving=dying.endpoint("i-1"))
            first = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "first"})))
            await until(lambda: dying.visits)
            second = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "second"})))
            await until(lambda: len(dying.visits) == 2)
            supervisor.fall("i-1")
            fresh = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "fresh"})))
            await until(lambda: here.dispatcher.queued == 3)
            supervisor.show(serving=next_one.endpoint("i-2"))
            await until(lambda: order)
            assert (order, here.dispatcher.queued) == ([b'{"n": "first"}'], 2)
            await until(lambda: len(order) == 3)
            released.set()
            assert [(await each).status for each in (first, second, fresh)] == [200] * 3
            assert [record.replays for record in supervisor.records if record.replays] == [1, 1]

    drive(work())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bodies", [["poison"], ["poison", "other suspect"]])
@pytest.mark.parametrize("arrives", ["during the trial", "after the connection was closed"])
def test_nobody_is_sent_to_an_engine_that_has_closed_a_suspects_connection(
    arrives: str, bodies: list[str], stream: bool
) -> None:
    """It is accepting connections still when the first one is closed already, and its end is not known yet."""

    waits = asyncio.Event()

    async def poisoned(visit: Visit) -> None:
        if b"poison" not in visit.body:
            await visit.answer(visit.body)
            return

        if arrives == "during the trial":
            await waits.wait()

        visit.hang_up()

    async def work() -> None:
        supervisor = Falling()
        options = GatewayOptions(recover_s=600.0, trial_s=600.0, comment_after_s=600.0, silence_s=600.0)

        async def silent(visit: Visit) -> None:
            await until(lambda: len(dying.visits) == len(bodies))
            visit.hang_up()

        async with (
            engine(silent) as dying,
            engine(poisoned) as second,
            engine(echo) as third,
            gateway(supervisor, options) as here,
        ):
            supervisor.show(serving=dying.endpoint("i-1"))
            asked = []
            for body in bodies:
                asked.append(asyncio.ensure_future(ask(here.port, post(CHAT, {"n": body, "stream": stream}))))
                await until(lambda: len(dying.visits) == len(asked))

            await until(lambda: here.dispatcher.instances.in_flight_total == 0)
            supervisor.fall("i-1")
            await until(lambda: here.dispatcher.queued == len(bodies))
            supervisor.show(serving=second.endpoint("i-2"))
            await until(lambda: second.visits)
            if arrives == "during the trial":
                asked.append(asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "late"}))))
                await until(lambda: here.dispatcher.queued == len(asked) - 1)
                waits.set()

            await until(lambda: here.dispatcher.instances.in_flight_total == 0)
            if arrives != "during the trial":
                asked.append(asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "late"}))))

            with contextlib.suppress(TimeoutError):  # the wrong: it would be sent there at once
                async with asyncio.timeout(0.2):
                    await until(lambda: len(second.visits) > 1)

            assert [visit.body for visit in second.visits] == [dying.visits[0].body]
            supervisor.fall("i-2")
            supervisor.show(serving=third.endpoint("i-3"))
            first, *others = [await each for each in asked]
            assert (first.status, b"request_quarantined" in first.body) == (502, True), first.body
            assert [each.status for each in others] == [200] * len(others)
            assert sorted(record.replays for record in supervisor.records) == [0] + [1] * len(bodies)

    drive(work())


@pytest.mark.parametrize("leaves", [False, True])
def test_an_engine_that_closed_a_suspects_connection_and_lives_is_sent_requests_again(leaves: bool) -> None:
    """It is seen to live; or nobody looks any more, since the suspect's client has left: then after `trial_s`."""

    async def poisoned(visit: Visit) -> None:
        if b"poison" in visit.body:
            visit.hang_up()
        else:
            await visit.answer(visit.body)

    async def work() -> None:
        supervisor = Falling()
        options = GatewayOptions(recover_s=600.0 if leaves else 0.3, trial_s=0.3 if leaves else 600.0)
        async with engine(hang_up) as dying, engine(poisoned) as second, gateway(supervisor, options) as here:
            supervisor.show(serving=dying.endpoint("i-1"))
            first = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "poison"})))
            await until(lambda: dying.visits)
            supervisor.fall("i-1")
            supervisor.show(serving=second.endpoint("i-2"))
            await until(lambda: second.visits)
            await until(lambda: here.dispatcher.instances.in_flight_total == 0)
            late = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "late"})))
            if leaves:
                first.cancel()
                assert (await late).status == 200
                return

            answers = [await first, await late]
            assert [each.status for each in answers] == [502, 200]
            assert b"engine_died" in answers[0].body

    drive(work())


@pytest.mark.parametrize("same", [False, True])
def test_an_error_of_an_engine_that_is_given_up_is_answered_by_who_serves_next(same: bool) -> None:
    """The next one, or the same one where it recovers after all: its work on the request was over."""

    async def work() -> None:
        seen: list[str] = []

        async def script(visit: Visit) -> None:
            seen.append(visit.line)
            if len(seen) == 1:
                await visit.answer(b'{"error":{"message":"Compute error."}}', status="500 Internal Server Error")
            else:
                await visit.answer(visit.body)

        async with engine(script) as there, gateway(Supervised(LOADING), QUICK) as here:
            here.supervisor.show(serving=there.endpoint("i-1"))

            async def given_up(instance: str) -> bool:
                here.supervisor.show(progress="the engine answers only errors")
                return True

            here.dispatcher.given_up = given_up
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": 1})))
            await until(lambda: here.dispatcher.queued == 1)
            here.supervisor.show(serving=there.endpoint("i-1" if same else "i-2"))
            assert (await asked).json == {"n": 1}
            assert len(seen) == 2

    drive(work())


@pytest.mark.parametrize(
    ("path", "status", "asks"),
    [
        (CHAT, "500 Internal Server Error", 1), (CHAT, "503 Service Unavailable", 1), (CHAT, "501 Not Implemented", 0),
        (CHAT, "400 Bad Request", 0), ("/tokenize", "500 Internal Server Error", 0),
    ],
)  # fmt: skip
def test_an_error_that_says_nothing_against_its_engine_is_passed_on_as_it_is(path: str, status: str, asks: int) -> None:
    async def work() -> None:
        async def script(visit: Visit) -> None:
            await visit.answer(b'{"error":{"message":"no"}}', status=status)

        async with engine(script) as there, gateway(Supervised(LOADING), QUICK) as here:
            here.supervisor.show(serving=there.endpoint("i-1"))
            asked: list[str] = []

            async def given_up(instance: str) -> bool:
                asked.append(instance)
                return False

            here.dispatcher.given_up = given_up
            answer = await ask(here.port, post(path, {"n": 1}))
            assert (answer.status, answer.json) == (int(status[:3]), {"error": {"message": "no"}})
            assert (len(asked), len(there.visits)) == (asks, 1)

    drive(work())
