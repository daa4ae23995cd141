"""The memory axis of `orch tune` on a device that counts bytes, with a real engine and a real model.

The device is upstream's RPC server behind the relay of tests/virtual_gpu, and tells of memory that it does not give.
The engine on the host is a build that was made slower: what is on the device is faster, as on a card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.bench import tuning
from orchestrator.cli.bench_shell import bench_shell
from orchestrator.core.tune.axes import TuneFacts, space_of
from orchestrator.core.tune.space import Space
from orchestrator.engines.registry import Engine
from tests.engines.real_models import fetch
from tests.support import Home, new_home
from tests.virtual_gpu.cards import Card, virtual_gpu
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.server import RpcBuild, rpc_build

pytestmark = [pytest.mark.engine, pytest.mark.timeout(640)]

CARD = Card(620, 120, [])
"""With a margin of 540 MiB two thirds of the model is on it, with 512 most of it, and with 384 all of it is asked for,
which is more than the device gives."""

PROFILE = """\
schema = 1
model = "{model}"
engine = "upstream"

[context]
size = 1024
parallel = 1

[cpu]
threads = 1
threads_batch = 1

[memory]
fit = true
fit_margin = {margin}
rpc = ["{address}"]
"""


@pytest.fixture
def device(upstream: Engine) -> RpcBuild:
    found = rpc_build(upstream.path, upstream.capabilities)
    if isinstance(found, str):
        pytest.skip(found)

    return found


@pytest.fixture
def home(much_slower_upstream: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with new_home() as home:
        home.env["ORCH_ENGINE_UPSTREAM"] = str(much_slower_upstream)
        for name in ("ORCH_HOME", "ORCH_GATEWAY_PORT", "ORCH_FIRST_READING_S", "ORCH_ENGINE_UPSTREAM"):
            monkeypatch.setenv(name, home.env[name])

        yield home


@pytest.fixture
def memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the search go along the memory axis only, and leave out the bench that confirms: all of it takes longer than
    a test may, with an engine this slow.
    """

    def narrowed(facts: TuneFacts, allowed: Sequence[str]) -> Space:
        return Space(tuple(axis for axis in space_of(facts, allowed).axes if axis.kind == "memory"))

    monkeypatch.setattr(tuning, "space_of", narrowed)
    monkeypatch.setattr(tuning, "begin_pair", lambda *words: None)


@pytest.mark.usefixtures("memory_alone")
def test_the_memory_axis_ends_where_a_full_context_survives(home: Home, device: RpcBuild) -> None:
    model = fetch("smollm2")
    if isinstance(model, str):
        pytest.skip(model)

    with virtual_gpu(device, CARD) as relay:
        home.profile("smol", PROFILE.format(model=model, address=relay.address, margin=540))
        home.serve("smol")
        home.ready("smol")
        paths = find_paths({"ORCH_HOME": home.root})
        store = BenchStore(paths.bench_file)
        try:
            with bench_shell(paths, store) as shell:
                report = tuning.begin_tuning(shell, "smol", tuning.TuneOptions(budget_s=240), ["orch", "tune", "smol"])

            full = [each for each in store.events(report["id"]) if each["event"] == "full_context"]
        finally:
            store.close()

        outcomes = {each["settings"]: each["outcome"] for each in report["trials"]}
        assert (outcomes["margin 512 MiB"], outcomes["margin 384 MiB"]) == ("measured", "died"), report["trials"]
        assert report["proposal"] == {"memory.fit_margin": "512"}, report["trials"]
        assert [each["survived"] for each in full] == [True]
        assert relay.memory.refused_bytes(), "what died was refused memory"
        assert relay.memory.peak_bytes() <= CARD.granted * MIB
        home.ready("smol")

        home.orch("down")
        refused = len(relay.memory.refused_bytes())
        home.profile("smol", PROFILE.format(model=model, address=relay.address, margin=512))
        home.orch("up", "smol")
        assert home.ready("smol")["margin_mib"] == 512, "the first start of the ladder"
        body = {"prompt": "count " * 900, "n_predict": 32, "temperature": 0, "ignore_eos": True}
        status, _, answer = home.request("POST", "/completion", body)
        assert (status, json.loads(answer)["tokens_predicted"]) == (200, 32)
        assert len(relay.memory.refused_bytes()) == refused, "with the proposal nothing is refused"
        assert 64 * MIB < relay.memory.used_bytes() <= CARD.granted * MIB
        home.orch("down")
