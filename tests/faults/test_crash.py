"""Engines that die: scenarios 2 to 6."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.busy import in_time
from tests.faults.lab import QUICK, Lab, read_answer
from tests.support import until

FOUR = "[context]\nparallel = 4\n"


# 2. In mid-stream.


def test_a_crash_in_mid_stream_ends_the_streams_visibly_and_those_who_wait_are_served(lab: Lab) -> None:
    lab.run("m", faults=[{"die_at": "mid-stream", "after": 60, "signal": "SEGV", "tokens_s": 60}, {}], more=FOUR)
    first = lab.starts("m")[0]["instance"]
    streams = [lab.begin_asking(f"s{index}", 200, stream=True) for index in range(4)]
    until(lambda: len(lab.requests("m", "accepted")) == 4, "the slots are taken")
    behind = [lab.begin_asking(f"b{index}", 8, prompt=f"behind {index}") for index in range(4)]
    lab.replayed.update(each.id for each in (*streams, *behind))
    until(lambda: lab.status()["state"] != "ready", "the crash is noticed")
    queued = [lab.begin_asking(f"q{index}", 8, stream=index % 2 == 1) for index in range(4)]
    for stream in streams:
        answer = stream.result()
        assert answer.status == 200
        assert answer.text.startswith(f" {first}:0")
        assert "error" in answer.events[-1] and "crashed" in answer.events[-1]["error"]["message"]
        assert not any(event.get("stop") for event in answer.events)

    for request in (*behind, *queued):
        request.result().check_complete(8)

    status = lab.ready("m")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["engine_bug", "ready"]
    assert {row["instance"] for row in lab.requests("m", "accepted") if row["id"][0] == "q"} == {
        lab.starts("m")[1]["instance"]
    }


@pytest.mark.parametrize(
    ("path", "event"),
    [("/v1/chat/completions", b'data: {"error":'), ("/v1/messages", b"event: error\ndata: ")],
    ids=["openai", "anthropic"],
)
def test_a_cut_stream_ends_in_its_own_dialect(lab: Lab, path: str, event: bytes) -> None:
    lab.run("m", faults=[{"die_at": "mid-stream", "after": 3, "signal": "SEGV"}, {}])
    body = {"max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with lab.open("s", body, path) as response:
        answer = read_answer(response)

    assert event in answer.body
    assert b"[DONE]" not in answer.body and b"message_stop" not in answer.body


# 3 and 4. Before the first byte.


def test_a_death_before_the_first_byte_is_not_seen_by_the_client(lab: Lab) -> None:
    lab.replayed.add("r")
    lab.run("m", faults=[{"die_at": "first-byte", "signal": "SEGV"}, {}])
    lab.ask("r").check_complete(8)
    assert len(lab.requests("m", "accepted")) == 2


def test_a_request_that_kills_each_engine_is_refused_and_the_others_are_served(lab: Lab) -> None:
    lab.replayed.update({"poison", "bystander-0", "bystander-1", "bystander-2"})
    lab.run("m", faults={"poison": "POISON", "signal": "ABRT", "tokens_s": 100}, more=FOUR)
    bystanders = [lab.begin_asking(f"bystander-{index}", 100) for index in range(3)]
    until(lambda: len(lab.requests("m", "accepted")) == 3, "the bystanders are being answered")
    answer = lab.ask("poison", prompt="POISON")
    assert (answer.status, answer.headers.get("x-should-retry")) == (502, "false")
    for bystander in bystanders:
        bystander.result().check_complete(100)

    assert lab.ask("poison-again", prompt="POISON").status == 502
    assert lab.ready("m")
    assert len(lab.starts("m")) == 3


def test_a_request_that_is_too_large_to_be_kept_is_an_error_with_its_cause(lab: Lab) -> None:
    lab.configure(QUICK + "[gateway]\nreplay_max_mib = 0\n")
    lab.run("m", faults=[{"die_at": "first-byte", "signal": "SEGV"}, {}])
    answer = lab.ask("r")
    assert answer.status == 503
    assert "crashed" in answer.json["error"]["message"]
    assert int(answer.headers["retry-after"]) >= 1
    lab.ask("next").check_complete(8)


# 5 and 6. Again and again.


def test_a_crash_loop_is_answered_with_growing_waits_then_a_rest_then_single_tries(lab: Lab) -> None:
    lab.configure(
        "[restart]\nfirst_delay_s = 0.2\nmax_delay_s = 0.8\nstable_s = 5\nintensity = 5\nwindow_s = 60\n"
        "cooldown_s = 1.5\n"
    )
    lab.model("m", {"die_at": "ready", "after": 0.2, "exit": 3})
    lab.serve("m")
    until(lambda: len(lab.starts("m")) == 7, "five starts and two single tries")
    deaths = [row["time"] for row in lab.rows("m", "requests") if row["event"] == "died"]
    waits = [start["time"] - death for death, start in zip(deaths, lab.starts("m")[1:], strict=False)]
    for wait, least in zip(waits, (0.2, 0.4, 0.8, 0.8, 1.5, 3.0), strict=True):
        assert least <= wait < least + 2.5, waits

    nexts = [attempt["next"] for attempt in lab.state("failed")["attempts"]]
    assert nexts[:4] == [f"start again in {seconds} s" for seconds in ("0.2", "0.4", "0.8", "0.8")]
    assert nexts[4] == "rest for 1.5 s, then one more try" and nexts[5].startswith("rest for 3 s")
    refused = lab.ask("r")
    assert refused.status == 503 and 1 <= int(refused.headers["retry-after"]) <= 120


def test_a_client_that_names_the_model_does_not_hasten_a_crash_loop(lab: Lab) -> None:
    lab.configure("[restart]\nfirst_delay_s = 0.5\nmax_delay_s = 1\nintensity = 4\nwindow_s = 60\ncooldown_s = 30\n")
    lab.model("m", {"die_at": "ready", "after": 0.3, "exit": 3})
    lab.serve("m")
    asked = iter(f"r{index}" for index in range(10_000))

    def refused() -> bool:
        name = next(asked)
        lab.replayed.add(name)
        return lab.ask(name, model="m").status == 503

    until(refused, "it rests", 60)
    deaths = [row["time"] for row in lab.rows("m", "requests") if row["event"] == "died"]
    waits = [start["time"] - death for death, start in zip(deaths, lab.starts("m")[1:], strict=False)]
    for wait, least in zip(waits, (0.5, 1, 1), strict=True):
        assert least <= wait < least + 2.5, waits

    assert [attempt["next"] for attempt in lab.state("failed")["attempts"]][-1] == "rest for 30 s, then one more try"


@pytest.mark.parametrize("how", ["stopped and started", "started while it stops", "restarted"])
def test_restarts_that_a_person_asks_for_do_not_spend_the_budget(lab: Lab, how: str) -> None:
    lab.configure(QUICK + "intensity = 3\n")
    pid = lab.run("m")["pid"]
    for _ in range(4):
        if how == "restarted":
            lab.control("/v1/restart", {})
        else:
            lab.control("/v1/down", {})
            if how == "stopped and started":
                lab.state("stopped")

            lab.up("m")

        pid = new_pid(lab, pid)

    lab.ask("r").check_complete(8)
    assert len(lab.starts("m")) == 5
    os.kill(pid, signal.SIGKILL)  # the first of the three crashes that the budget allows
    until(lambda: len(lab.starts("m")) == 6, "it is started again")
    assert lab.ready("m")["attempts"][0]["next"].startswith("start again in")


def new_pid(lab: Lab, old: int) -> int:
    return int(until(lambda: (now := lab.status())["state"] == "ready" and now["pid"] != old and now["pid"], "it runs"))


def test_a_start_that_a_person_asks_for_ends_a_rest(lab: Lab) -> None:
    lab.configure("[restart]\nfirst_delay_s = 0.05\nintensity = 2\ncooldown_s = 600\n")
    lab.model("m", {"die_at": "load", "signal": "KILL"})
    lab.serve("m")
    lab.state("failed")
    lab.faults("m", {})
    began = time.monotonic()
    lab.up("m")
    lab.ready("m")
    assert in_time(time.monotonic() - began, 10)
