"""Several residents, events in any order: no waiter is lost, none starves, the device is never promised twice."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.core.fleet.demand import DemandPolicy
from orchestrator.core.fleet.fleet_states import ResidencyRules
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.resident_states import SlotWoke, Strategy
from orchestrator.core.fleet.restart import RestartPolicy
from tests.unit.core.fleet.fleet_simulation import OUT_OF_MEMORY, SimulatedFleet

PROFILES = st.sampled_from("abcd")
ENGINES = st.sampled_from(["upstream", "ik-fork"])
STRATEGIES: st.SearchStrategy[Strategy] = st.sampled_from(["beside", "replace"])
FAILURES = st.sampled_from(
    [
        OUT_OF_MEMORY,
        Failure("engine_bug", "the engine crashed", evidence="GGML_ASSERT", phase="runtime"),
        Failure("bad_model", "the file is no GGUF", evidence="invalid magic", action="give_up"),
    ]
)
RULES = st.builds(
    ResidencyRules,
    max=st.sampled_from([0, 0, 2]),
    idle_unload_s=st.sampled_from([0.0, 60.0]),
    exclusive=st.sampled_from([(), (frozenset("ab"),)]),
    stay=st.just(DemandPolicy(min_stay_s=5.0, patience_s=30.0)),
)
BOUND_S = 400.0
"""Simulated seconds within which everybody who waits is answered once nothing goes wrong any more: for each of the four
profiles ahead its patience of 30 s and the 15 s in which memory may come back, and the longest rest after crashes."""


class FleetMachine(RuleBasedStateMachine):
    """`SimulatedFleet` checks each single step; here are the orders, and what every fleet can be brought to."""

    sim: SimulatedFleet

    @initialize(rules=RULES, capacity=st.sampled_from([500, 900, 1300, 5000]), wrong=st.sampled_from([0, 0, 300]))
    def begin(self, rules: ResidencyRules, capacity: int, wrong: int) -> None:
        """:param wrong: MiB that `c` takes beyond its plan"""
        self.sim = SimulatedFleet(capacity=capacity, policy=RestartPolicy(intensity=3, cooldown_s=60.0))
        if wrong:
            self.sim.takes = {"c": self.sim.needs["c"] + wrong}

        self.sim.rules(rules)

    @rule(profile=PROFILES, engine=ENGINES)
    def a_start_is_requested(self, profile: str, engine: str) -> None:
        self.sim.up(profile, engine)

    @rule(profile=PROFILES)
    def a_load_is_requested(self, profile: str) -> None:
        self.sim.load(profile)

    @rule(profile=PROFILES, engine=ENGINES, strategy=STRATEGIES, keep=st.booleans())
    def a_switch_is_requested(self, profile: str, engine: str, strategy: Strategy, keep: bool) -> None:
        self.sim.switch(profile, engine, strategy=strategy, keep=keep)

    @rule(profiles=st.lists(PROFILES, max_size=2))
    def a_stop_is_requested(self, profiles: list[str]) -> None:
        self.sim.down(*profiles)

    @rule(profile=PROFILES)
    def an_end_is_requested_that_the_next_request_undoes(self, profile: str) -> None:
        self.sim.unload(profile)

    @rule(profile=PROFILES, pinned=st.booleans())
    def one_is_pinned_or_not(self, profile: str, pinned: bool) -> None:
        self.sim.pin(profile, pinned)

    @rule(rules=RULES)
    def the_rules_change(self, rules: ResidencyRules) -> None:
        self.sim.rules(rules)

    @rule(profile=PROFILES, engine=ENGINES)
    def a_restart_is_requested(self, profile: str, engine: str) -> None:
        self.sim.restart(profile, engine)

    @rule(profile=PROFILES, focus=st.booleans(), keeps=st.lists(PROFILES, max_size=2))
    def what_served_before_is_requested(self, profile: str, focus: bool, keeps: list[str]) -> None:
        self.sim.restore(profile, focus=focus, keeps=[profile, *keeps])

    @precondition(lambda self: self.sim.fleet.moves)
    @rule()
    def a_switch_is_cancelled(self) -> None:
        self.sim.cancel(next(iter(self.sim.fleet.moves)))

    @rule(profile=PROFILES)
    def a_client_asks(self, profile: str) -> None:
        self.sim.ask(profile)

    @rule(profile=PROFILES)
    def its_requests_end(self, profile: str) -> None:
        self.sim.end(profile)

    @precondition(lambda self: self.sim.waiting)
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        del self.sim.waiting[data.draw(st.sampled_from(sorted(self.sim.waiting)))]

    @rule()
    def somebody_looks(self) -> None:
        self.sim.look()

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0, 31.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.sim.now += seconds

    @precondition(lambda self: self.sim.timers)
    @rule(data=st.data())
    def a_timer_fires(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.sim.timers)))
        self.sim.now = max(self.sim.now, self.sim.timers.pop(slot))
        self.sim.take(SlotWoke(slot))

    @rule(failure=st.none() | st.none() | FAILURES, index=st.integers(0, 5))
    def a_performer_finishes(self, failure: Failure | None, index: int) -> None:
        self.sim.work_on(failure, index=index)

    @rule(steps=st.integers(2, 12))
    def several_performers_finish_well(self, steps: int) -> None:
        for _ in range(steps):
            self.sim.look()
            self.sim.work_on()

    @precondition(lambda self: self.sim.engines.live)
    @rule(data=st.data(), failure=FAILURES)
    def an_engine_dies(self, data: st.DataObject, failure: Failure) -> None:
        self.sim.engines.dies(data.draw(st.sampled_from(sorted(self.sim.engines.live))), failure)
        self.sim.deliver_everything()

    @rule()
    def from_here_everybody_who_waits_is_answered_within_the_bound(self) -> None:
        deepcopy(self.sim).settle(BOUND_S)

    @rule(profile=PROFILES)
    def from_here_who_asks_is_served_or_told_why_not(self, profile: str) -> None:
        sim = deepcopy(self.sim)
        served = sim.served[profile]
        sim.ask(profile)
        sim.settle(BOUND_S)
        assert sim.served[profile] > served or sim.refused[profile]

    @rule(profile=PROFILES)
    def from_here_who_asks_is_answered_though_whatever_serves_has_no_pause(self, profile: str) -> None:
        sim = deepcopy(self.sim)
        served = sim.served[profile]
        sim.ask(profile)
        sim.settle(BOUND_S, busy=True)
        assert sim.served[profile] > served or sim.refused[profile]

    @rule()
    def from_here_a_stop_ends_with_nothing_running(self) -> None:
        sim = deepcopy(self.sim)
        sim.waiting.clear()
        sim.down()
        sim.settle(BOUND_S)
        assert not sim.engines.live
        assert not sim.ready()


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
