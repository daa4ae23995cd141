"""Several models behind one gateway: nobody waits for those of another one, and each gets no more than it may have."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from time import monotonic

import pytest

from orchestrator.core.fleet.routing_states import ResidentRoute
from orchestrator.gateway.admission import refusal_error, unloaded_error
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Model, Refusal, RoutingView
from orchestrator.gateway.crash_suspects import RequestFingerprint
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from tests.unit.gateway.test_admission import Supervised, fingerprint

pytestmark = pytest.mark.asyncio

CHAT = Endpoint("chat.1", "chat", "upstream", "127.0.0.1", 1, None)
EMBED = Endpoint("embed.1", "embed", "upstream", "127.0.0.1", 2, None)
MODELS = tuple(Model(name, (), "", "unloaded", 0) for name in ("chat", "embed", "rank"))


def route(endpoint: Endpoint | None = None, refusal: Refusal | None = None, progress: str = "loading") -> ResidentRoute:
    return ResidentRoute(endpoint, refusal, progress)


class House:
    """A gateway with the views that a test shows, and the requests that are let through, in their order."""

    def __init__(self, **options: object) -> None:
        self.supervisor = Supervised()
        self.dispatcher = Dispatcher(GatewayOptions(**options), self.supervisor, self.supervisor)  # type: ignore[arg-type]
        self.dispatcher.start()
        self.entered: list[str] = []
        self.most: dict[str, int] = {}
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.said: list[str] = []

    def show(self, serving: Endpoint | None, **more: object) -> None:
        view = self.supervisor.view()
        more.setdefault("others", {})
        shown = replace(view, generation=view.generation + 1, serving=serving, models=MODELS, **more)  # type: ignore[arg-type]
        self.supervisor.show_view(shown)

    async def ask(
        self, name: str, profile: str | None, mark: RequestFingerprint | None = None, *, turns: int = 10
    ) -> None:
        """Send a request that stays until it is let go."""
        leave = self.leave[name] = asyncio.Event()

        async def stay() -> None:
            made = mark or fingerprint(self.dispatcher, name.encode())
            async with self.dispatcher.admitted(profile, self.said.append, made) as admission:
                self.entered.append(name)
                instance = admission.endpoint.instance
                count = self.dispatcher.in_flight(instance)
                self.most[instance] = max(count, self.most.get(instance, 0))
                await leave.wait()

        self.tasks[name] = asyncio.ensure_future(stay())
        await go_on(turns)

    async def let_go(self, name: str) -> None:
        self.leave[name].set()
        await go_on()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()

        await go_on()

    async def error_of(self, name: str) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.tasks[name]

        return caught.value

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()

        await asyncio.wait(tuple(self.tasks.values()))
        assert len(self.dispatcher.hold) == 0
        assert self.dispatcher.instances.in_flight_total == 0
        assert [self.dispatcher.instances.places(each) for each in ("chat.1", "embed.1")] == [0, 0]
        await self.dispatcher.stop()


async def go_on(turns: int = 10) -> None:
    """Let everybody go on for so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_a_request_is_not_held_behind_those_of_another_model() -> None:
    house = House()
    house.show(None, progress="loading chat", others={"embed": route(EMBED)}, on_request=True)
    for number in range(50):
        await house.ask(f"chat {number}", "chat" if number % 2 else None)

    await house.ask("embed", "embed")
    assert house.entered == ["embed"]
    house.show(CHAT, others={"embed": route(EMBED)}, on_request=True)
    await go_on()
    assert house.entered == ["embed", *(f"chat {number}" for number in range(50))]
    await house.close()


async def test_those_of_one_that_failed_are_refused_and_those_of_the_others_wait_on() -> None:
    house = House()
    others = {"embed": route(), "rank": route()}
    house.show(CHAT, others=others, on_request=True)
    await house.ask("first", "embed")
    await house.ask("second", "rank")
    refusal = Refusal("rank failed: no", "bad_model", None, "rank")
    house.show(CHAT, others={**others, "rank": route(refusal=refusal)}, on_request=True)
    assert (await house.error_of("second")).code == "bad_model"
    assert len(house.dispatcher.hold) == 1
    house.show(CHAT, others={"embed": route(EMBED)}, on_request=True)
    await go_on()
    assert house.entered == ["first"]
    await house.close()


async def test_beyond_the_number_that_one_is_given_they_wait_in_their_order_and_the_others_do_not() -> None:
    house = House()
    house.show(replace(CHAT, max_in_flight=2), others={"embed": route(EMBED)})
    for number in range(6):
        await house.ask(str(number), "chat" if number % 2 else None)

    await house.ask("other", "embed")
    assert house.entered == ["0", "1", "other"]
    for number in range(4):
        await house.let_go(str(number))
        assert house.entered[3:] == [str(each) for each in range(2, number + 3)]

    assert house.most == {"chat.1": 2, "embed.1": 1}
    await house.close()


async def test_no_more_are_woken_than_there_are_places() -> None:
    house = House()
    house.show(None, on_request=True)
    gate = house.dispatcher
    for number, profile in enumerate((None, "chat", "chat", None, "embed", "embed")):
        gate.hold.enter(profile, float(number), "")

    house.show(replace(CHAT, max_in_flight=3), others={"embed": route(EMBED)}, on_request=True)
    assert gate.release() == 3 + 2
    assert gate.release(("chat",)) == 2
    assert gate.release(("embed",)) == 2
    assert gate.release(()) == 0
    await gate.stop()


async def test_a_place_that_was_meant_for_one_who_left_goes_to_the_next() -> None:
    house = House()
    house.show(replace(CHAT, max_in_flight=1))
    for number in range(4):
        await house.ask(str(number), "chat")

    # At one turn of the loop the place is free, and both who would be next give up.
    house.leave["0"].set()
    await asyncio.sleep(0)
    await house.cancel("1", "2")
    assert house.entered == ["0", "3"]
    await house.close()


async def test_who_comes_as_a_place_is_free_stands_behind_those_who_wait() -> None:
    house = House()
    house.show(replace(CHAT, max_in_flight=1))
    await house.ask("0", "chat")
    await house.ask("1", "chat")
    house.leave["0"].set()
    await house.ask("late", "chat")
    assert house.entered == ["0", "1"]
    await house.let_go("1")
    assert house.entered == ["0", "1", "late"]
    assert house.most == {"chat.1": 1}
    await house.close()


async def test_a_number_that_was_changed_holds_from_then_on() -> None:
    house = House()
    house.show(CHAT)
    for name in "abc":
        await house.ask(name, "chat")

    house.show(replace(CHAT, max_in_flight=2))
    await house.ask("d", "chat")
    await house.let_go("a")
    assert house.entered == ["a", "b", "c"]
    await house.let_go("b")
    assert house.entered == ["a", "b", "c", "d"]
    await house.ask("e", "chat")
    assert house.entered[4:] == []
    house.show(CHAT)
    await go_on()
    assert house.entered[4:] == ["e"]
    await house.close()


async def test_a_look_at_an_engine_needs_no_place_and_takes_none() -> None:
    house = House()
    house.show(replace(CHAT, max_in_flight=1))
    async with house.dispatcher.admitted("chat", may_wait=False):
        await house.ask("first", "chat")
        async with house.dispatcher.admitted(None, may_wait=False) as admission:
            assert admission.endpoint.instance == "chat.1"

        await house.ask("second", "chat")

    assert house.entered == ["first"]
    await house.close()


async def test_who_waits_for_his_turn_is_told_that() -> None:
    house = House(comment_after_s=0.0, comment_every_s=0.001, hold_timeout_s=0.02)
    house.show(replace(CHAT, max_in_flight=1))
    await house.ask("first", "chat")
    await house.ask("second", "chat")
    error = await house.error_of("second")
    assert (error.code, "not its turn" in error.message) == ("hold_timeout", True)
    assert "chat is given 1 requests at a time" in house.said[-1]
    await house.close()


async def test_who_waits_is_told_of_the_model_that_he_asked_for() -> None:
    house = House(comment_after_s=0.0, comment_every_s=0.001, hold_timeout_s=0.02)
    house.show(CHAT, progress="ready chat", others={"embed": route(progress="loading embed")})
    await house.ask("first", "embed")
    assert "loading embed" in (await house.error_of("first")).message
    assert set(house.said) == {"loading embed"}
    await house.close()


async def test_a_suspect_of_one_engine_is_tried_alone_there_and_keeps_nobody_from_another() -> None:
    house = House()
    house.show(CHAT, others={"embed": route(EMBED)})
    suspects, gone = house.dispatcher.crash_suspects, replace(CHAT, instance="chat.0")
    mark = fingerprint(house.dispatcher, b"suspect")
    suspects.lost(gone, mark)
    suspects.lost(gone, fingerprint(house.dispatcher, b"bystander"))
    suspects.attribute(("chat.0",), monotonic())
    await house.ask("busy", "chat")
    await house.ask("suspect", "chat", mark)
    await house.ask("behind", "chat")
    await house.ask("elsewhere", "embed")
    assert house.entered == ["busy", "elsewhere"]
    await house.let_go("busy")
    assert house.entered == ["busy", "elsewhere", "suspect"]
    await house.ask("elsewhere too", "embed")
    assert house.entered[3:] == ["elsewhere too"]
    await house.let_go("suspect")
    assert house.entered[4:] == ["behind"]
    await house.close()


async def test_the_connections_to_each_instance_that_leaves_the_view_are_closed_and_no_others() -> None:
    house = House()
    house.show(CHAT, others={"embed": route(EMBED)})
    table = house.dispatcher.instances
    for name, profile in (("a", "chat"), ("b", "embed")):
        await house.ask(name, profile)
        endpoint = house.supervisor.view().endpoint_for(profile)
        assert endpoint is not None
        table.traffic(endpoint.instance).pool(endpoint)
        table.traffic(endpoint.instance).relayed_bytes = 7
        await house.let_go(name)

    house.show(CHAT, others={"embed": route(EMBED)})
    await go_on()
    assert [table.relayed_bytes(each) for each in ("chat.1", "embed.1")] == [7, 7]
    assert not await house.dispatcher.moved_on(EMBED, 0.001)
    house.show(CHAT)
    await go_on()
    assert await house.dispatcher.moved_on(EMBED, 1.0)
    assert [table.relayed_bytes(each) for each in ("chat.1", "embed.1")] == [7, 0]
    await house.close()


async def test_errors_name_what_is_loaded_and_how_far_the_one_that_was_asked_for_is() -> None:
    embed = replace(MODELS[1], status="loading")
    view = RoutingView(1, CHAT, None, "ready chat", (MODELS[0], embed, MODELS[2]))
    view = replace(view, others={"embed": route(progress="loading embed")})
    assert (
        refusal_error(view, "rank").message
        == "`rank` is not loaded, `chat` is; run `orch load rank`, or `orch switch rank`"
    )
    assert unloaded_error(view, "embed").message == "`embed` is loading (loading embed)"
    view = replace(view, others={"embed": route(EMBED)})
    for error in (refusal_error(view, "rank"), unloaded_error(view, "rank")):
        assert "`chat`, `embed` are" in error.message


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_no_more_are_let_in_than_may_and_all_who_stay_get_in_in_their_order(
    limit: int, seed: int
) -> None:
    """Requests of two models come, leave and are cancelled in any order, at any turn of the loop."""
    draw = random.Random(f"{limit}-{seed}")
    house = House(max_queued=1000)
    house.show(replace(CHAT, max_in_flight=limit), others={"embed": route(EMBED)})
    cancelled: set[str] = set()
    asked = {"chat": 0, "embed": 0}
    for _ in range(120):
        profile = draw.choice(("chat", "chat", "embed"))
        action = draw.random()
        if action < 0.5:
            name = f"{profile} {asked[profile]:03}"
            asked[profile] += 1
            await house.ask(name, profile, turns=draw.randrange(3))
        elif action < 0.8 and (inside := [each for each in house.entered if not house.leave[each].is_set()]):
            house.leave[draw.choice(inside)].set()
        elif house.tasks:
            name = draw.choice(sorted(house.tasks))
            if name not in house.entered and not house.tasks[name].done():
                cancelled.add(name)
                house.tasks[name].cancel()

        await go_on(draw.randrange(4))

    for _ in range(300):
        for name in house.entered:
            house.leave[name].set()

        await asyncio.sleep(0)

    await go_on()
    assert house.most.get("chat.1", 0) <= limit
    for profile, count in asked.items():
        stayed = [f"{profile} {number:03}" for number in range(count)]
        entered = [name for name in house.entered if name.startswith(profile)]
        assert entered == sorted(entered)
        assert set(stayed) - cancelled <= set(entered)

    await house.close()
