"""The plan against the bytes that real engines allocate, on a device that counts them and a model without weights."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.core.dialect.render import render
from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.loaded_memory import HOST
from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.memory.host_placement import fitted_placement
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.solve import needs
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart, contradictions, learned_needs
from orchestrator.core.starts.start import plan_start
from orchestrator.engines.registry import Engine
from tests import true_geometry
from tests.engines.serving import started
from tests.support import new_home, until
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.null_device import NullDevice, null_device

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

CARD_MIB = 60000
READY_S = 60.0


class Pair(NamedTuple):
    """A geometry and what is set beside the defaults; without `mtp` the file has no MTP block."""

    geometry: str
    settings: dict[str, Value]
    quant: str = "iq4_xs"
    mtp: bool = False


Q8: dict[str, Value] = {"kv.k": "q8_0", "kv.v": "q8_0"}
Q4: dict[str, Value] = {"kv.k": "q4_0", "kv.v": "q4_0"}
MTP: dict[str, Value] = {"speculative.type": "mtp", "speculative.draft_max": 3}

BOTH = (
    Pair("small-dense-1b", {"context.size": 4096}),
    Pair("small-dense-1b", {"context.size": 32768, **Q8}),
    Pair("small-dense-1b", {"context.size": 65536, "batch.ubatch": 2048}),
    Pair("small-dense-1b", {"context.size": 16384, "batch.ubatch": 128, **Q4}),
    Pair("small-dense-300m", {"context.size": 8192}),
    Pair("small-deep-600m", {"context.size": 16384, **Q8}),
    Pair("small-moe-1b", {"context.size": 8192}),
    Pair("small-moe-1b", {"context.size": 65536, "batch.ubatch": 1024, **Q8}),
    Pair("small-moe-1b", {"context.size": 32768}, quant="q4_k_m"),
    Pair("llama32-3b", {"context.size": 8192}),
    Pair("llama32-3b", {"context.size": 131072, **Q8}),
    Pair("llama32-3b", {"context.size": 32768, "batch.ubatch": 256}, quant="q4_k_m"),
    Pair("qwen35-4b", {"context.size": 16384}),
    Pair("qwen35-4b", {"context.size": 65536, **Q8}),
)
UPSTREAM = (
    Pair("small-dense-1b", {"context.size": 16384, "context.parallel": 4}),
    Pair("small-dense-1b", {"context.size": 16384, "context.parallel": 4, "context.unified_kv": True, **Q8}),
    Pair("qwen35-4b", {"context.size": 32768, **MTP}, mtp=True),
    Pair("qwen35-4b", {"context.size": 8192, "context.parallel": 2, **Q8, **MTP}, mtp=True),
    Pair("qwen35-4b", {"context.size": 32768}, mtp=True),
)


@dataclass(frozen=True)
class Counted:
    """One start: the middle and the upper bound of its plan, what was counted, and what the read-back plans."""

    pair: Pair
    planned_mib: float
    most_mib: float
    counted_mib: float
    learned_mib: float
    changed: tuple[str, ...]

    @property
    def error(self) -> float:
        return abs(self.planned_mib - self.counted_mib)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weightless")


@pytest.fixture
def device(engine: Engine) -> Iterator[NullDevice]:
    with null_device(7 if engine.capabilities.kind == "upstream" else 3, CARD_MIB) as device:
        yield device


def model_of(models: Path, pair: Pair) -> Path:
    path = models / f"{pair.geometry}-{pair.quant}-{pair.mtp}.gguf"
    if not path.exists():
        true_geometry.write(path, pair.geometry, pair.quant, mtp=pair.mtp)

    return path


def profile_of(engine: Engine, pair: Pair, model: Path, device: NullDevice) -> EngineProfile:
    remote: dict[str, Value] = {"memory.rpc": (device.address,), "memory.gpu_layers": "all"}
    if engine.capabilities.kind == "upstream":
        remote["memory.fit"] = False
    else:
        remote["memory.devices"] = ("CPU", f"RPC0[{device.address}]")

    settings: dict[str, Value] = {"context.parallel": 1, "cpu.threads": 1, **remote, **pair.settings}
    return EngineProfile("pair", engine.id, str(model), (), settings, Recovery(), ())


def log_of(engine: Engine, profile: EngineProfile, directory: Path) -> list[str]:
    """What an engine prints until it is ready."""
    argv = render(
        profile, engine.capabilities, build=engine.build, model=profile.model, host="127.0.0.1", port="1",
        api_key_file=None,
    ).argv  # fmt: skip
    at = argv.index("--host")
    with started(engine, directory, *argv[:at], *argv[at + 4 :]) as server:
        until(server.is_ready, f"{profile.model} is ready on {engine.id}", READY_S)
        return server.text().splitlines()


def count(engine: Engine, pair: Pair, models: Path, device: NullDevice, directory: Path) -> Counted:
    model = model_of(models, pair)
    profile = profile_of(engine, pair, model, device)
    argv = render(
        profile,
        engine.capabilities,
        build=engine.build,
        model=str(model),
        host="127.0.0.1",
        port="1",
        api_key_file=None,
    ).argv
    at = argv.index("--host")
    with started(engine, directory, *argv[:at], *argv[at + 4 :]) as server:
        until(server.is_ready, f"{pair} is ready on {engine.id}", READY_S)
        counted = device.memory.used_bytes()
        lines = server.text().splitlines()

    until(lambda: device.memory.used_bytes() == 0, "the engine's device memory is free")
    geometry = geometry_of([true_geometry.header(pair.geometry, pair.quant, mtp=pair.mtp)])
    build = PlanBuild("ik" if engine.capabilities.kind == "ik" else "upstream", engine.capabilities.build_number)
    plan = plan_start(geometry, profile, build, devices=1)
    places = add_records(EngineActivity(), parse_log(lines)).memory.by_place()
    [name] = [place for place in places if place != HOST]
    start = MeasuredStart(
        "b", "m", plan.shape, False, "2026-11-30", (MeasuredDevice(name, places[name]),), places[HOST]
    )
    learned = learned_needs(needs(geometry, build), [start])(plan.shape).engine_total()
    amount = plan.need.engine_total()
    return Counted(
        pair,
        (amount.low_mib + amount.high_mib) / 2,
        amount.high_mib,
        counted / MIB,
        (learned.low_mib + learned.high_mib) / 2,
        tuple(map(str, contradictions(plan.need, start))),
    )


def test_the_plan_is_what_an_engine_allocates_and_after_one_start_to_some_bytes(
    engine: Engine, models: Path, device: NullDevice, tmp_path: Path
) -> None:
    pairs = (*BOTH, *(UPSTREAM if engine.capabilities.kind == "upstream" else ()))
    found = [count(engine, pair, models, device, tmp_path) for pair in pairs]
    for each in found:
        print(  # noqa: T201  (the table, with `-s`)
            f"{engine.id:9} {each.pair.geometry:16} planned {each.planned_mib:9.1f} counted {each.counted_mib:9.1f} "
            f"error {each.error:6.1f} learned {abs(each.learned_mib - each.counted_mib):5.2f} {each.pair.settings}"
        )

    assert statistics.median(each.error / each.counted_mib for each in found) <= 0.01
    assert sorted(each.error for each in found)[int(0.95 * len(found))] <= 150
    assert [each.pair for each in found if each.counted_mib > each.most_mib + 0.1] == [], "no false fit"
    assert max(abs(each.learned_mib - each.counted_mib) for each in found) <= 16
    assert [each.changed for each in found if each.changed] == []


def test_a_start_that_was_read_back_plans_the_next_one(
    engine: Engine, models: Path, device: NullDevice, tmp_path: Path
) -> None:
    pair = Pair("small-dense-1b", {"context.size": 8192, **Q8})
    first, second = (count(engine, pair, models, device, tmp_path) for _ in range(2))
    assert first.learned_mib == pytest.approx(second.counted_mib, abs=16)
    longer = replace(first, pair=Pair("small-dense-1b", {"context.size": 49152, **Q8})).pair
    found = count(engine, longer, models, device, tmp_path)
    assert found.counted_mib <= found.most_mib


@pytest.mark.parametrize("geometry", ["small-dense-1b", "small-moe-1b"])
@pytest.mark.parametrize("card_mib", [250, 500, 700, 3000])
def test_what_a_fit_put_on_the_device_is_told_to_the_tensor(
    engine: Engine, models: Path, tmp_path: Path, geometry: str, card_mib: int
) -> None:
    """The weights that are not on the host, as its lines are understood, are those that the device was given."""
    upstream = engine.capabilities.kind == "upstream"
    if not upstream and geometry == "small-moe-1b" and card_mib < 3000:
        pytest.skip("the fork copies the whole model where its fit moves experts: there is nothing to tell")

    pair = Pair(geometry, {"context.size": 4096, "memory.fit": True, "memory.fit_margin": 100})
    with null_device(7 if upstream else 3, card_mib) as device:
        settings = profile_of(engine, pair, model_of(models, pair), device).settings
        chosen = {key: value for key, value in settings.items() if key != "memory.gpu_layers"}
        profile = replace(profile_of(engine, pair, model_of(models, pair), device), settings=chosen)
        lines = log_of(engine, profile, tmp_path)

    header = true_geometry.header(geometry, pair.quant)
    build = PlanBuild("ik" if engine.capabilities.kind == "ik" else "upstream", engine.capabilities.build_number)
    plan = plan_start(geometry_of([header]), profile, build, devices=1)
    assert plan.fitted
    activity = add_records(EngineActivity(), parse_log(lines))
    placed = fitted_placement(activity.fitted, plan.geometry, plan.shape, build.kind)
    assert placed is not None
    on_device = sum(tensor.size_bytes for tensor in header.tensors if not placed.has(tensor.name))
    given = sum(row["weights"] for place, row in activity.memory.by_place().items() if place != HOST)
    assert on_device == pytest.approx(given, rel=0.001, abs=MIB), placed.where


SMALL_CARD = """
schema = 1
model = "{model}"
engine = "{engine}"

[context]
size = 16384
parallel = 1

[cpu]
threads = 1

[memory]
fit = true
fit_margin = {margin}
rpc = ["{address}"]
{devices}

[speculative]
type = "{speculation}"

[recovery]
margins = [{margin}]
"""


def test_a_margin_is_what_stays_free_and_a_start_is_read_back(engine: Engine, models: Path) -> None:
    """Half the model fits: what stays free is the margin and less than a layer, whatever the engine's fit forgets."""
    upstream = engine.capabilities.kind == "upstream"
    margin, card = 700, 2800
    model = model_of(models, Pair("qwen35-4b", {}, mtp=upstream))
    with null_device(7 if upstream else 3, card) as device, new_home() as home:
        variable = "ORCH_ENGINE_UPSTREAM" if upstream else "ORCH_ENGINE_IK_FORK"
        home.env[variable] = engine.path
        devices = "" if upstream else f'devices = ["CPU", "RPC0[{device.address}]"]'
        text = SMALL_CARD.format(
            model=model, engine=engine.id, margin=margin, address=device.address, devices=devices,
            speculation="mtp" if upstream else "none",
        )  # fmt: skip
        home.profile("half", text)
        home.serve()
        home.orch("up", "half", timeout_s=120)
        status = home.ready("half")
        assert [attempt["outcome"] for attempt in status["attempts"]] == ["ready"]
        free_mib = device.memory.told()[0] / MIB
        # A layer; on the fork the logits, too: with the output layer on the host they are not on the device.
        assert margin - 16 <= free_mib <= margin + (220 if upstream else 560), free_mib

        def read_back() -> list[Any]:
            return [row for row in home.status()["memory"] if row["measured_mib"] is not None]

        rows = {(row["place"], row["component"]): row for row in until(read_back, "it is read back")}
        on_device = sum(row["measured_mib"] for (place, _), row in rows.items() if place != HOST)
        assert on_device == pytest.approx(card - free_mib, abs=1)
        cached = home.status()["page_cache"]
        assert cached["where"].startswith("layers 0-"), cached
        host_mib = rows[HOST, "weights"]["measured_mib"]  # the range of the file from the first to the last
        assert 0.5 * host_mib < cached["part_mib"] <= host_mib + 1
        assert cached["experts_mib"] == 0
        assert not [line for line in home.orch("events").stdout.splitlines() if "plan_contradicted" in line]
        rendered = home.orch("profile", "render", "half")
        assert "memory.fit_margin is passed as" in rendered.stdout + rendered.stderr
        home.orch("down")
