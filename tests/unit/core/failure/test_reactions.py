"""The table of reactions against what the daemon does, what `orch explain` says, and what docs/failures.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.engine_log.signatures import SIGNATURES
from orchestrator.core.failure.reactions import (
    REACTIONS,
    RESPONSES,
    Reaction,
    action_for,
    default_action,
    find_reaction,
    response_text,
    table,
)
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    CanaryPassed,
    Exited,
    Failed,
    Failure,
    Loaded,
    Prepared,
    Preparing,
    Spawned,
    StartRequested,
    State,
)
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_machine import A, Machine

DOCS = Path(__file__).parents[4] / "docs" / "failures.md"
LADDER = Recovery(margins=(1664, 1792), then=("n_cpu_moe:+4", "kv:q8_0", "context:4096"))


def failure_of(row: Reaction) -> Failure:
    return Failure(row.failure_class, "as it says", action=row.action, phase=row.phases[0] if row.phases else "load")


def after(row: Reaction, rung: Rung, recovery: Recovery) -> State:
    """The state after a start on this rung ended so."""
    machine = Machine()
    machine.take(StartRequested(A, "s.1"), Prepared("s.1", rung, recovery), Spawned("s.1", 1))
    return machine.take(Exited("s.1", failure_of(row)))


def rung_tried(row: Reaction, recovery: Recovery = LADDER) -> Rung | None:
    state = after(row, Rung(1664), recovery)
    return state.start_record.rung if isinstance(state, Preparing) else None


@pytest.mark.parametrize("row", REACTIONS, ids=str)
def test_the_daemon_does_what_the_table_says(row: Reaction) -> None:
    match row.response:
        case "margin":
            assert rung_tried(row) == Rung(1792)
        case "steps":
            assert rung_tried(row) == Rung(1664, ("n_cpu_moe:+4",))
        case "host_steps":
            assert rung_tried(row) == Rung(1664, ("kv:q8_0",))
        case "give_up":
            state = after(row, Rung(1664), LADDER)
            assert isinstance(state, Failed) and state.until is None
        case "restart_longer":
            assert isinstance(after(row, Rung(1664), LADDER), Preparing)
        case "restart" | "end_and_restart" | "another_port" | "leave" | "device":
            assert isinstance(after(row, Rung(1664), LADDER), Backoff)


@pytest.mark.parametrize("row", [row for row in REACTIONS if "steps" in response_text(*row[:1], row.action)], ids=str)
def test_the_top_of_the_ladder_is_left_as_the_table_says(row: Reaction) -> None:
    state = after(row, Rung(), Recovery())
    assert isinstance(state, Failed if row.at_top == "give_up" else Backoff)


def test_a_ready_engine_that_the_kernel_killed_for_memory_climbs_too() -> None:
    machine = Machine()
    machine.take(StartRequested(A, "s.1"), Prepared("s.1", Rung(), LADDER), Spawned("s.1", 1))
    machine.take(Loaded("s.1"), CanaryPassed("s.1"))
    machine.now += 3600
    killed = Failure("host_oom", "the kernel killed it", action="retry_other", phase="runtime")
    state = machine.take(Exited("s.1", killed))
    assert isinstance(state, Preparing) and state.start_record.rung == Rung(None, ("kv:q8_0",))


def host_oom(phase: str) -> Failure:
    return Failure("host_oom", "no memory", action="retry_other", phase=phase)


@pytest.mark.parametrize(
    ("phase", "cache_in_host", "then", "steps"),
    [
        ("kv", True, ("kv:q8_0", "context:4096"), [("kv:q8_0",), ("kv:q8_0", "context:4096"), None]),
        ("load", True, ("context:4096",), [("context:4096",), None]),
        ("load", False, ("context:4096", "kv:q8_0"), [None]),  # the cache is on the device: a smaller one frees nothing
        ("kv", False, ("context:4096",), [("context:4096",), None]),  # the host's cache itself was refused
        ("load", True, ("n_cpu_moe:+4", "n_cpu_moe:12"), [None]),  # they move more into host memory
        ("compute", True, ("n_cpu_moe:+4", "context:4096", "n_cpu_moe:+8"), [("context:4096",), None]),
        ("load", True, (), [None]),
    ],
)
def test_of_the_steps_those_are_taken_that_need_less_host_memory(
    phase: str, cache_in_host: bool, then: tuple[str, ...], steps: list[tuple[str, ...] | None]
) -> None:
    machine = Machine()
    recovery = Recovery(margins=(1664, 1792), then=then)
    machine.take(StartRequested(A, "s.1"), Prepared("s.1", Rung(1664), recovery, cache_in_host), Spawned("s.1", 1))
    for number, expected in enumerate(steps, 1):
        state = machine.take(Exited(f"s.{number}", host_oom(phase)))
        if expected is None:
            assert isinstance(state, Backoff)  # memory that others use may come free
        else:
            assert isinstance(state, Preparing) and state.start_record.rung is not None
            assert (state.start_record.rung.margin_mib, state.start_record.rung.steps) == (1664, expected)
            rung = state.start_record.rung
            machine.take(Prepared(f"s.{number + 1}", rung, recovery, cache_in_host), Spawned(f"s.{number + 1}", 2))


def test_attempts_are_bounded_for_host_memory_too() -> None:
    row = next(row for row in REACTIONS if row.response == "host_steps")
    assert rung_tried(row, recovery=Recovery(then=("kv:q8_0",), max_attempts=1)) is None


def test_the_documentation_has_the_table_and_no_other_rows() -> None:
    section = DOCS.read_text().partition("## What orch does\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == table()


@pytest.mark.parametrize("row", [row for row in SIGNATURES if row.action], ids=lambda row: row.pattern.pattern[:40])
def test_what_a_line_asks_for_is_in_the_table(row: object) -> None:
    failure_class, phase, action = row.failure_class, row.phase or "none", row.action  # type: ignore[attr-defined]
    assert find_reaction(failure_class, action, phase) is not None


def test_the_rows_of_a_class_do_not_contradict_each_other() -> None:
    for row in REACTIONS:
        phase = row.phases[0] if row.phases else "none"
        assert find_reaction(row.failure_class, row.action, phase) is not None
        assert action_for(row.failure_class, row.cause) in {each.action for each in REACTIONS}
        assert RESPONSES[row.response] in response_text(row.failure_class, row.action, phase)

    same = [(row.failure_class, row.action, row.phases, row.response) for row in REACTIONS]
    assert len({each[:3] for each in same}) == len(set(same))  # class, action and phase decide what is done


@pytest.mark.parametrize("failure_class", sorted({row.failure_class for row in REACTIONS}))
def test_each_class_has_an_action_in_every_phase(failure_class: str) -> None:
    for phase in ("none", "load", "kv", "compute", "runtime"):
        assert default_action(failure_class, phase)  # type: ignore[arg-type]


def test_what_no_row_knows_is_restarted_unless_it_asks_to_give_up() -> None:
    assert not Failure("something_new", "as it says").permanent
    assert Failure("something_new", "as it says", action="give_up").permanent
