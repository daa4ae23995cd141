from __future__ import annotations

import pytest

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import Attempt, StartRecord, Target
from orchestrator.core.fleet.serving import decide_serving
from orchestrator.core.health.liveness import LivenessVerdict
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_machine import OOM

OK = LivenessVerdict("ok")
SILENT = LivenessVerdict("unroute", "/health was not answered")
HUNG = LivenessVerdict("hung", "nothing moved for 120 s")
FIRST = Attempt(1, 0.0, Rung(1664))
CAN_CLIMB = StartRecord(Target("a", "upstream"), Rung(1664), Recovery(margins=(1664, 2048)), (FIRST,))
AT_THE_END = StartRecord(Target("a", "upstream"), Rung(2048), Recovery(margins=(1664, 2048)), (FIRST,))


def test_an_instance_that_answers_serves_on_without_a_word() -> None:
    decision = decide_serving(CAN_CLIMB, None, OK, True)
    assert (decision.end, decision.routed, decision.routing_news, decision.memory_news) == (None, True, None, None)


@pytest.mark.parametrize("verdict", [OK, SILENT, HUNG])
def test_memory_that_ran_out_comes_before_a_hang_where_the_ladder_has_a_step(verdict: LivenessVerdict) -> None:
    decision = decide_serving(CAN_CLIMB, OOM, verdict, True)
    assert decision.end == OOM
    assert decision.memory_news is None


def test_without_a_further_step_it_serves_on_and_people_are_told() -> None:
    decision = decide_serving(AT_THE_END, OOM, OK, True)
    assert decision.end is None
    assert decision.memory_news is not None
    assert "no further step" in decision.memory_news


def test_a_hang_at_the_end_of_the_ladder_is_a_hang() -> None:
    decision = decide_serving(AT_THE_END, OOM, HUNG, True)
    assert decision.end is not None
    assert (decision.end.failure_class, decision.end.phase) == ("engine_bug", "runtime")
    assert HUNG.reason in decision.end.message
    assert decision.memory_news is not None


def test_routing_changes_once_and_says_why() -> None:
    lost = decide_serving(CAN_CLIMB, None, SILENT, True)
    assert (lost.end, lost.routed) == (None, False)
    assert lost.routing_news == f"new requests wait: {SILENT.reason}"
    assert decide_serving(CAN_CLIMB, None, SILENT, False).routing_news is None
    back = decide_serving(CAN_CLIMB, None, OK, False)
    assert (back.routed, back.routing_news) == (True, "the engine answers again")
