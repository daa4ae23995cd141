"""Clients that come too early, leave too soon, or want another model: scenarios 54, 57 and 58."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.busy import in_time
from tests.faults.lab import QUICK, Lab
from tests.support import PATIENCE_S, until

FOUR = "[context]\nparallel = 4\n"
K_S = 3.0


# 54. Nothing is ready yet.


def test_fifty_requests_that_come_while_loading_are_all_served(lab: Lab) -> None:
    lab.model("m", {"load_s": 3.0}, more=FOUR)
    lab.serve("m")
    until(lambda: lab.starts("m"), "the engine was started")
    requests = [lab.begin_asking(f"r{index}", stream=index % 2 == 0) for index in range(50)]
    until(lambda: lab.status()["gateway"]["queued"] == 50, "all wait", 10)
    answers = [request.result() for request in requests]
    for answer in answers:
        answer.check_complete(8)

    assert answers[0].body.startswith(b": orch: loading m@fake-upstream")
    assert len(lab.requests("m", "accepted")) == 50


def test_a_queue_that_is_full_refuses_and_one_who_leaves_makes_room(lab: Lab) -> None:
    lab.configure(QUICK + "[gateway]\nmax_queued = 5\n")
    lab.model("m", {"load_s": 4.0})
    lab.serve("m")
    until(lambda: lab.starts("m"), "the engine was started")
    leaving = [send(lab, f"leaving-{index}") for index in range(2)]
    staying = [lab.begin_asking(f"staying-{index}") for index in range(3)]
    until(lambda: lab.status()["gateway"]["queued"] == 5, "the queue is full")
    refused = lab.ask("refused")
    assert refused.status == 503
    assert refused.json["error"]["code"] == "queue_full"
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    for connection in leaving:
        connection.close()

    until(lambda: lab.status()["gateway"]["queued"] == 3, "who left is gone", K_S)
    staying.append(lab.begin_asking("late"))
    for request in staying:
        request.result().check_complete(8)

    assert {row["id"] for row in lab.requests("m", "accepted")} == {request.id for request in staying}


# 57. Two models by turns.


def test_requests_for_two_models_by_turns_are_all_served_with_few_switches(lab: Lab) -> None:
    lab.configure(QUICK + "[gateway]\nswitch_min_stay_s = 0\n")
    lab.run("a")
    lab.model("b")
    lab.control("/v1/reload", {})
    requests = [lab.begin_asking(f"r{index}", model="ab"[index % 2]) for index in range(40)]
    for request in requests:
        request.result().check_complete(8)

    assert len(lab.starts("a")) + len(lab.starts("b")) <= 10


# 58. The client leaves.


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
@pytest.mark.parametrize("when", ["mid-stream", "before the first byte", "a whole answer"])
def test_the_engine_stops_working_for_a_client_that_left(lab: Lab, dialect: str, when: str) -> None:
    slow = {"prompt_s": 30.0} if when == "before the first byte" else {"tokens_s": 20}
    lab.run("m", faults=slow, dialect=dialect, more="[context]\nparallel = 1\n")
    connection = send(lab, "leaving", tokens=2000, stream=when != "a whole answer")
    until(lambda: lab.requests("m", "accepted"), "the engine works on it")
    if when == "mid-stream":
        assert connection.recv(1000)

    left = time.monotonic()
    connection.close()
    ended = until(lambda: lab.requests("m", "ended"), "the engine noticed", 10)[0]
    assert ended["outcome"] == "gone"
    assert in_time(ended["time"] - left, K_S)
    lab.faults("m", {})
    assert lab.status()["gateway"]["in_flight"] == 0


def test_two_hundred_clients_that_leave_anywhere_leak_nothing(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 100, "prompt_s": 0.02}, more=FOUR)
    for index in range(200):
        connection = send(lab, f"r{index}", tokens=50)
        if index % 3 == 0:
            connection.recv(200)
        elif index % 3 == 1:
            time.sleep(0.005)

        connection.close()

    lab.ask("last").check_complete(8)


def send(lab: Lab, request_id: str, tokens: int = 8, *, stream: bool = True) -> socket.socket:
    """A request whose answer is not read."""
    host, _, port = urlsplit(lab.url).netloc.partition(":")
    body = json.dumps({"prompt": "hello", "stream": stream, "n_predict": tokens}).encode()
    head = (
        f"POST /completion HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    connection.sendall(head.encode() + body)
    return connection


ONE_AT_A_TIME = {"policy": 'policy = "one"\n', "room for one": "max = 1\n"}


@pytest.mark.parametrize("residency", ONE_AT_A_TIME.values(), ids=ONE_AT_A_TIME)
def test_one_client_that_asks_two_models_in_turn_waits_for_no_stay(lab: Lab, residency: str) -> None:
    """It embeds with one and answers with another; the stay is for clients that take the model from each other."""
    stay = "[gateway]\nswitch_min_stay_s = 3600\nswitch_patience_s = 7200\n"
    lab.configure(f"{QUICK}{stay}[residency]\n{residency}")
    lab.model("a")
    lab.model("b")
    lab.serve("a")
    lab.ready("a")
    for turn in range(3):
        for name in ("b", "a"):
            lab.ask(f"{name}{turn}", model=name).check_complete(8)

    changes = lab.events("switched") or lab.events("evicted")
    assert len(changes) == 6


def test_one_client_that_asks_two_models_in_turn_has_both_loaded_once_where_they_fit(lab: Lab) -> None:
    lab.configure(QUICK)
    lab.model("a")
    lab.model("b")
    lab.serve("a")
    lab.ready("a")
    for turn in range(3):
        for name in ("b", "a"):
            lab.ask(f"{name}{turn}", model=name).check_complete(8)

    assert len(lab.events("ready")) == 2
    assert not lab.events("switched") and not lab.events("evicted")
