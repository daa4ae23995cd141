"""Watches the instances that are ready: checks each every few seconds and acts on the verdicts of core/health/liveness.

An engine that has something to do and shows progress is asked one thing a look: /health. Its /slots are read only when
no answer moved since the last look. Its new log lines are read for device memory that ran out under a request: where
the ladder has a step left, it is ended for that; where not, it may still serve smaller requests.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

import anyio
import anyio.to_thread

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.failure.while_serving import memory_ran_out
from orchestrator.core.fleet.failures import diagnosed_failure
from orchestrator.core.fleet.lifecycle_states import CheckFailed, Draining, Failure, Ready
from orchestrator.core.fleet.serving import decide_serving
from orchestrator.core.health.liveness import (
    LivenessHistory,
    LivenessPolicy,
    LivenessSample,
    LivenessVerdict,
    assess,
    begin,
)
from orchestrator.core.measure.slots import Slot, read_slots
from orchestrator.daemon.fleet.answer_watch import AnswerWatch
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns, engine_probe
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.gateway.contract import Finished, Traffic

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class ProbeResult:
    """The newest answers of an instance; a question that was not answered leaves the last answer.

    :ivar relayed: bytes of answers, without those that came while requests failed: errors are no progress
    :ivar answered: requests that went well
    :ivar relayed_bytes: as counted, with `failed` requests by then
    :ivar prompt_batches: batches of prompts that the log tells of
    :ivar judged_line: the first log line that was not judged for failures
    :ivar stalled: streams that stand still, as far as that was said
    """

    relayed: int = 0
    answered: int = 0
    relayed_bytes: int = 0
    failed: int = 0
    slots: Hashable = None
    prompt_batches: int = 0
    judged_line: int = 0
    stalled: frozenset[int] = frozenset()

    @property
    def work(self) -> Hashable:
        return self.relayed, self.answered, self.slots, self.prompt_batches


@dataclass(slots=True)
class Watched:
    """One instance under watch."""

    run: EngineRun
    probe: EngineProbe
    answers: AnswerWatch
    look: ProbeResult = field(default_factory=ProbeResult)
    routed: bool = True


class LivenessWatcher:
    """Watches every instance that serves or drains.

    :param unroute: told of each instance whether new requests shall be held, when that changes
    :param record: notes an event for people: its kind, and a sentence
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        policy: LivenessPolicy,
        unroute: Callable[[str, bool], None],
        record: Callable[[str, str], None],
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._policy = policy
        self._unroute = unroute
        self._record = record
        self._watched: dict[str, Watched | None] = {}
        self._unreadable: dict[str, str] = {}

    async def run(self) -> None:
        """Watch each instance from when it becomes ready until it is gone, for ever."""
        generation = 0
        async with anyio.create_task_group() as tasks:
            while True:
                published = await self._owner.published.changed(generation)
                generation = self._owner.published.generation
                for state in published.fleet.slots.values():
                    if isinstance(state, Ready) and state.instance not in self._watched:
                        self._watched[state.instance] = None
                        tasks.start_soon(self._watch, state.instance)

                self._let_go()

    def _let_go(self) -> None:
        """Have the watches of those that are gone end at once: each holds all that its engine has printed."""
        for instance, watched in self._watched.items():
            if watched is not None and self._state_of(instance) is None:
                watched.answers.due.set()

    def finished(self, record: Finished) -> None:
        """Take in a request that has ended."""
        watched = self._watched.get(record.instance or "")
        if watched is not None:
            watched.answers.finished(record)

    async def given_up(self, instance: str) -> bool:
        """Return whether an instance that has answered a request with an error is given up: asked before its client is
        told, so that the next instance can answer it.
        """
        watched = self._watched.get(instance)
        return watched is not None and await watched.answers.given_up(3 * self._policy.timeout_s)

    async def _watch(self, instance: str) -> None:
        run = self._runs.get(instance)
        if run is not None:
            try:
                async with engine_probe(run.launch) as probe:
                    answers = AnswerWatch(run, self._record)
                    watched = Watched(run, probe, answers, ProbeResult(judged_line=run.log.next_seq))
                    self._watched[instance] = watched
                    try:
                        await self._look_until_gone(instance, watched)
                    finally:
                        answers.gone()
            finally:
                self._watched.pop(instance, None)
                self._unreadable.pop(instance, None)

    async def _look_until_gone(self, instance: str, watched: Watched) -> None:
        history = begin(monotonic())
        while True:
            with anyio.move_on_after(self._policy.every_s):
                await watched.answers.due.wait()

            if self._state_of(instance) is None:
                return

            question_due = watched.answers.look()
            try:
                failure = await out_of_memory(watched)
                history, verdict = await self._assess(instance, watched, history)
            except (OSError, RuntimeError) as error:  # no descriptor or thread left: this look says nothing
                _log.warning("%s could not be looked at: %s", instance, error)
                continue

            state = self._state_of(instance)
            if state is None:
                return

            decision = decide_serving(state.start_record, failure, verdict, watched.routed)
            if decision.memory_news is not None:
                self._record("out_of_memory", decision.memory_news)

            if decision.end is not None:
                self._owner.post(CheckFailed(instance, decision.end))
                return

            if decision.routed:
                self._record_stalled(instance, state, watched.look)

            if decision.routing_news is not None:
                self._set_routed(instance, decision.routed, decision.routing_news)

            if decision.routed and question_due and await self._answers_fail(instance, watched):
                return

    async def _answers_fail(self, instance: str, watched: Watched) -> bool:
        """Ask an instance whose answers fail a question of our own, and return whether it is ended."""

        def hold(message: str) -> None:
            watched.run.failing = message
            self._set_routed(instance, False, message)

        failure = await watched.answers.check(watched.probe, 2 * self._policy.timeout_s, hold)
        if failure is not None:
            self._owner.post(CheckFailed(instance, failure))
            return True

        if not watched.routed:
            watched.run.failing = ""
            self._set_routed(instance, True, "the engine answers again")

        return False

    async def _assess(
        self, instance: str, watched: Watched, history: LivenessHistory
    ) -> tuple[LivenessHistory, LivenessVerdict]:
        policy, look = self._policy, watched.look
        stopped = watched.run.stopped()
        # A stopped process answers nobody, and each question would leave one more connection in its backlog.
        answered = not stopped and await self._ask(instance, watched.probe.health(policy.timeout_s)) == "ok"
        relayed_bytes, answers = self._traffic.relayed(instance), watched.answers
        if answers.failed == look.failed:
            look.relayed += relayed_bytes - look.relayed_bytes

        look.relayed_bytes, look.failed, look.answered = relayed_bytes, answers.failed, answers.answered
        await watched.run.log_cursor.catch_up()
        look.prompt_batches = watched.run.log_cursor.activity.prompt_batches
        in_flight = self._traffic.in_flight(instance)
        if in_flight and answered and look.work == history.work:
            slots = await self._ask(instance, _read_slots(watched.probe, policy.timeout_s))
            look.slots = tuple(slot.counters for slot in slots) if slots else look.slots

        return assess(history, LivenessSample(stopped, answered, in_flight, look.work), monotonic(), policy)

    async def _ask(self, instance: str, question: Awaitable[T]) -> T | None:
        """Return the engine's answer; None for one that nobody can make sense of, which is as good as none."""
        try:
            return await question
        except Exception as error:  # noqa: BLE001  (an engine may answer anything)
            _log.exception("%s: its answer cannot be read", instance)
            said = f"{instance}: its answers cannot be read: {error or type(error).__name__}"
            if self._unreadable.get(instance) != said:
                self._record("answer_unreadable", said)

            self._unreadable[instance] = said
            return None

    def _record_stalled(self, instance: str, state: Ready | Draining, look: ProbeResult) -> None:
        """Record streams that stand still while the engine works. Ending it for one would end the others."""
        stalled = self._traffic.stalled(instance, self._policy.stall_s)
        new = [still_s for name, still_s in stalled.items() if name not in look.stalled]
        look.stalled = frozenset(stalled)
        if new:
            text = f"{len(new)} of its streams had tokens, and none for {max(new):.0f} s"
            text = f"{state.start_record.target}: {text}, while the engine works for others; it serves on"
            self._record("stream_stalled", text)

    def _state_of(self, instance: str) -> Ready | Draining | None:
        """Return the state of an instance that serves or drains; None when it does neither."""
        for state in self._owner.fleet.slots.values():
            if isinstance(state, Ready | Draining) and state.instance == instance:
                return state

        return None

    def _set_routed(self, instance: str, routed: bool, message: str) -> None:
        watched = self._watched.get(instance)
        if watched is not None:
            watched.routed = routed

        _log.warning("%s: %s", instance, message)
        self._record("routed" if routed else "unrouted", message)
        self._unroute(instance, not routed)


async def _read_slots(probe: EngineProbe, timeout_s: float) -> Sequence[Slot] | None:
    return read_slots(await probe.slots(timeout_s))


async def out_of_memory(watched: Watched) -> Failure | None:
    """Return the failure when device memory ran out since the last look, as far as the engine's lines tell."""
    cursor, look = watched.run.log_cursor, watched.look
    await cursor.catch_up()
    first, look.judged_line = look.judged_line, cursor.next_line
    if first == cursor.next_line:
        return None

    found = await anyio.to_thread.run_sync(memory_ran_out, cursor.records, first)
    return diagnosed_failure(found) if found is not None else None
