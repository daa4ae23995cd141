"""The lifecycle against a simulated world: processes that live and die, performers that answer late or in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.ladder import Rung
from orchestrator.core.lifecycle import step
from orchestrator.core.profile import Recovery
from orchestrator.core.restart import RestartPolicy
from orchestrator.core.states import (
    KEPT_ATTEMPTS,
    Backoff,
    Course,
    Event,
    Failed,
    Failure,
    InstanceEvent,
    Prepare,
    Ready,
    ResumeRequested,
    Spawn,
    StartRequested,
    State,
    Stopped,
    StopRequested,
    Target,
    WakeAt,
    Woke,
    instance_of,
)
from tests.unit.lifecycle_world import SimulatedEngines

TARGETS = st.sampled_from([Target("a", "upstream"), Target("a", "ik-fork"), Target("b", "upstream")])
FAILURES = st.sampled_from(
    [
        Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT"),
        Failure("killed", "ended by signal 9"),
        Failure("host_oom", "the kernel ended it", evidence="oom_kill"),
        Failure("device_oom", "out of memory", evidence="cudaMalloc failed", action="retry_margin"),
        Failure("device_oom", "out of memory", evidence="600 MiB", action="retry_margin", requested_mib=600.5),
        Failure("device_oom", "out of memory", evidence="one buffer", action="retry_other"),
        Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up"),
    ]
)
RECOVERIES = st.builds(
    Recovery,
    margins=st.sampled_from([(), (1664, 1792, 2048), (512, 1024, 4096, 8192)]),
    then=st.sampled_from([(), ("kv:q4_0",), ("kv:q4_0", "context:65536")]),
    max_attempts=st.integers(1, 6),
)


class LifecycleMachine(RuleBasedStateMachine):
    """Delivers events to the lifecycle in orders that performers could produce, and in some that they could not."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = Stopped()
        self.now = 0.0
        self.timer: float | None = None
        self.policy = RestartPolicy()
        self.engines = SimulatedEngines()
        self.delivered: list[InstanceEvent] = []
        self.prepared: set[str] = set()
        self.retries: list[float] = []
        self.slots = 0

    @initialize(intensity=st.integers(1, 6), window_s=st.sampled_from([60.0, 300.0]), recovery=RECOVERIES)
    def choose(self, intensity: int, window_s: float, recovery: Recovery) -> None:
        self.policy = RestartPolicy(intensity=intensity, window_s=window_s)
        self.engines.recovery = recovery

    # What people and the clock do.

    @rule(wanted=TARGETS)
    def start(self, wanted: Target) -> None:
        self.slots += 1
        self.take(StartRequested(wanted, f"{self.slots}.1"))

    @rule(force=st.booleans())
    def stop(self, force: bool) -> None:
        self.take(StopRequested(force))

    @rule()
    def resume(self) -> None:
        self.take(ResumeRequested())

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 61.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.timer is not None)
    @rule(early_s=st.sampled_from([0.0, 0.0004]))
    def timer_fires(self, early_s: float) -> None:
        assert self.timer is not None
        self.now = max(self.now, self.timer - early_s)
        self.timer = None
        self.take(Woke())

    @rule()
    def timer_of_an_earlier_wait_fires(self) -> None:
        self.take(Woke())

    # What performers do, and when their answers arrive.

    @precondition(lambda self: self.engines.work())
    @rule(data=st.data(), failure=st.none() | FAILURES)
    def a_performer_finishes(self, data: st.DataObject, failure: Failure | None) -> None:
        job = data.draw(st.sampled_from(self.engines.work()))
        self.engines.finish(job, failure)

    @precondition(lambda self: self.engines.live)
    @rule(failure=FAILURES, checked=st.booleans())
    def an_engine_breaks(self, failure: Failure, checked: bool) -> None:
        (instance,) = self.engines.live
        if checked:
            self.engines.check_fails(instance, failure)
        else:
            self.engines.dies(instance, failure)

    @precondition(lambda self: self.engines.outbox)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.engines.outbox) - 1))
        self.take(self.engines.outbox.pop(index))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def an_answer_arrives_twice(self, data: st.DataObject) -> None:
        self.take(data.draw(st.sampled_from(self.delivered)))

    # What must be possible from everywhere.

    @rule(wanted=TARGETS)
    def a_start_that_meets_no_failure_gets_ready(self, wanted: Target) -> None:
        self.deliver_everything()
        self.start(wanted)
        self.settle()
        assert isinstance(self.state, Ready)
        assert self.state.course.target == wanted
        assert set(self.engines.live) == {self.state.instance}

    @rule(force=st.booleans())
    def a_stop_ends_with_nothing_running(self, force: bool) -> None:
        self.stop(force)
        self.settle()
        assert isinstance(self.state, Stopped)
        assert not self.engines.live

    @rule()
    def everyone_who_waits_gets_an_answer(self) -> None:
        self.settle()
        assert isinstance(self.state, Ready | Stopped | Failed)

    def teardown(self) -> None:
        self.a_stop_ends_with_nothing_running(False)

    # The invariants.

    @invariant()
    def at_most_one_process_lives_or_is_about_to(self) -> None:
        assert len(set(self.engines.live) | self.engines.spawning) <= 1

    @invariant()
    def no_process_is_lost(self) -> None:
        assert set(self.engines.live) | self.engines.spawning <= {instance_of(self.state)}

    @invariant()
    def every_wait_has_a_timer(self) -> None:
        if isinstance(self.state, Backoff) or (isinstance(self.state, Failed) and self.state.until is not None):
            assert self.timer is not None

    def take(self, event: Event) -> None:
        before = self.state
        after, effects = step(before, event, self.now, self.policy)
        assert step(before, event, self.now, self.policy) == (after, effects), "the same question, another answer"
        if not isinstance(event, StartRequested | StopRequested | ResumeRequested | Woke):
            self.delivered.append(event)

        self.state = after
        for effect in effects:
            match effect:
                case Prepare():
                    assert effect.instance not in self.prepared, "an id was used twice"
                    self.prepared.add(effect.instance)
                    assert not isinstance(before, Failed) or before.until is not None or is_start(event)
                    self.check_restart(before)
                case Spawn():
                    assert not self.engines.live
                case WakeAt():
                    self.timer = effect.time

            self.engines.perform(effect)

        if isinstance(after, Ready) and not isinstance(before, Ready):
            self.check_ready(after.instance, event)

        if isinstance(after, Backoff) and not isinstance(before, Backoff):
            self.check_delay(before, after)

        if not isinstance(before, Stopped) and not isinstance(after, Stopped):
            check_course(before.course, after.course)

    def check_ready(self, instance: str, event: Event) -> None:
        if isinstance(event, ResumeRequested):
            return

        answers = [type(each).__name__ for each in self.delivered if each.instance == instance]
        assert answers.index("Prepared") < answers.index("Spawned") < answers.index("Loaded")
        assert answers[-1] == "CanaryPassed"

    def check_restart(self, before: State) -> None:
        if not isinstance(before, Backoff):
            self.retries.clear()
            return

        if before.course.crashes.count == 1:
            self.retries.clear()

        self.retries = [time for time in self.retries if self.now - time < self.policy.window_s] + [self.now]
        assert len(self.retries) < self.policy.intensity

    def check_delay(self, before: State, after: Backoff) -> None:
        delay_s = after.until - self.now
        count = after.course.crashes.count
        assert abs(delay_s - min(self.policy.first_delay_s * 2 ** (count - 1), self.policy.max_delay_s)) < 1e-6
        assert not isinstance(before, Stopped)
        assert count in (1, before.course.crashes.count + 1)

    def deliver_everything(self) -> None:
        while self.engines.outbox:
            self.take(self.engines.outbox.pop(0))

    def settle(self) -> None:
        """Let everything go well from here on until nothing is left to happen."""
        for _ in range(200):
            self.deliver_everything()
            if jobs := self.engines.work():
                self.engines.finish(jobs[0], None)
            elif self.timer is not None:
                self.timer_fires(0.0)
            else:
                return

        raise AssertionError(f"it never comes to rest: {self.state}")


def is_start(event: Event) -> bool:
    return isinstance(event, StartRequested)


def check_course(before: Course, after: Course) -> None:
    numbers = [attempt.number for attempt in after.attempts]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert len(numbers) <= KEPT_ATTEMPTS
    if not after.attempts or not before.attempts or after.attempts[0].started < before.attempts[0].started:
        return

    assert after.attempts[-1].number - before.attempts[-1].number in (0, 1)
    assert after.climbed < max(after.recovery.max_attempts, 1)
    if before.rung is not None and after.rung is not None and after.rung != before.rung:
        check_climb(before.rung, after.rung)
        assert before.attempts[-1].outcome in ("running", "ready") or before.attempts[-1].failure is not None
        assert after.attempts[-1].outcome == "device_oom"
        assert after.climbed in (1, before.climbed + 1)


def check_climb(below: Rung, above: Rung) -> None:
    """Strictly up, and one thing at a time."""
    if above.steps == below.steps:
        assert (above.margin_mib or 0) > (below.margin_mib or 0)
    else:
        assert above.margin_mib == below.margin_mib
        assert above.steps[:-1] == below.steps


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
