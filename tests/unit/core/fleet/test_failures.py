from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.failure.diagnosis import diagnose
from orchestrator.core.failure.exit_evidence import OomKills
from orchestrator.core.fleet.failures import exit_failure, mistake, spawn_failure

NO_KILLS = OomKills("/proc/vmstat", "machine", 3, 3, 0)
PORT_TAKEN = "main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080"
BAD_FLAG = "error: invalid argument: --no-such-flag"


@pytest.mark.parametrize(
    ("kind", "failure_class"),
    [
        ("not_found", "missing_file"),
        ("missing_interpreter", "missing_library"),
        ("not_executable", "missing_file"),
        ("exec_format", "illegal_instruction"),
        ("no_memory", "host_oom"),
        ("anything else", "engine_bug"),
    ],
)
def test_each_reason_for_a_spawn_that_failed_has_its_class(kind: str, failure_class: str) -> None:
    assert spawn_failure(kind, False, "it failed", (), None).failure_class == failure_class


def test_a_spawn_is_tried_again_only_where_the_reason_may_pass() -> None:
    assert spawn_failure("no_memory", True, "it failed", (), None).action == "restart"
    assert spawn_failure("no_memory", False, "it failed", (), None).action == "give_up"


def test_a_mistake_is_given_up_and_shows_its_first_detail() -> None:
    failure = mistake("bad_flag", "it is wrong", ("line 3", "line 4"), "mend it")
    assert (failure.action, failure.evidence, failure.hint) == ("give_up", "line 3", "mend it")
    assert mistake("bad_flag", "it is wrong", (), None).evidence is None


def test_a_port_that_somebody_else_took_first_is_no_reason_to_give_up() -> None:
    found = diagnose(parse_log([PORT_TAKEN]), 1, alive=False)
    assert found.failure_class == "port_in_use"
    assert not exit_failure(found, 1, False, NO_KILLS).permanent


def test_a_flag_that_is_wrong_stays_what_the_diagnosis_says() -> None:
    found = diagnose(parse_log([BAD_FLAG]), 1, alive=False)
    failure = exit_failure(found, 1, False, NO_KILLS)
    assert (failure.failure_class, failure.action) == ("bad_flag", found.action)


def test_a_sigkill_of_the_kernel_is_told_from_somebody_s() -> None:
    found = diagnose([], -9, alive=False)
    assert exit_failure(found, -9, False, NO_KILLS).failure_class == "killed"
    assert exit_failure(found, -9, False, replace(NO_KILLS, after=4)).failure_class == "host_oom"
    assert exit_failure(found, None, False, replace(NO_KILLS, after=4)).failure_class == found.failure_class
