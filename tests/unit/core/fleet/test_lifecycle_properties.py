"""The lifecycle against a simulated world, with events in orders that performers produce and some that they cannot."""

from __future__ import annotations

from copy import deepcopy
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Failure,
    Ready,
    ResumeRequested,
    Stopped,
    Stopping,
    StopRequested,
    Target,
    Woke,
    instance_of,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_world import Simulation

TARGETS = (Target("a", "upstream"), Target("a", "ik-fork"))
FAILURES = (
    Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT"),
    Failure("killed", "ended by signal 9"),
    Failure("device_oom", "out of memory", evidence="cudaMalloc failed", action="retry_margin"),
    Failure("device_oom", "out of memory", evidence="600 MiB", action="retry_margin", requested_mib=600.5),
    Failure("device_oom", "out of memory", evidence="one buffer", action="retry_other"),
    Failure("device_oom", "out of memory", evidence="kept", action="retry_margin", unreleased_mib=700),
    Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up"),
)
RECOVERIES = st.builds(
    Recovery,
    margins=st.sampled_from([(), (1664, 1792, 2048), (512, 1024, 4096, 8192)]),
    then=st.sampled_from([(), ("kv:q4_0",), ("kv:q4_0", "context:65536")]),
    max_attempts=st.integers(1, 6),
)


class LifecycleMachine(RuleBasedStateMachine):
    """`Simulation` checks each single step; here are the orders, and what must hold between the steps."""

    fleet: Simulation

    @initialize(intensity=st.integers(1, 6), window_s=st.sampled_from([60.0, 300.0]), recovery=RECOVERIES)
    def begin(self, intensity: int, window_s: float, recovery: Recovery) -> None:
        self.fleet = Simulation(RestartPolicy(intensity=intensity, window_s=window_s), recovery)
        self.fleet.start(Target("a", "upstream"))

    @rule(desired=st.sampled_from(TARGETS))
    def a_start_is_requested(self, desired: Target) -> None:
        self.fleet.start(desired)

    @rule(steps=st.integers(2, 10))
    def things_go_well_for_a_while(self, steps: int) -> None:
        for _ in range(steps):
            self.fleet.go_well()

    @precondition(lambda self: isinstance(self.fleet.state, Draining | Stopping | Ready))
    @rule()
    def the_drain_is_cancelled(self) -> None:
        self.fleet.take(ResumeRequested())

    @precondition(lambda self: not isinstance(self.fleet.state, Stopped))
    @rule(force=st.booleans())
    def a_stop_is_requested(self, force: bool) -> None:
        self.fleet.take(StopRequested(force))

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 61.0, 400.0]), stray_timer=st.booleans())
    def time_passes(self, seconds: float, stray_timer: bool) -> None:
        self.fleet.now += seconds
        if stray_timer:
            self.fleet.take(Woke())

    @precondition(lambda self: self.fleet.timer is not None)
    @rule(early_s=st.sampled_from([0.0, 0.0004]))
    def the_timer_fires(self, early_s: float) -> None:
        self.fleet.fire_timer(early_s)

    @precondition(lambda self: self.fleet.engines.work())
    @rule(data=st.data(), failure=st.none() | st.none() | st.sampled_from(FAILURES), at_once=st.booleans())
    def a_performer_finishes(self, data: st.DataObject, failure: Failure | None, at_once: bool) -> None:
        self.fleet.engines.finish(data.draw(st.sampled_from(self.fleet.engines.work())), failure)
        if at_once:
            self.fleet.deliver(len(self.fleet.engines.outbox) - 1)

    @precondition(lambda self: self.fleet.engines.live)
    @rule(failure=st.sampled_from(FAILURES), dies=st.booleans(), at_once=st.booleans(), repaired=st.booleans())
    def an_engine_breaks(self, failure: Failure, dies: bool, at_once: bool, repaired: bool) -> None:
        self.fleet.engines.break_down(failure, dies=dies)
        if at_once:
            self.fleet.deliver(len(self.fleet.engines.outbox) - 1)

        if repaired:
            self.things_go_well_for_a_while(6)

    @precondition(lambda self: self.fleet.engines.outbox)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self.fleet.deliver(data.draw(st.integers(0, len(self.fleet.engines.outbox) - 1)))

    @precondition(lambda self: self.fleet.delivered)
    @rule(data=st.data())
    def an_answer_arrives_twice(self, data: st.DataObject) -> None:
        self.fleet.take(data.draw(st.sampled_from(self.fleet.delivered)))

    @rule(desired=st.sampled_from(TARGETS), force=st.booleans())
    def from_here_every_wish_comes_true(self, desired: Target, force: bool) -> None:
        check_wishes(self.fleet, desired, force=force)

    @invariant()
    def every_process_is_known_and_every_wait_ends(self) -> None:
        check_between_steps(self.fleet)


def check_between_steps(fleet: Simulation) -> None:
    assert set(fleet.engines.live) | fleet.engines.spawning <= {instance_of(fleet.state)}
    if isinstance(fleet.state, Backoff) or (isinstance(fleet.state, Failed) and fleet.state.until is not None):
        assert fleet.timer is not None


def check_wishes(before: Simulation, desired: Target, *, force: bool) -> None:
    """Left alone, a world comes to rest; a start that meets no failure gets ready; a stop leaves nothing behind."""
    fleet = deepcopy(before)
    fleet.settle()
    assert isinstance(fleet.state, Ready | Stopped | Failed), fleet.state

    fleet = deepcopy(before)
    fleet.deliver_everything()
    fleet.start(desired)
    fleet.settle()
    assert isinstance(fleet.state, Ready), fleet.state
    assert fleet.state.start_record.target == desired
    assert set(fleet.engines.live) == {fleet.state.instance}

    fleet = deepcopy(before)
    fleet.take(StopRequested(force))
    fleet.settle()
    assert isinstance(fleet.state, Stopped), fleet.state
    assert not fleet.engines.live


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), RECOVERIES, st.integers(1, 6), st.sampled_from(FAILURES))
def test_long_lives_with_few_failures_hold_the_same_promises(
    seed: int, recovery: Recovery, intensity: int, usual: Failure
) -> None:
    chance = Random(seed)
    fleet = Simulation(RestartPolicy(intensity=intensity), recovery)
    fleet.start(TARGETS[0])
    for _ in range(250):
        live_one(fleet, chance, usual)
        check_between_steps(fleet)

    check_wishes(fleet, chance.choice(TARGETS), force=chance.random() < 0.5)


CHANCES = {"well": 30, "fail": 2, "break": 4, "arrive": 4, "again": 2, "start": 1, "stop": 1, "resume": 2, "wait": 3}


def live_one(fleet: Simulation, chance: Random, usual: Failure) -> None:
    """One thing happens: mostly a thing under way goes well, and failures are mostly the usual one."""
    engines = fleet.engines
    failure = usual if chance.random() < 0.8 else chance.choice(FAILURES)
    match chance.choices(tuple(CHANCES), tuple(CHANCES.values()))[0]:
        case "fail" if engines.work():
            engines.finish(chance.choice(engines.work()), failure)
        case "break" if engines.live:
            engines.break_down(failure, dies=chance.random() < 0.5)
        case "arrive" if engines.outbox:
            fleet.deliver(chance.randrange(len(engines.outbox)))
        case "again" if fleet.delivered:
            fleet.take(chance.choice(fleet.delivered[-20:]))
        case "start":
            fleet.start(chance.choice(TARGETS))
        case "stop":
            fleet.take(StopRequested(chance.random() < 0.3))
        case "resume":
            fleet.take(ResumeRequested())
        case "wait":
            fleet.now += chance.choice((0.5, 5.0, 70.0, 400.0))
            fleet.take(Woke())
        case _:
            if not fleet.go_well(early_s=chance.choice((0.0, 0.0004))):
                fleet.start(chance.choice(TARGETS))
