"""The world against simulated engines, with events in orders that performers produce and some that they cannot."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.core.fleet.lifecycle_states import CheckFailed, Failure, Ready, Stopped, Target
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    SleepRequested,
    SlotWoke,
    Strategy,
    slot_of,
    target_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.resident_simulation import WorldSimulation

TARGETS = st.sampled_from([Target("a", "upstream"), Target("a", "ik-fork"), Target("b", "upstream")])
STRATEGIES: st.SearchStrategy[Strategy] = st.sampled_from(["beside", "replace"])
FAILURES = st.sampled_from(
    [
        Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT"),
        Failure("device_oom", "out of memory", evidence="cudaMalloc failed", action="retry_margin"),
        Failure("device_oom", "out of memory", evidence="one buffer", action="retry_other"),
        Failure("device_oom", "out of memory", evidence="kept", action="retry_margin", unreleased_mib=700),
        Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up"),
    ]
)
RECOVERIES = st.builds(
    Recovery,
    margins=st.sampled_from([(), (1664, 1792, 2048)]),
    then=st.sampled_from([(), ("kv:q4_0",)]),
    max_attempts=st.integers(1, 4),
)


class WorldMachine(RuleBasedStateMachine):
    """`WorldSimulation` checks each single step; here are the orders, and what every world can be brought to."""

    fleet: WorldSimulation

    @initialize(intensity=st.integers(1, 6), recovery=RECOVERIES, switches=st.integers(0, 2))
    def begin(self, intensity: int, recovery: Recovery, switches: int) -> None:
        """Nothing runs, or something serves, or what it replaced still streams beside it."""
        self.fleet = WorldSimulation(RestartPolicy(intensity=intensity), recovery)
        for target in (Target("a", "upstream"), Target("a", "ik-fork"))[:switches]:
            self.fleet.become_ready(self.fleet.switch(target, "beside"))

    @rule(desired=TARGETS)
    def a_start_is_requested(self, desired: Target) -> None:
        self.fleet.up(desired)

    @rule(force=st.booleans())
    def a_stop_is_requested(self, force: bool) -> None:
        self.fleet.down(force=force)

    @rule(desired=TARGETS, strategy=STRATEGIES, again=st.booleans())
    def a_switch_is_requested(self, desired: Target, strategy: Strategy, again: bool) -> None:
        self.fleet.switch(desired, strategy, again=again)

    @rule(instance=st.sampled_from(["s1.1", "s2.1", "s3.1", "s1r.1", "unknown"]))
    def nobody_uses_an_instance(self, instance: str) -> None:
        self.fleet.take(SleepRequested(instance))

    @precondition(lambda self: self.fleet.fleet.switch is not None)
    @rule()
    def the_switch_is_cancelled(self) -> None:
        self.fleet.cancel()

    @rule(operation=st.sampled_from(["s1", "s2", "unknown"]))
    def a_switch_that_may_be_over_is_cancelled(self, operation: str) -> None:
        self.fleet.take(CancelRequested(operation))

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 61.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds

    @rule(slot=st.sampled_from(["s1", "s2", "s3", "s1r", "unknown"]))
    def a_stray_timer_fires(self, slot: str) -> None:
        self.fleet.take(SlotWoke(slot))

    @precondition(lambda self: self.fleet.timers)
    @rule(data=st.data(), early_s=st.sampled_from([0.0, 0.0004]))
    def a_timer_fires(self, data: st.DataObject, early_s: float) -> None:
        self.fleet.fire_timer(data.draw(st.sampled_from(sorted(self.fleet.timers))), early_s)

    @precondition(lambda self: self.fleet.engines.work())
    @rule(data=st.data(), failure=st.none() | st.none() | FAILURES, at_once=st.booleans())
    def a_performer_finishes(self, data: st.DataObject, failure: Failure | None, at_once: bool) -> None:
        self.fleet.engines.finish(data.draw(st.sampled_from(self.fleet.engines.work())), failure)
        if at_once:
            self.fleet.deliver(len(self.fleet.engines.outbox) - 1)

    @precondition(lambda self: self.fleet.engines.work())
    @rule(data=st.data(), steps=st.integers(2, 8))
    def several_performers_finish_well(self, data: st.DataObject, steps: int) -> None:
        """Brings the world further in one rule than single events do in fifty."""
        for _ in range(steps):
            self.fleet.deliver_everything()
            if work := self.fleet.engines.work():
                self.fleet.engines.finish(data.draw(st.sampled_from(work)), None)

    @precondition(lambda self: self.fleet.engines.work())
    @rule(data=st.data())
    def a_start_goes_well(self, data: st.DataObject) -> None:
        """While others drain or stop: what they leave behind meets the next request."""
        slot = data.draw(st.sampled_from(sorted({slot_of(instance) for _, instance in self.fleet.engines.work()})))
        for kind in ("prepare", "spawn", "load", "canary"):
            self.fleet.deliver_everything()
            for job in self.fleet.jobs(kind, slot):
                self.fleet.engines.finish(job, None)

        self.fleet.deliver_everything()

    @precondition(lambda self: self.fleet.engines.live)
    @rule(data=st.data(), failure=FAILURES, dies=st.booleans(), at_once=st.booleans())
    def an_engine_breaks(self, data: st.DataObject, failure: Failure, dies: bool, at_once: bool) -> None:
        instance = data.draw(st.sampled_from(sorted(self.fleet.engines.live)))
        if dies:
            self.fleet.engines.dies(instance, failure)
        else:
            self.fleet.engines.outbox.append(CheckFailed(instance, failure))

        if at_once:
            self.fleet.deliver(len(self.fleet.engines.outbox) - 1)

    @precondition(lambda self: self.fleet.engines.outbox)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self.fleet.deliver(data.draw(st.integers(0, len(self.fleet.engines.outbox) - 1)))

    @precondition(lambda self: self.fleet.delivered)
    @rule(data=st.data())
    def an_answer_arrives_twice(self, data: st.DataObject) -> None:
        self.fleet.take(data.draw(st.sampled_from(self.fleet.delivered)))

    @rule()
    def from_here_everyone_who_waits_gets_an_answer(self) -> None:
        deepcopy(self.fleet).settle()

    @rule(desired=TARGETS)
    def from_here_a_start_that_meets_no_failure_gets_ready(self, desired: Target) -> None:
        fleet = deepcopy(self.fleet)
        fleet.deliver_everything()
        fleet.up(desired)
        fleet.settle()
        assert isinstance(fleet.fleet.state, Ready)
        assert target_of(fleet.fleet.state) == desired

    @rule(desired=TARGETS, strategy=STRATEGIES)
    def from_here_a_switch_that_meets_no_failure_ends_well(self, desired: Target, strategy: Strategy) -> None:
        fleet = deepcopy(self.fleet)
        fleet.settle()
        operation = fleet.switch(desired, strategy)
        fleet.settle()
        assert fleet.finished[operation].ok
        assert isinstance(fleet.fleet.state, Ready)

    @rule(desired=TARGETS, strategy=STRATEGIES, current_too=st.booleans())
    def from_here_starts_that_are_quicker_than_every_drain_and_stop_still_wait_for_them(
        self, desired: Target, strategy: Strategy, current_too: bool
    ) -> None:
        fleet = deepcopy(self.fleet)
        fleet.deliver_everything()
        slow = {slot for slot in fleet.fleet.slots if current_too or slot != fleet.fleet.current}
        fleet.switch(desired, strategy)
        while quick := [
            (kind, of) for kind, of in fleet.engines.work() if kind not in ("drain", "stop") or slot_of(of) not in slow
        ]:
            fleet.engines.finish(quick[0], None)
            fleet.deliver_everything()

        fleet.settle()

    @rule(force=st.booleans())
    def from_here_a_stop_ends_with_nothing_running(self, force: bool) -> None:
        fleet = deepcopy(self.fleet)
        fleet.down(force=force)
        fleet.settle()
        assert isinstance(fleet.fleet.state, Stopped)
        assert not fleet.running


TestWorld = WorldMachine.TestCase
TestWorld.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
