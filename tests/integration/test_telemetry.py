"""The frame of a real daemon: with the embedded engine under load, with recorded devices, and with nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.api.top_frames import GpuFigures, HostFigures, Rates, RequestRow, TopFrame
from orchestrator.engines.known.model import write_known_model
from tests.busy import in_time
from tests.integration.telemetry_support import check_agreement, frame, lasting, measure
from tests.support import Home, new_home, until

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")

pytestmark = pytest.mark.timeout(180)

PROMPT = "A supervisor"
PROFILE = """\
schema = 1
engine = "embedded"
model = "{model}"

[context]
size = 16384
parallel = {parallel}

[cpu]
threads = 1
threads_batch = 1
"""
MTP = '\n[speculative]\ntype = "mtp"\ndraft_max = 3\ndraft_p_min = 0.0\n'
CARD = {
    "index": 0,
    "name": "NVIDIA GeForce RTX 3060",
    "used_mib": 11000,
    "total_mib": 12288,
    "reserved_mib": 200,
    "processes": {"engine": 10000, "1": 700},
    "utilization": 0.97,
    "throttle": ["power_cap"],
}


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """One daemon with two profiles, and a recorded card."""
    with new_home() as home:
        for name, architecture, more in (("llama", "llama", ""), ("mtp", "qwen35moe", MTP)):
            path = os.path.join(home.root, f"{name}.gguf")
            write_known_model(path, architecture)  # type: ignore[arg-type]
            home.profile(name, PROFILE.format(model=path, parallel=2) + more)

        home.env["ORCH_GPU_REPLAY"] = home.write("gpus.json", json.dumps({"samples": [[CARD]]}))
        home.serve()
        yield home


@pytest.fixture(params=["llama", "mtp"])
def served(home: Home, request: pytest.FixtureRequest) -> Home:
    run(home, request.param)
    return home


def run(home: Home, profile: str) -> None:
    if home.status()["profile"] != profile:
        home.orch("up", profile)

    home.ready(profile)


@pytest.mark.parametrize("streams", [1, 2])
def test_the_rate_of_a_request_is_what_its_client_measured(served: Home, streams: int) -> None:
    check_agreement(served, PROMPT, streams)


def test_the_rates_move_under_a_stream_and_fall_to_zero_after_it(home: Home) -> None:
    run(home, "llama")
    frame(home)
    url = home.url
    tokens = lasting(url, PROMPT, 2.5, most=2500)  # the more there are, the slower each
    results: list[Any] = []
    stream = threading.Thread(target=lambda: results.append(measure(url, PROMPT, tokens)))
    began = time.time()
    stream.start()

    def shown() -> list[Any]:
        rates = (now := frame(home))["rates"]
        return [now] if rates["processing"] == 1 and rates["decode_tok_s"] else []

    busy = until(shown, "a rate is shown")[0]
    assert [row["outcome"] for row in busy["requests"]][:1] in (["running"], ["complete"])
    assert any(slot["decoded_tokens"] for slot in busy["slots"])
    assert busy["slots"][0]["context_tokens"] > 0
    row = until(lambda: [row for row in frame(home)["requests"] if row["output_tokens"]], "its tokens are counted")[0]
    assert row["outcome"] == "complete" or 0 < row["output_tokens"] <= tokens
    stream.join()
    after = until(lambda: [each for each in (frame(home),) if each["rates"]["processing"] == 0], "it is idle again")[0]
    until(lambda: frame(home)["rates"]["decode_tok_s"] == 0.0, "the rate falls to zero")
    assert after["requests"][0]["output_tokens"] == results[0].tokens
    points = [each for each in frame(home)["points"] if each["at_s"] >= began and each["decode_tok_s"]]
    # A second's sample may have caught but a part of a stream of some seconds.
    assert points and max(each["decode_tok_s"] for each in points) > results[0].tok_s / 4


def test_a_frame_has_everything_that_its_contract_names(served: Home) -> None:
    served.complete(PROMPT, 50)

    def sampled() -> list[Any]:
        now = frame(served)
        return [now] if now["slots"] and now["host"]["model_mib"] and now["host"]["engine_rss_mib"] else []

    shown = until(sampled, "all of it was sampled")[0]
    for value, kind in (
        (shown, TopFrame),
        (shown["rates"], Rates),
        (shown["gpus"][0], GpuFigures),
        (shown["host"], HostFigures),
        (shown["requests"][0], RequestRow),
    ):
        assert value.keys() >= kind.__annotations__.keys()

    row = shown["requests"][0]
    assert (row["profile"], row["engine"], row["outcome"]) == (served.status()["profile"], "embedded", "complete")
    assert row["build"] and row["output_tokens"] == 50
    host = shown["host"]
    assert 0 < host["model_resident_mib"] <= host["model_mib"]
    assert 10 < host["engine_rss_mib"] < host["memory_total_mib"]
    assert shown["margin_origin"] is None and shown["attempts"][-1]["outcome"] == "ready"


def test_speculation_is_shown_from_the_engine_s_own_counts(home: Home) -> None:
    run(home, "mtp")
    frame(home)
    answer = home.complete(PROMPT, 200)["timings"]
    shown = until(lambda: [each for each in (frame(home),) if each["rates"]["draft_acceptance"]], "it is counted")[0]
    row = shown["requests"][0]
    assert (row["draft_tokens"], row["draft_accepted"]) == (answer["draft_n"], answer["draft_n_accepted"])
    assert 0.0 < shown["rates"]["draft_acceptance"] <= 1.0


def test_the_engine_s_part_of_a_device_is_told_apart(served: Home) -> None:
    card = until(lambda: [each for each in frame(served)["gpus"] if each["engine_mib"]], "the engine is found")[0]
    assert (card["engine_mib"], card["others_mib"]) == (10000, 800)
    assert (card["used_mib"], card["utilization"], card["throttle"]) == (11000, 0.97, ["power_cap"])
    assert card["power_w"] is None and card["pcie_rx_mib_s"] is None
    profile = served.status()["profile"]
    for report in (served.control("/v1/vram"), served.orch_json("vram")):  # of the daemon, and by the command itself
        (device,) = report["devices"]
        held = [(each["kind"], each["name"], each["mib"]) for each in device["holders"]]
        assert held[0] == ("orch", profile, 10_000) and [mib for *_, mib in held] == [10_000, 700]
        assert (device["reserved_mib"], device["untold_mib"], device["counted_twice_mib"]) == (200, 100, 0)


def test_an_engine_that_does_not_answer_holds_nobody_up(home: Home) -> None:
    """Stopped, as it is to others while it computes a long batch: the devices go on being sampled."""
    run(home, "llama")
    frame(home)
    url, pid = home.url, home.status()["pid"]
    enough = threading.Event()
    stream = threading.Thread(target=lambda: measure(url, PROMPT, 12_000, enough))
    stream.start()
    until(lambda: frame(home)["rates"]["processing"], "the stream runs")
    os.kill(pid, signal.SIGSTOP)
    try:
        before = len(frame(home)["points"])
        for _ in range(3):
            began = time.monotonic()
            frame(home)
            assert in_time(time.monotonic() - began, 1.0)

        until(lambda: len(frame(home)["points"]) > before + 1, "samples are taken")
        assert home.status()["state"] == "ready"
    finally:
        enough.set()
        os.kill(pid, signal.SIGCONT)
        stream.join()


def test_a_frame_of_a_daemon_with_nothing_to_show() -> None:
    with new_home() as home:
        home.env["ORCH_GPU_REPLAY"] = home.write("gpus.json", json.dumps({"samples": [[]]}))
        home.serve()
        shown = frame(home)
        assert (shown["gpus"], shown["slots"], shown["requests"]) == ([], [], [])
        assert shown["rates"] == dict.fromkeys(Rates.__annotations__)
        assert shown["host"]["memory_total_mib"] > 0 and shown["host"]["engine_rss_mib"] is None
        assert shown["status"]["state"] == "stopped"


def test_a_request_that_waits_is_shown_as_held(home: Home) -> None:
    run(home, "llama")
    url = home.url
    switch = home.begin("switch", "mtp", "--strategy", "replace")
    answers: list[Any] = []

    def ask() -> None:
        body = {"prompt": PROMPT, "n_predict": 4}
        while not any(row["outcome"] == "held" for row in seen) and len(answers) < 200:
            answers.append(home.request("POST", "/completion", body, url=url)[0])

    def look() -> bool:
        seen.extend(frame(home)["requests"])
        return any(row["outcome"] == "held" for row in seen)

    seen: list[Any] = []
    client = threading.Thread(target=ask)
    client.start()
    try:
        until(look, "a request is held")
    finally:
        switch.communicate()
        client.join()

    assert set(answers) == {200}
    held = next(row for row in seen if row["outcome"] == "held")
    assert held["status"] is None and held["engine"] is None and held["held_s"] > 0
