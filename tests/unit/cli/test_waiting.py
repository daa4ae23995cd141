"""Waiting for the daemon, with answers that are written here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from orchestrator.api import client
from orchestrator.cli import waiting
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

Answers = Callable[..., list[str]]


def status(state: str, generation: int, *, switching: bool = False) -> bytes:
    fields = {"state": state, "generation": generation, "switching": switching, "progress": f"{state} now"}
    return json.dumps(fields).encode()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Give the daemon's answers, in their order; errors are raised, the last one is repeated.

    :return: the requests, as they come
    """

    def give(*given: bytes | Exception) -> list[str]:
        asked: list[str] = []

        def request(path: str, target: str, body: bytes | None = None, *, timeout_s: float = 30.0) -> bytes:
            asked.append(target)
            answer = given[min(len(asked), len(given)) - 1]
            if isinstance(answer, Exception):
                raise answer

            return answer

        monkeypatch.setattr(client, "request", request)
        return asked

    return give


def test_the_status_counts_once_it_is_settled_and_newer_than_the_request(answers: Answers) -> None:
    asked = answers(status("ready", 7), status("starting", 8), status("ready", 9))
    assert waiting.until_settled("socket", 7, timeout_s=60)["generation"] == 9
    assert [target.partition("&")[0] for target in asked] == [
        "/v1/status?after=7", "/v1/status?after=7", "/v1/status?after=8",
    ]  # fmt: skip


def test_a_switch_under_way_is_not_settled(answers: Answers) -> None:
    answers(status("ready", 8, switching=True), status("ready", 9))
    assert waiting.until_settled("socket", 7, timeout_s=60)["generation"] == 9


@pytest.mark.parametrize("state", ["ready", "failed", "stopped"])
def test_each_end_of_a_start_is_settled(answers: Answers, state: str) -> None:
    answers(status(state, 8))
    assert waiting.until_settled("socket", 7, timeout_s=60)["state"] == state


def test_a_start_that_takes_too_long_goes_on_without_us(answers: Answers) -> None:
    answers(status("starting", 8))
    with pytest.raises(TimedOutError, match=r"not ready after 0\.05 s; it goes on"):
        waiting.until_settled("socket", 7, timeout_s=0.05)


def test_an_engine_has_stopped_when_the_daemon_says_so(answers: Answers) -> None:
    asked = answers(status("draining", 8), status("stopped", 9))
    waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=60)
    assert len(asked) == 2


def test_a_daemon_that_is_to_end_has_ended_when_its_process_is_gone(answers: Answers) -> None:
    asked = answers(status("stopped", 9), NotRunningError("no daemon is running"))
    waiting.until_stopped("socket", 2**30, daemon_ends=True, timeout_s=60)  # larger than any process id
    assert len(asked) == 2


def test_a_daemon_that_does_not_answer_and_is_still_there_is_waited_for(answers: Answers) -> None:
    answers(NotRunningError("no daemon is running"))
    with pytest.raises(TimedOutError, match=r"0\.05 s .* daemon \(pid \d+\) to end; no daemon is running"):
        waiting.until_stopped("socket", os.getpid(), daemon_ends=True, timeout_s=0.05)


def stop_status(state: str, in_flight: int) -> bytes:
    fields = {"state": state, "generation": 8, "progress": state, "profile": "a", "engine": "x"}
    return json.dumps({**fields, "gateway": {"in_flight": in_flight}}).encode()


@pytest.mark.parametrize(
    ("answer", "what", "hint"),
    [
        (stop_status("draining", 2), "2 running requests of a@x", "--force"),
        (stop_status("draining", 1), "a running request of a@x", "--force"),
        (stop_status("stopping", 0), "the engine of a@x to end", "stop_grace_s"),
    ],
)
def test_who_waits_for_a_stop_is_told_what_it_waits_for_and_so_is_who_gives_up(
    answers: Answers,
    answer: bytes,
    what: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "SAY_AFTER_S", 0.0)
    answers(answer)
    with pytest.raises(TimedOutError) as caught:
        waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=0.05)

    assert what in caught.value.message and hint in str(caught.value.hint)
    said = capsys.readouterr().err
    assert said.count(what) == 1 and hint in said


def test_what_was_asked_for_since_is_not_waited_for(answers: Answers) -> None:
    answers(status("draining", 8), status("starting", 9))
    news = waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=60)
    assert news is not None and news["state"] == "starting"


def instances(generation: int, *rows: tuple[str, str], **more: object) -> bytes:
    """A status with these profiles in these states; the first is in focus."""
    listed = [
        {"profile": profile, "engine": "x", "state": state, "unloaded_since": None, "progress": f"{state} now", **more}
        for profile, state in rows
    ]
    fields = {"state": rows[0][1] if rows else "stopped", "generation": generation, "progress": "", "switching": False}
    return json.dumps({**fields, "profile": "a", "engine": "x", "instances": listed}).encode()


@pytest.mark.parametrize("end", ["ready", "failed"])
def test_a_load_is_followed_by_the_row_of_its_profile(answers: Answers, end: str) -> None:
    asked = answers(instances(8, ("a", "ready"), ("b", "starting")), instances(9, ("a", "ready"), ("b", end)))
    assert waiting.until_loaded("socket", "b", 7, timeout_s=60)["state"] == end
    assert [target.partition("&")[0] for target in asked] == ["/v1/status?after=7", "/v1/status?after=8"]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (instances(8, ("a", "ready")), "b was stopped meanwhile"),
        (instances(8, ("b", "stopped"), unloaded_since="2026-11-21"), "b was unloaded again meanwhile"),
    ],
)
def test_a_load_that_somebody_ends_is_not_waited_for(answers: Answers, answer: bytes, what: str) -> None:
    answers(answer)
    with pytest.raises(OrchError, match=what):
        waiting.until_loaded("socket", "b", 7, timeout_s=60)


def test_a_load_that_takes_too_long_goes_on_without_us(answers: Answers) -> None:
    answers(instances(8, ("b", "starting")))
    with pytest.raises(TimedOutError, match=r"b is not loaded after 0\.05 s; it goes on"):
        waiting.until_loaded("socket", "b", 7, timeout_s=0.05)


def test_what_is_unloaded_is_waited_for_until_its_engine_is_gone(answers: Answers) -> None:
    asked = answers(instances(8, ("a", "ready"), ("b", "draining")), instances(9, ("a", "ready"), ("b", "stopped")))
    waiting.until_unloaded("socket", "b", timeout_s=60)
    assert len(asked) == 2


def test_an_unload_that_takes_too_long_goes_on_without_us(answers: Answers) -> None:
    answers(instances(8, ("b", "draining")))
    with pytest.raises(TimedOutError, match=r"b is not unloaded after 0\.05 s"):
        waiting.until_unloaded("socket", "b", timeout_s=0.05)


def test_a_stop_of_one_of_several_waits_for_that_one_and_a_stop_of_all_for_all(answers: Answers) -> None:
    draining, stopping = (
        instances(8, ("a", "ready"), ("b", "draining")),
        instances(9, ("a", "ready"), ("b", "stopping")),
    )
    asked = answers(draining, stopping, instances(10, ("a", "ready")))
    waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=60, profiles=("b",))
    assert len(asked) == 3
    asked = answers(instances(8, ("a", "stopped"), ("b", "draining")), instances(9, ("a", "stopped")))
    waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=60)
    assert len(asked) == 2


def test_who_waits_for_one_of_several_is_told_of_its_requests(answers: Answers) -> None:
    answers(instances(8, ("a", "ready"), ("b", "draining"), in_flight=2))
    with pytest.raises(TimedOutError, match="2 running requests of b@x"):
        waiting.until_stopped("socket", os.getpid(), daemon_ends=False, timeout_s=0.05, profiles=("b",))
