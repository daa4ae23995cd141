from __future__ import annotations

from itertools import pairwise

import pytest

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.readiness import (
    BUSY_TIMES,
    LoadingLook,
    LoadingProgress,
    assess_identity,
    assess_loading,
    no_drafts,
    unanswered_canary,
    work_done,
)

PORT = 4711
STALL_S = 60.0
BEGUN = LoadingProgress(moved_at=0.0)


def outcomes(*looks: tuple[float, LoadingLook]) -> list[object]:
    """What each look means, one after the other, at its time."""
    progress = BEGUN
    found: list[object] = []
    for now, look in looks:
        progress, outcome = assess_loading(progress, look, PORT, STALL_S, now)
        found.append(outcome.failure_class if isinstance(outcome, Failure) else outcome)

    return found


def loads(work: int) -> LoadingLook:
    return LoadingLook(None, False, work)


def test_a_load_that_moves_outlasts_any_limit() -> None:
    assert outcomes(*((each * STALL_S, loads(each)) for each in range(20))) == ["moved"] * 20


def test_a_load_that_stands_still_for_too_long_is_given_up() -> None:
    last = STALL_S + 1.0
    assert outcomes((1.0, loads(5)), (STALL_S, loads(5)), (last, loads(5)), (last + 0.1, loads(5))) == [
        "moved", "waits", "waits", "engine_bug",
    ]  # fmt: skip


def test_progress_starts_the_wait_anew() -> None:
    assert outcomes((0.0, loads(1)), (STALL_S, loads(2)), (2 * STALL_S, loads(2)))[-1] == "waits"


def test_a_stall_is_a_failure_of_loading_that_may_pass() -> None:
    _, failure = assess_loading(LoadingProgress(0.0, 7), loads(7), PORT, STALL_S, STALL_S + 1)
    assert isinstance(failure, Failure)
    assert (failure.action, failure.phase) == ("restart", "load")
    assert "61 s" in failure.message and "daemon.load_stall_s" in (failure.hint or "")


def silent(cpu_s: float, *, blocked: bool = False) -> LoadingLook:
    return LoadingLook(None, False, 5, cpu_s, blocked)


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (silent(0.5 * STALL_S), "busy"),
        (silent(0.05 * STALL_S), "engine_bug"),  # what our own questions cost it is no work
        (silent(0.0, blocked=True), "busy"),
        (silent(0.0), "engine_bug"),
    ],
)
def test_a_silent_load_that_is_at_work_has_more_time(last: LoadingLook, outcome: str) -> None:
    assert outcomes((0.0, silent(0.0)), (STALL_S + 1.0, last))[-1] == outcome


def test_a_silent_load_at_work_has_an_end_too_and_what_it_did_before_counts_no_more() -> None:
    end_s = BUSY_TIMES * STALL_S
    assert outcomes((0.0, silent(0.0)), (end_s, silent(end_s)), (end_s + 1, silent(end_s + 1)))[1:] == [
        "busy",
        "engine_bug",
    ]
    worked_before = LoadingLook(None, False, 5, cpu_s=1000.0)
    assert outcomes((0.0, worked_before), (STALL_S + 1, worked_before))[-1] == "engine_bug"


def test_one_look_inside_the_kernel_among_many_is_no_work() -> None:
    looks = [(float(each), silent(0.0, blocked=each == 5)) for each in range(int(STALL_S) + 2)]
    assert outcomes(*looks)[-1] == "engine_bug"


def test_health_on_our_own_port_is_loaded_whatever_the_work() -> None:
    assert outcomes((0.0, LoadingLook(True, True, 0))) == ["loaded"]


def test_a_foreign_listener_counts_when_it_is_seen_twice_in_a_row() -> None:
    foreign = LoadingLook(False, False, 0)
    assert outcomes((0.0, foreign), (0.1, foreign)) == ["moved", "port_in_use"]
    assert outcomes((0.0, foreign), (0.1, loads(0)), (0.2, foreign)) == ["moved", "waits", "waits"]


def test_a_foreign_listener_is_tried_again_on_another_port() -> None:
    _, failure = assess_loading(LoadingProgress(0.0, 0, True), LoadingLook(False, False, 9), PORT, STALL_S, 1.0)
    assert isinstance(failure, Failure)
    assert failure.action == "restart"
    assert str(PORT) in failure.message


@pytest.mark.parametrize(
    ("server", "build_info", "kind", "number", "found"),
    [
        ("llama.cpp", "b11434-abc", "upstream", 11434, None),
        ("llama.cpp", "b11434-abc", "ik", 11434, "`llama.cpp`"),
        ("ik_llama.cpp", None, "upstream", None, "`ik_llama.cpp`"),
        ("nginx", None, "upstream", 11434, None),
        (None, "b1-abc", "upstream", 11434, None),
        (None, "b0-abc", "upstream", 11434, None),
        (None, "b11433-abc", "upstream", 11434, "build 11433"),
        (None, "b11433-abc", "upstream", None, None),
        (None, "custom", "upstream", 11434, None),
        ("llama.cpp", "b11433-abc", "unknown", 11434, "build 11433"),
    ],
)
def test_another_engine_than_the_one_started_is_named(
    server: str | None, build_info: str | None, kind: Kind, number: int | None, found: str | None
) -> None:
    failure = assess_identity(server, build_info, kind, number)
    if found is None:
        assert failure is None
    else:
        assert failure is not None
        assert found in failure.message
        assert failure.action == "give_up"


def test_a_canary_without_an_answer_may_pass_and_one_without_drafts_does_not() -> None:
    assert unanswered_canary("timed out").action == "restart"
    assert "timed out" in unanswered_canary("timed out").message
    assert no_drafts("p", 3).action == "give_up"
    assert "3 answers" in no_drafts("p", 3).message and "this build ignores the head" in no_drafts("p", 3).message
    told = no_drafts("p", 3, "W context type MTP requested but model doesn't contain MTP layers")
    assert told.evidence is not None and "ignores" not in told.message


def moved(times: int, read: int = 0, filled: int = 0, lines: int = 0) -> int:
    """How many of these looks find that a load has moved, when each finds it grown by so much."""
    works = [work_done(10 << 20, 100 << 20, 7)]
    works += [work_done((10 << 20) + n * read, (100 << 20) + n * filled, 7 + n * lines) for n in range(1, times + 1)]
    return sum(later > earlier for earlier, later in pairwise(works))


@pytest.mark.parametrize("grown", [{"read": 300}, {"filled": 64 << 10}, {"read": 300, "filled": 64 << 10}, {}])
def test_what_our_own_questions_cost_a_process_is_no_progress(grown: dict[str, int]) -> None:
    assert moved(60, **grown) <= 1


@pytest.mark.parametrize("grown", [{"read": 256 << 10}, {"filled": 16 << 20}, {"lines": 1}])
def test_a_slow_load_is_progress(grown: dict[str, int]) -> None:
    assert moved(60, **grown) == 60
