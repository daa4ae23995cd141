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
    Failure("device_oom", "out of memory", evidence="kept", action="retry_margin", kept_mib=700),
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

    world: Simulation

    @initialize(intensity=st.integers(1, 6), window_s=st.sampled_from([60.0, 300.0]), recovery=RECOVERIES)
    def begin(self, intensity: int, window_s: float, recovery: Recovery) -> None:
        self.world = Simulation(RestartPolicy(intensity=intensity, window_s=window_s), recovery)
        self.world.start(Target("a", "upstream"))

    @rule(wanted=st.sampled_from(TARGETS))
    def a_start_is_requested(self, wanted: Target) -> None:
        self.world.start(wanted)

    @rule(steps=st.integers(2, 10))
    def things_go_well_for_a_while(self, steps: int) -> None:
        for _ in range(steps):
            self.world.go_well()

    @precondition(lambda self: isinstance(self.world.state, Draining | Stopping | Ready))
    @rule()
    def the_drain_is_cancelled(self) -> None:
        self.world.take(ResumeRequested())

    @precondition(lambda self: not isinstance(self.world.state, Stopped))
    @rule(force=st.booleans())
    def a_stop_is_requested(self, force: bool) -> None:
        self.world.take(StopRequested(force))

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 61.0, 400.0]), stray_timer=st.booleans())
    def time_passes(self, seconds: float, stray_timer: bool) -> None:
        self.world.now += seconds
        if stray_timer:
            self.world.take(Woke())

    @precondition(lambda self: self.world.timer is not None)
    @rule(early_s=st.sampled_from([0.0, 0.0004]))
    def the_timer_fires(self, early_s: float) -> None:
        self.world.fire_timer(early_s)

    @precondition(lambda self: self.world.engines.work())
    @rule(data=st.data(), failure=st.none() | st.none() | st.sampled_from(FAILURES), at_once=st.booleans())
    def a_performer_finishes(self, data: st.DataObject, failure: Failure | None, at_once: bool) -> None:
        self.world.engines.finish(data.draw(st.sampled_from(self.world.engines.work())), failure)
        if at_once:
            self.world.deliver(len(self.world.engines.outbox) - 1)

    @precondition(lambda self: self.world.engines.live)
    @rule(failure=st.sampled_from(FAILURES), dies=st.booleans(), at_once=st.booleans(), repaired=st.booleans())
    def an_engine_breaks(self, failure: Failure, dies: bool, at_once: bool, repaired: bool) -> None:
        self.world.engines.break_down(failure, dies=dies)
        if at_once:
            self.world.deliver(len(self.world.engines.outbox) - 1)

        if repaired:
            self.things_go_well_for_a_while(6)

    @precondition(lambda self: self.world.engines.outbox)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self.world.deliver(data.draw(st.integers(0, len(self.world.engines.outbox) - 1)))

    @precondition(lambda self: self.world.delivered)
    @rule(data=st.data())
    def an_answer_arrives_twice(self, data: st.DataObject) -> None:
        self.world.take(data.draw(st.sampled_from(self.world.delivered)))

    @rule(wanted=st.sampled_from(TARGETS), force=st.booleans())
    def from_here_every_wish_comes_true(self, wanted: Target, force: bool) -> None:
        check_wishes(self.world, wanted, force=force)

    @invariant()
    def every_process_is_known_and_every_wait_ends(self) -> None:
        check_between_steps(self.world)


def check_between_steps(world: Simulation) -> None:
    assert set(world.engines.live) | world.engines.spawning <= {instance_of(world.state)}
    if isinstance(world.state, Backoff) or (isinstance(world.state, Failed) and world.state.until is not None):
        assert world.timer is not None


def check_wishes(before: Simulation, wanted: Target, *, force: bool) -> None:
    """Left alone, a world comes to rest; a start that meets no failure gets ready; a stop leaves nothing behind."""
    world = deepcopy(before)
    world.settle()
    assert isinstance(world.state, Ready | Stopped | Failed), world.state

    world = deepcopy(before)
    world.deliver_everything()
    world.start(wanted)
    world.settle()
    assert isinstance(world.state, Ready), world.state
    assert world.state.course.target == wanted
    assert set(world.engines.live) == {world.state.instance}

    world = deepcopy(before)
    world.take(StopRequested(force))
    world.settle()
    assert isinstance(world.state, Stopped), world.state
    assert not world.engines.live


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), RECOVERIES, st.integers(1, 6), st.sampled_from(FAILURES))
def test_long_lives_with_few_failures_hold_the_same_promises(
    seed: int, recovery: Recovery, intensity: int, usual: Failure
) -> None:
    chance = Random(seed)
    world = Simulation(RestartPolicy(intensity=intensity), recovery)
    world.start(TARGETS[0])
    for _ in range(250):
        live_one(world, chance, usual)
        check_between_steps(world)

    check_wishes(world, chance.choice(TARGETS), force=chance.random() < 0.5)


CHANCES = {"well": 30, "fail": 2, "break": 4, "arrive": 4, "again": 2, "start": 1, "stop": 1, "resume": 2, "wait": 3}


def live_one(world: Simulation, chance: Random, usual: Failure) -> None:
    """One thing happens: mostly a thing under way goes well, and failures are mostly the usual one."""
    engines = world.engines
    failure = usual if chance.random() < 0.8 else chance.choice(FAILURES)
    match chance.choices(tuple(CHANCES), tuple(CHANCES.values()))[0]:
        case "fail" if engines.work():
            engines.finish(chance.choice(engines.work()), failure)
        case "break" if engines.live:
            engines.break_down(failure, dies=chance.random() < 0.5)
        case "arrive" if engines.outbox:
            world.deliver(chance.randrange(len(engines.outbox)))
        case "again" if world.delivered:
            world.take(chance.choice(world.delivered[-20:]))
        case "start":
            world.start(chance.choice(TARGETS))
        case "stop":
            world.take(StopRequested(chance.random() < 0.3))
        case "resume":
            world.take(ResumeRequested())
        case "wait":
            world.now += chance.choice((0.5, 5.0, 70.0, 400.0))
            world.take(Woke())
        case _:
            if not world.go_well(early_s=chance.choice((0.0, 0.0004))):
                world.start(chance.choice(TARGETS))
