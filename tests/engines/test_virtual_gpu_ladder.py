"""The ladder on a real engine: `--fit`, the allocator and the failing lines are llama-server's own.

The device is `ggml-rpc-server` behind the relay of tests/virtual_gpu: it reports more memory than it grants, so that
the engine's fit believes in memory that is not there. The model's output is known, and shows that what survived also
works.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Iterator

import pytest

from orchestrator.adapters.process.ports import free_port
from orchestrator.engines.known.model import known_model, write_known_model
from orchestrator.engines.registry import Engine
from tests.support import Home, new_home, until
from tests.virtual_gpu.cards import Card, events, refused_in, settled, tried, virtual_gpu
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.peers import serving
from tests.virtual_gpu.server import RpcBuild, find_rpc_build, rpc_build

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PROFILE = """
schema = 1
model = "{model}"
engine = "upstream"

[context]
size = 8192
parallel = 1

[batch]
ubatch = {ubatch}

[cpu]
threads = 1

[memory]
fit = true
rpc = ["{address}"]

[speculative]
type = "mtp"
draft_max = 3
draft_p_min = 0.0

[recovery]
margins = {margins}
"""


SMALL = Card(16, 7, [1, 2, 4, 8])
"""With everything on it the model takes 15 MiB; each rung takes a layer or two off."""

BIG_BUFFERS = Card(30, 14, [1, 4, 8, 12], ubatch=512)
"""One compute buffer of 11 MiB is what fails."""

ROOMY = Card(16, 16, [1, 2, 4, 8])


@pytest.fixture(scope="module")
def build(real_builds: dict[str, Engine]) -> RpcBuild:
    """The build of these tests; without it, one that orch finds."""
    mine = real_builds.get("upstream")
    found = find_rpc_build() if mine is None else rpc_build(mine.path, mine.capabilities)
    if isinstance(found, str):
        pytest.skip(found)

    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model") / "known.gguf")
    write_known_model(path)
    return path


@pytest.fixture
def home(build: RpcBuild) -> Iterator[Home]:
    with new_home() as home:
        home.env["ORCH_ENGINE_UPSTREAM"] = build.llama_server
        home.serve()
        yield home


def write_profile(home: Home, model: str, address: str, card: Card) -> None:
    home.profile("fitted", PROFILE.format(model=model, address=address, margins=card.margins, ubatch=card.ubatch))


def assert_answers(home: Home) -> None:
    assert home.complete("A supervisor", 60)["content"] == known_model().greedy_text("A supervisor", 60)


@pytest.mark.parametrize("card", [SMALL, BIG_BUFFERS], ids=["small", "big-buffers"])
def test_the_ladder_climbs_to_the_margin_that_survives_and_the_next_start_begins_there(
    build: RpcBuild, home: Home, model: str, card: Card
) -> None:
    with virtual_gpu(build, card) as relay:
        write_profile(home, model, relay.address, card)
        status = settled(home)
        assert status["state"] == "ready", status["attempts"]
        *failed, last = status["attempts"]
        assert failed and failed[0]["margin_mib"] == card.margins[0]
        assert last["outcome"] == "ready" and last["margin_mib"] == status["margin_mib"]

        # Each attempt names the allocation that the device refused, and the next margin is larger by that at least.
        assert [refused_in(each["evidence"]) for each in failed] == relay.memory.refused_bytes()
        for attempt, following in zip(failed, [*failed[1:], last], strict=True):
            assert attempt["outcome"] == "device_oom"
            margin = attempt["margin_mib"]
            listed = next(each for each in card.margins if each > margin)
            missing = margin + math.ceil(refused_in(attempt["evidence"]) / MIB)
            assert following["margin_mib"] == max(listed, missing)
            assert attempt["next"] == f"try margin {following['margin_mib']} MiB"

        assert 0 < relay.memory.peak_bytes() <= card.granted * MIB

        told = events(home)
        for attempt in status["attempts"]:
            started = f"attempt {attempt['number']}, margin {attempt['margin_mib']} MiB"
            assert any(started in line for line in told), told

        for attempt in failed:
            ended = rf"attempt {attempt['number']}: .*{re.escape(attempt['evidence'])}.*; {attempt['next']}"
            assert any(re.search(ended, line) for line in told), told

        survived = last["margin_mib"]
        assert_answers(home)

        home.orch("down")
        learned = f"survived with margin {survived} MiB"
        until(
            lambda: any(line.startswith("margin_learned") and learned in line for line in events(home)), "it is learned"
        )
        until(lambda: relay.memory.used_bytes() == 0, "the engine's device memory is free")
        refused = relay.memory.refused_bytes()
        assert tried(settled(home)) == [(survived, "ready")]
        assert relay.memory.refused_bytes() == refused
        home.orch("down")


def test_with_enough_memory_the_first_margin_is_kept_and_nothing_is_learned(
    build: RpcBuild, home: Home, model: str
) -> None:
    with virtual_gpu(build, ROOMY) as relay:
        write_profile(home, model, relay.address, ROOMY)
        assert tried(settled(home)) == [(1, "ready")]
        assert 8 * MIB < relay.memory.peak_bytes() <= 15 * MIB, "most of the model, and the margin is free"
        assert not [line for line in events(home) if line.startswith("margin_learned")]
        assert_answers(home)
        home.orch("down")


def test_memory_that_an_engine_leaves_behind_for_seconds_does_not_take_the_next_one_up_the_ladder(
    build: RpcBuild, home: Home, model: str
) -> None:
    """Nothing reads this device: that memory was still taken is in what the engines themselves tell of it."""
    card = Card(20, 20, [])
    with virtual_gpu(build, card, linger_s=4.0) as relay:
        text = PROFILE.format(model=model, address=relay.address, margins=[], ubatch=card.ubatch)
        placed = text.replace("fit = true", 'fit = false\ngpu_layers = "all"')
        home.profile("fitted", placed.replace("margins = []", 'then = ["kv:q4_0"]'))
        first = settled(home)
        assert tried(first) == [(None, "ready")]
        used = relay.memory.used_bytes()
        os.kill(first["pid"], signal.SIGKILL)
        status = until(lambda: home.status()["attempts"][2:] and home.status(), "the start is repeated")
        assert tried(status)[:2] == [(None, "killed"), (None, "device_oom")]
        (kept,) = re.findall(
            r"^try the same again in 10 s: (\d+) MiB were not given back yet", status["attempts"][1]["next"]
        )
        assert int(kept) == pytest.approx(used / MIB, abs=1)
        until(lambda: home.status()["state"] == "ready", "it is ready")
        assert home.status()["attempts"][2]["steps"] == []
        assert_answers(home)
        home.orch("down")


def test_memory_that_runs_out_while_serving_climbs(build: RpcBuild, home: Home, model: str) -> None:
    """Sampling on the device has the engine reserve its compute buffer anew: an allocation in the middle of serving.

    b11434 lives through the failure with its state in disorder, and aborts on the request after it.
    """
    with virtual_gpu(build, ROOMY) as relay:
        write_profile(home, model, relay.address, ROOMY)
        assert tried(settled(home)) == [(1, "ready")]
        relay.memory.grant(relay.memory.used_bytes() - MIB)
        body = {"prompt": "A supervisor", "n_predict": 20, "temperature": 0}
        home.request("POST", "/completion", {**body, "backend_sampling": True})
        home.request("POST", "/completion", body)
        status = until(lambda: home.status()["attempts"][1:] and home.status(), "it is started again")
        assert refused_in(status["attempts"][0]["evidence"]) == relay.memory.refused_bytes()[0]
        assert_answers(home)

        status = home.status()
        assert [outcome for _, outcome in tried(status)] == ["device_oom", "ready"]
        assert status["margin_mib"] > 1
        home.orch("down")


def test_a_build_of_another_version_is_no_matter_of_memory(home: Home, model: str) -> None:
    with serving(hello=bytes([6, 0, 0, 0]) + bytes(24)) as server:
        write_profile(home, model, f"{server.address[0]}:{server.address[1]}", SMALL)
        status = settled(home)
        assert status["state"] == "failed"
        assert tried(status) == [(1, "driver")]
        # The log's thread and the abort race for stderr.
        assert re.search(r"RPC (handshake failed|server version mismatch)", status["attempts"][0]["evidence"])


def test_a_device_that_cannot_be_reached_is_tried_again_with_the_same_margin(
    build: RpcBuild, home: Home, model: str
) -> None:
    port = free_port()
    write_profile(home, model, f"127.0.0.1:{port}", ROOMY)
    home.orch("up", "fitted", "--detach")
    until(lambda: (1, "driver") in tried(home.status()), "the first attempt fails")
    with virtual_gpu(build, ROOMY, port=port):
        until(lambda: home.status()["state"] == "ready", "the engine is ready")
        status = home.status()
        assert {margin for margin, _ in tried(status)} == {1}
        assert "Failed to connect to 127.0.0.1:" in status["attempts"][0]["evidence"]
        home.orch("down")


def test_at_the_top_of_the_ladder_the_start_fails_and_says_so(build: RpcBuild, home: Home, model: str) -> None:
    nothing = SMALL._replace(granted=0, margins=[1, 2])
    with virtual_gpu(build, nothing) as relay:
        write_profile(home, model, relay.address, nothing)
        status = settled(home)
        assert status["state"] == "failed"
        assert {outcome for _, outcome in tried(status)} == {"device_oom"}
        assert status["attempts"][-1]["next"] == "give up: the ladder has no further step"
        assert relay.memory.peak_bytes() == 0
