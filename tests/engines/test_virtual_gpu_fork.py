"""The ladder on the real fork: its own fit, its allocator, its failing lines, and its own `rpc-server`.

The fork's build for the processor counts the processor as its first device, and in 0.1.5 it takes a device's place in
the list for its number: without `memory.devices` in this order the layers meant for the remote device stay in host
memory (docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.engines.known.model import known_model, write_known_model
from orchestrator.engines.registry import Engine
from tests.support import Home, new_home, until
from tests.virtual_gpu.cards import Card, events, refused_in, settled, tried, virtual_gpu
from tests.virtual_gpu.experts import write_experts_model
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.server import RpcBuild, rpc_build

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PROFILE = """
schema = 1
model = "{model}"

[engine]
default = "ik-fork"

[context]
size = {context}
parallel = 1
{shift}

[batch]
size = {ubatch}
ubatch = {ubatch}

[kv]
k = "{kv}"

[cpu]
threads = 1

[memory]
{placement}
rpc = ["{address}"]
devices = ["CPU", "RPC0[{address}]"]

[recovery]
margins = {margins}
then = {then}
"""

LAYERS = 8
DENSE = Card(30, 20, [4, 8, 12, 16])
"""Layers of 0.75 MiB with 4 MiB of KV cache each: the fit leaves as many in host memory as do not fit."""

EXPERTS = Card(20, 10, [4, 8, 14])
"""Four layers of 3 MiB of experts and 0.9 MiB besides: the fit moves experts to host memory."""


@pytest.fixture
def build(fork: Engine) -> RpcBuild:
    found = rpc_build(fork.path, fork.capabilities)
    if isinstance(found, str):
        pytest.skip(found)

    return found


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model") / "dense.gguf")
    write_known_model(path, "llama", layers=LAYERS)
    return path


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model") / "experts.gguf")
    write_experts_model(path, layers=4)
    return path


@pytest.fixture
def home(build: RpcBuild) -> Iterator[Home]:
    with new_home() as home:
        home.env["ORCH_ENGINE_IK_FORK"] = build.llama_server
        home.serve()
        yield home


def write_profile(
    home: Home,
    model: str,
    address: str,
    card: Card,
    *,
    context: int = 8192,
    kv: str = "f16",
    shift: bool = False,
    fit: bool = True,
    then: str = "[]",
) -> None:
    text = PROFILE.format(
        model=model,
        address=address,
        margins=card.margins,
        ubatch=card.ubatch,
        context=context,
        kv=kv,
        shift="shift = true" if shift else "",
        placement="fit = true" if fit else 'gpu_layers = "all"',
        then=then,
    )
    home.profile("fitted", text)


def assert_answers(home: Home) -> None:
    truth = known_model("llama")
    assert home.complete("A supervisor", 60)["content"] == truth.greedy_text("A supervisor", 60)


def test_the_forks_fit_and_the_ladder_find_the_margin_that_survives(build: RpcBuild, home: Home, dense: str) -> None:
    """The KV cache is refused without a size in the log, then a compute buffer with one, then it starts."""
    with virtual_gpu(build, DENSE) as relay:
        write_profile(home, dense, relay.address, DENSE)
        status = settled(home)
        assert tried(status) == [(4, "device_oom"), (8, "device_oom"), (12, "ready")]
        cache, buffers, _ = status["attempts"]
        assert "failed to allocate buffer for kv cache" in cache["evidence"]
        assert refused_in(buffers["evidence"]) == relay.memory.refused_bytes()[1]
        assert len(relay.memory.refused_bytes()) == 2
        assert [each["next"] for each in (cache, buffers)] == ["try margin 8 MiB", "try margin 12 MiB"]
        assert 0 < relay.memory.peak_bytes() <= DENSE.granted * MIB
        assert_answers(home)

        home.orch("down")
        until(lambda: any("survived with margin 12 MiB" in line for line in events(home)), "the margin is learned")
        until(lambda: relay.memory.used_bytes() == 0, "the engine's device memory is free")
        assert tried(settled(home)) == [(12, "ready")]
        assert len(relay.memory.refused_bytes()) == 2
        home.orch("down")


def test_the_forks_fit_moves_experts_until_they_survive(build: RpcBuild, home: Home, experts: str) -> None:
    with virtual_gpu(build, EXPERTS) as relay:
        write_profile(home, experts, relay.address, EXPERTS, context=1024)
        status = settled(home)
        assert tried(status) == [(4, "device_oom"), (8, "device_oom"), (14, "ready")], status["attempts"]
        assert "Failed to allocate buffer type RPC0" in status["attempts"][0]["evidence"]
        assert 0 < relay.memory.peak_bytes() <= EXPERTS.granted * MIB
        assert_answers(home)
        home.orch("down")


def test_experts_are_moved_by_the_steps_that_the_profile_allows_where_nothing_is_fitted(
    build: RpcBuild, home: Home, experts: str
) -> None:
    card = EXPERTS._replace(margins=[])
    with virtual_gpu(build, card) as relay:
        then = '["n_cpu_moe:1", "n_cpu_moe:2", "n_cpu_moe:3"]'
        write_profile(home, experts, relay.address, card, context=1024, fit=False, then=then)
        status = settled(home)
        assert [outcome for _, outcome in tried(status)] == [*["device_oom"] * 3, "ready"], status["attempts"]
        steps = ["n_cpu_moe:1", "n_cpu_moe:2", "n_cpu_moe:3"]
        assert [each["steps"] for each in status["attempts"]] == [steps[:count] for count in range(4)]
        assert 0 < relay.memory.peak_bytes() <= card.granted * MIB
        assert_answers(home)
        home.orch("down")


def test_memory_that_runs_out_while_the_fork_serves_climbs(build: RpcBuild, home: Home, dense: str) -> None:
    """A context shift over a quantised K cache needs a copy of it in 32 bits: an allocation in the middle of serving.

    The fork does not look at what the allocation gave, and ends with SIGSEGV. The request that met it is replayed.
    """
    card = Card(10, 10, [1, 4, 8], ubatch=16)
    with virtual_gpu(build, card) as relay:
        write_profile(home, dense, relay.address, card, context=512, kv="q8_0", shift=True)
        assert tried(settled(home)) == [(1, "ready")]
        relay.memory.grant(relay.memory.used_bytes() - 1)
        count = 600
        answer = home.complete("A supervisor", count)
        assert answer["tokens_predicted"] == count
        assert answer["content"] == known_model("llama").greedy_text("A supervisor", count)

        status = home.status()
        assert tried(status)[0] == (1, "device_oom")
        assert tried(status)[-1][1] == "ready" and status["margin_mib"] > 1
        assert refused_in(status["attempts"][0]["evidence"]) == relay.memory.refused_bytes()[0]
        home.orch("down")


def test_when_the_forks_fit_cannot_place_the_model_the_start_fails_and_says_why(
    build: RpcBuild, home: Home, experts: str
) -> None:
    """A margin that leaves less than the layers take without their experts: no larger one can help."""
    card = EXPERTS._replace(margins=[18, 19])
    with virtual_gpu(build, card) as relay:
        write_profile(home, experts, relay.address, card, context=1024)
        status = settled(home)
        assert status["state"] == "failed"
        assert tried(status) == [(18, "device_oom")]
        assert "still greater than available memory" in status["attempts"][0]["evidence"]
        assert status["attempts"][0]["next"] == "give up: the ladder has no further step"
        assert relay.memory.peak_bytes() == 0
