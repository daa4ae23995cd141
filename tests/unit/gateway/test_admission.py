"""Admission gives back whatever it took, wherever a request is cancelled, and however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import pytest

from orchestrator.adapters.http1 import Request
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Finished, Model, Refusal, RoutingView
from orchestrator.gateway.crash_suspects import RequestFingerprint
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError

pytestmark = pytest.mark.asyncio

READY = Endpoint("i-1", "demo", "upstream", "127.0.0.1", 1, None)
GONE = replace(READY, instance="i-0")
LOADING = RoutingView(1, None, None, "loading demo", (Model("demo", (), "", "loading", 0),))
MOST_STEPS = 40


class Supervised:
    """A supervisor whose view the test sets."""

    def __init__(self) -> None:
        self._view = LOADING
        self._changed = asyncio.Event()

    def view(self) -> RoutingView:
        return self._view

    async def changed(self, generation: int) -> RoutingView:
        while self._view.generation <= generation:
            await self._changed.wait()

        return self._view

    def finished(self, record: Finished) -> None:
        return

    def refused(self, code: str) -> None:
        return

    def show(
        self, *, serving: Endpoint | None = None, refusal: Refusal | None = None, fallen: tuple[str, ...] = ()
    ) -> None:
        self.show_view(
            replace(self._view, generation=self._view.generation + 1, serving=serving, refusal=refusal, fallen=fallen)
        )

    def show_view(self, view: RoutingView) -> None:
        self._view = view
        self._changed.set()
        self._changed = asyncio.Event()


def fingerprint(dispatcher: Dispatcher, body: bytes) -> RequestFingerprint:
    transport = asyncio.Transport()
    request = Request("POST", "/completion", "1.1", [], keep_alive=True, peer="?", transport=transport)
    return RequestFingerprint(request, "/completion", body)


def suspect(dispatcher: Dispatcher, supervisor: Supervised, body: bytes) -> RequestFingerprint:
    """A request that met the death of an engine together with another one: it is tried alone."""
    found = fingerprint(dispatcher, body)
    dispatcher.crash_suspects.lost(GONE, found)
    dispatcher.crash_suspects.lost(GONE, fingerprint(dispatcher, b"bystander"))
    supervisor.show(fallen=("i-0",))
    dispatcher.crash_suspects.attribute(supervisor.view().fallen, monotonic())
    return found


async def stay(dispatcher: Dispatcher, mark: RequestFingerprint, inside: Callable[[], None]) -> None:
    async with dispatcher.admitted("demo", lambda view: None, mark):
        inside()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def assert_nothing_is_kept(dispatcher: Dispatcher, mark: RequestFingerprint) -> None:
    assert len(dispatcher.hold) == 0
    assert dispatcher.instances.in_flight_total == 0
    other = fingerprint(dispatcher, b"another request")
    # A suspect that still waited or was still tried would keep this one out.
    assert dispatcher.crash_suspects.may_enter(other, 0, monotonic())
    assert dispatcher.crash_suspects.may_enter(mark, 0, monotonic())
    dispatcher.crash_suspects.left(mark)


@pytest.mark.parametrize("suspected", [False, True])
@pytest.mark.parametrize("served_after", [0, 3])
async def test_a_request_that_is_cancelled_anywhere_gives_everything_back(served_after: int, suspected: bool) -> None:
    """The request is cancelled after so many turns of the loop, from before its first step to after its last."""
    entered = 0

    def inside() -> None:
        nonlocal entered
        entered += 1

    reached_end = False
    for steps in range(MOST_STEPS):
        supervisor = Supervised()
        dispatcher = Dispatcher(GatewayOptions(comment_after_s=0.0), supervisor, supervisor)
        dispatcher.start()
        mark = suspect(dispatcher, supervisor, b"a") if suspected else fingerprint(dispatcher, b"a")
        if not served_after:
            supervisor.show(serving=READY, fallen=supervisor.view().fallen)

        task = asyncio.ensure_future(stay(dispatcher, mark, inside))
        for step in range(steps):
            if step == served_after and served_after:
                supervisor.show(serving=READY, fallen=supervisor.view().fallen)

            await asyncio.sleep(0)

        reached_end = reached_end or (task.done() and not task.cancelled())
        task.cancel()
        await asyncio.wait((task,))
        assert_nothing_is_kept(dispatcher, mark)
        await dispatcher.stop()

    assert entered and reached_end


async def test_two_that_wait_for_each_other_are_cancelled_in_either_order() -> None:
    """One is with the instance, the other, a suspect, waits until it is alone."""
    for first in (0, 1):
        supervisor = Supervised()
        dispatcher = Dispatcher(GatewayOptions(), supervisor, supervisor)
        dispatcher.start()
        mark = suspect(dispatcher, supervisor, b"a")
        supervisor.show(serving=READY, fallen=("i-0",))
        left = asyncio.Event()

        async def occupy(dispatcher: Dispatcher = dispatcher, left: asyncio.Event = left) -> None:
            async with dispatcher.admitted("demo", None, fingerprint(dispatcher, b"b")):
                await left.wait()

        tasks = [asyncio.ensure_future(occupy())]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(stay(dispatcher, mark, lambda: None)))
        await asyncio.sleep(0)
        assert (dispatcher.instances.in_flight("i-1"), len(dispatcher.hold)) == (1, 1)
        tasks[first].cancel()
        await asyncio.sleep(0)
        tasks[1 - first].cancel()
        await asyncio.wait(tasks)
        assert_nothing_is_kept(dispatcher, mark)
        await dispatcher.stop()


async def test_a_suspect_is_tried_alone_though_the_death_was_confirmed_while_it_waited() -> None:
    """The daemon turns away from an engine first, and knows a moment later how it ended."""
    supervisor = Supervised()
    dispatcher = Dispatcher(GatewayOptions(), supervisor, supervisor)
    dispatcher.start()
    marks = [fingerprint(dispatcher, body) for body in (b"suspect", b"late")]
    dispatcher.crash_suspects.lost(GONE, marks[0])
    together = 0

    def inside() -> None:
        nonlocal together
        together = max(together, dispatcher.instances.in_flight("i-1"))

    tasks = [asyncio.ensure_future(stay(dispatcher, mark, inside)) for mark in marks]
    await asyncio.sleep(0)
    assert len(dispatcher.hold) == 2
    supervisor.show(serving=READY, fallen=("i-0",))
    await asyncio.wait(tasks)
    assert together == 1
    await dispatcher.stop()


async def test_the_end_of_an_engine_is_waited_for_after_its_clients_were_turned_away() -> None:
    supervisor = Supervised()
    dispatcher = Dispatcher(GatewayOptions(), supervisor, supervisor)
    assert not await dispatcher.confirmed_dead(GONE, 0.01)
    waits = asyncio.ensure_future(dispatcher.confirmed_dead(GONE, 30.0))
    await asyncio.sleep(0)
    supervisor.show(fallen=("i-0",))
    assert await waits


async def test_a_refusal_and_an_error_inside_give_everything_back() -> None:
    supervisor = Supervised()
    dispatcher = Dispatcher(GatewayOptions(), supervisor, supervisor)
    dispatcher.start()
    mark = fingerprint(dispatcher, b"a")
    supervisor.show(refusal=Refusal("nothing runs", "not_running", None))
    with pytest.raises(GatewayError, match="nothing runs"):
        await stay(dispatcher, mark, lambda: None)

    def fail() -> None:
        raise ValueError("inside")

    supervisor.show(serving=READY)
    with pytest.raises(ValueError, match="inside"):
        await stay(dispatcher, mark, fail)

    assert_nothing_is_kept(dispatcher, mark)
    await dispatcher.stop()
