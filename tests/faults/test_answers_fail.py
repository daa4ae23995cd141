"""Engines that live, with a good /health, and answer every request with an error; and a request's own errors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.lab import QUICK, Lab
from tests.support import until

LOST = "vk::Queue::submit: ErrorDeviceLost"
COMPUTE = "failed to compute graph, compute status: -1"
WATCHFUL = QUICK.replace("[daemon]", "[daemon]\nprobe_s = 0.3")
BOTH = pytest.mark.parametrize("dialect", ["upstream", "fork"])


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """A lab whose daemon looks often."""
    lab.configure(WATCHFUL)
    return lab


@BOTH
@pytest.mark.parametrize(("says", "outcome"), [(LOST, "driver"), (COMPUTE, "engine_bug")], ids=["lost", "compute"])
def test_one_error_that_the_log_explains_is_enough_to_ask_and_to_start_again(
    lab: Lab, dialect: str, says: str, outcome: str
) -> None:
    lab.run("m", faults=[{"lost_from": 2, "lost_says": says}, {}], dialect=dialect)
    lab.replayed.add("bad")
    lab.ask("good").check_complete(8)
    lab.ask("bad").check_complete(8)  # by the next start: nothing of an answer was out
    assert len(lab.starts("m")) == 2
    status = lab.ready("m")
    first = status["attempts"][0]
    assert first["outcome"] == outcome and says in first["evidence"]
    assert "only errors" in first["cause"] and status["notice"] is None
    assert "were errors" in lab.events("unrouted")[0]
    lab.ask("after").check_complete(8)


def test_errors_that_nothing_explains_are_counted_and_a_held_request_is_answered_by_the_next_start(lab: Lab) -> None:
    lab.run("m", faults=[{"lost_from": 1, "lost_status": 503}, {}])
    lab.replayed.add("bad2")
    assert [lab.ask(f"bad{index}").status for index in range(2)] == [503] * 2
    third = lab.begin_asking("bad2")
    until(lambda: lab.events("unrouted"), "new requests are held")
    lab.ask("held").check_complete(8)
    third.result().check_complete(8)
    first = lab.ready("m")["attempts"][0]
    assert first["outcome"] == "engine_bug" and "answered 503" in first["evidence"]


@pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions", "/v1/messages"])
def test_streams_that_end_in_an_error_are_failures_as_well(lab: Lab, path: str) -> None:
    lab.run("m", faults={})
    body = {"stream": True, "max_tokens": 8, "n_predict": 8, "messages": [], "prompt": "x", "fake_error_after": 3}
    for index in range(3):
        with lab.open(f"bad{index}", body, path) as response:
            assert b"Compute error." in response.read()

    until(lambda: lab.events("answers_failed"), "it is said")
    assert len(lab.starts("m")) == 1, "a question of orch's own was answered"


def test_an_engine_that_always_fails_soon_spends_the_budget_and_ends_as_failed(lab: Lab) -> None:
    lab.configure(WATCHFUL.replace("[restart]", "[restart]\nintensity = 2"))
    lab.run("m", faults={"lost_from": 1, "lost_says": LOST})
    lab.replayed.add("bad")
    answer = lab.ask("bad")  # two engines have answered it so
    assert (answer.status, answer.json["error"]["code"]) == (502, "request_quarantined")
    assert len(lab.starts("m")) == 2
    status = lab.state("failed")
    assert LOST in status["cause"]


@BOTH
def test_a_prompt_that_loses_each_device_is_refused_as_one_that_kills_each_engine(lab: Lab, dialect: str) -> None:
    lab.run("m", faults={"lost_by": "POISON", "lost_says": LOST}, dialect=dialect)
    lab.replayed.add("bad")
    lab.ask("good").check_complete(8)
    answer = lab.ask("bad", prompt="POISON")
    assert (answer.status, answer.headers.get("x-should-retry")) == (502, "false"), answer.body
    assert answer.json["error"]["code"] == "request_quarantined"
    assert lab.ask("again", prompt="POISON").status == 502
    lab.ask("after").check_complete(8)
    assert len(lab.starts("m")) == 3  # as many as a prompt that kills them costs
    (entry,) = lab.orch_json("quarantine", "list")
    assert entry["refused"] and entry["deaths"] == 2


def test_who_was_there_when_a_prompt_lost_the_device_is_answered_and_not_refused(lab: Lab) -> None:
    names = [f"bystander-{index}" for index in range(3)]
    lab.replayed.update({"bad", *names})
    lab.run("m", faults={"lost_by": "POISON", "lost_says": LOST, "tokens_s": 40}, more="[context]\nparallel = 4\n")
    bystanders = [lab.begin_asking(name, 60, prompt=name) for name in names]
    until(lambda: len(lab.requests("m", "accepted")) == 3, "the bystanders are being answered")
    assert lab.ask("bad", prompt="POISON").json["error"]["code"] == "request_quarantined"
    for name, asked in zip(names, bystanders, strict=True):
        asked.result().check_complete(60)
        lab.ask(f"{name}-again", prompt=name).check_complete(8)

    assert len(lab.starts("m")) == 3


def test_a_stream_that_loses_the_device_after_its_first_tokens_is_refused_the_third_time(lab: Lab) -> None:
    lab.run("m", faults={"lost_says": LOST, "lost_by": "POISON"})
    body = {"stream": True, "n_predict": 8, "prompt": "POISON", "fake_error_after": 3}
    for index in range(2):
        with lab.open(f"bad{index}", body) as response:
            assert response.status == 200 and b"error" in response.read()

        until(lambda: len(lab.starts("m")) > index + 1, "the next start")  # noqa: B023
        lab.ready("m")

    with lab.open("bad2", body) as response:
        assert response.status == 502 and b"request_quarantined" in response.read()

    assert len(lab.starts("m")) == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/completions"])
def test_the_request_that_met_a_lost_device_is_answered_by_the_next_start_on_every_route(lab: Lab, path: str) -> None:
    lab.run("m", faults=[{"lost_from": 1, "lost_says": LOST}, {}])
    lab.replayed.add("bad")
    message = {"role": "user", "content": "hello"}
    body: dict[str, object] = {"messages": [message], "prompt": "hello", "max_tokens": 4}
    with lab.open("bad", body, path) as response:
        assert response.status == 200, response.read()

    assert len(lab.starts("m")) == 2


def test_all_that_meet_a_lost_device_together_are_answered_by_the_next_start(lab: Lab) -> None:
    lab.run("m", faults=[{"lost_from": 1, "lost_says": LOST}, {}], more="[context]\nparallel = 4\n")
    asked = [lab.begin_asking(f"r{index}", stream=index % 2 == 0) for index in range(4)]
    lab.replayed.update(each.id for each in asked)
    for each in asked:
        each.result().check_complete(8)

    assert len(lab.starts("m")) == 2


def test_an_error_of_an_engine_that_answers_others_is_told_as_it_is_and_not_sent_twice(lab: Lab) -> None:
    lab.run("m", faults={"odd": "Odd"})
    for index in range(4):  # from the third on, a question of our own is asked first
        answer = lab.ask(f"o{index}", prompt="Odd")
        assert answer.status == 500

    lab.ask("good").check_complete(8)
    assert len(lab.starts("m")) == 1


def test_requests_whose_own_text_fails_end_nothing_and_are_told(lab: Lab) -> None:
    lab.run("m", faults={"odd": "Odd"})
    for index in range(8):
        assert lab.ask(f"o{index}", prompt="Odd").status == 500

    (told,) = until(lambda: lab.events("answers_failed"), "it is told")
    assert "orch itself was answered" in told
    assert "were errors" in lab.status()["notice"]
    assert not lab.events("unrouted")
    lab.ask("good").check_complete(8)
    until(lambda: lab.status()["notice"] is None, "an answer takes it back")
    assert len(lab.starts("m")) == 1


def test_a_clients_mistakes_are_nobodys_fault(lab: Lab) -> None:
    lab.run("m", faults={"lost_from": 1, "lost_status": 400})
    for index in range(6):
        assert lab.ask(f"r{index}").status == 400

    assert not lab.events("answers_failed") and not lab.events("unrouted")
    assert len(lab.starts("m")) == 1


def test_an_engine_under_load_whose_clients_leave_is_left_alone(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 50}, more="[context]\nparallel = 4\n")
    asked: list[Any] = [lab.begin_asking(f"r{index}", 30, stream=index % 2 == 0) for index in range(8)]
    for each in asked:
        each.result().check_complete(30)

    assert lab.status()["notice"] is None and not lab.events("answers_failed")
