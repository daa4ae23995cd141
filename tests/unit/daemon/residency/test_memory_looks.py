"""Looks at recorded devices and at processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader, GpuReading
from orchestrator.adapters.hardware.gpu_replay import Replay
from orchestrator.adapters.hardware.host import available_memory_bytes
from orchestrator.adapters.paths import Paths, make_directories
from orchestrator.adapters.process import linux
from orchestrator.adapters.process.child import Child, Exit
from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.quantities import MIB
from orchestrator.core.residency.memory_ledger import ProfileNeed
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.residency import memory_looks
from orchestrator.daemon.residency.memory_looks import MemoryLooks
from orchestrator.daemon.residency.memory_needs import CHECK_S, KnownNeed, NeedBook
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.read_back import ReadBack, keep
from orchestrator.engines.registry import EngineRegistry, engine_key
from tests import true_geometry
from tests.unit.engines.engine_scripts import UPSTREAM, engine, paths_below

pytestmark = pytest.mark.anyio

HOLDS_40_MIB = "x = bytearray(b'x' * (40 << 20)); print('there', flush=True); input()"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    found = paths_below(tmp_path)
    make_directories(found)
    os.makedirs(found.profiles, exist_ok=True)
    monkeypatch.setenv("ORCH_ENGINE_UPSTREAM", str(engine(tmp_path / "llama-server", UPSTREAM)))
    true_geometry.write(tmp_path / "big.gguf", "llama31-8b")
    write_known_model(str(tmp_path / "small.gguf"), "llama")
    return found


@dataclass(frozen=True)
class Lab:
    """A home, the engines that run in it, and the devices."""

    models: Path
    paths: Paths
    gpus: GpuReader
    runs: EngineRuns

    def profile(self, name: str, model: str, text: str = "") -> Target:
        path = self.models / f"{model}.gguf"
        head = f'schema = 1\nmodel = "{path}"\nengine = "upstream"\n[context]\nsize = 8192\n'
        Path(self.paths.profiles, f"{name}.toml").write_text(head + text)
        return Target(name, "upstream")

    def run(self, target: Target, pid: int, *, ready: bool = True) -> EngineRun:
        """Return an engine of a target that runs as this process; it has told nothing yet."""
        launch = Preparer(self.paths, self.gpus).prepare(f"s-{target.profile}.1", target, None)
        run = EngineRun(launch, alone=True)
        stat = linux.stat_of(pid)
        assert stat is not None
        run.child = cast(Child, OneProcess(pid, stat.start_ticks))
        self.runs.add(run)
        return run

    async def look(self, *targets: Target) -> MemoryLook:
        found = await MemoryLooks(self.paths, self.gpus, self.runs).look(targets)
        assert found is not None
        return found


@dataclass
class OneProcess:
    """What a look asks of a child."""

    pid: int
    start_time_ticks: int
    exit: object = None


def lab(paths: Paths, tmp_path: Path, devices: list[dict[str, object]]) -> Lab:
    recording = tmp_path / "devices.json"
    recording.write_text(json.dumps({"samples": [devices]}))
    return Lab(tmp_path, paths, GpuReader((Replay(str(recording)),), max_age_s=0.0), EngineRuns())


def told(run: EngineRun, devices: dict[str, dict[str, int]], host_mib: int) -> MeasuredStart:
    """Have an engine tell what it took, in MiB."""
    assert run.launch.plan is not None
    measured = tuple(
        MeasuredDevice(name, {each: mib * MIB for each, mib in sizes.items()}) for name, sizes in devices.items()
    )
    start = MeasuredStart(
        run.launch.margin_key.build,
        "m",
        run.launch.plan.shape,
        False,
        "2026-11-30",
        measured,
        {"weights": host_mib * MIB},
    )
    run.read_back = ReadBack(run.launch.plan, start, ())
    return start


@pytest.fixture
def process() -> Iterator[int]:
    """The pid of a process that has 40 MiB."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS_40_MIB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None and child.stdout.readline() == b"there\n"
    yield child.pid
    child.communicate(b"\n", timeout=10)


async def test_two_devices_are_free_needed_and_held_by_their_index(paths: Paths, tmp_path: Path, process: int) -> None:
    here = lab(
        paths,
        tmp_path,
        [
            {"index": 0, "name": "RTX 3060", "used_mib": 3400, "total_mib": 12288, "processes": {str(process): 3100}},
            {"index": 1, "name": "RTX 3090", "used_mib": 900, "total_mib": 24576, "processes": {}},
        ],
    )
    loaded, wanted = here.profile("loaded", "small"), here.profile("wanted", "big", "[memory]\nfit_margin = [700, 900]")
    here.run(loaded, process)
    found = await here.look(wanted)
    assert {place: mib for place, mib in found.free.items() if place != "host"} == {
        "gpu0": 12288 - 3400 - 700, "gpu1": 24576 - 900 - 900,
    }  # fmt: skip
    assert set(found.needs) == {"loaded", "wanted"}
    assert 2500 < found.needs["wanted"]["gpu0"] < 5000 and 2500 < found.needs["wanted"]["gpu1"] < 5000
    assert found.holds["loaded"]["gpu0"] == 3100
    assert 40 <= found.holds["loaded"]["host"] < 200


async def test_what_the_last_start_took_is_needed_and_another_device_than_the_plan_s_is_known_by_it(
    paths: Paths, tmp_path: Path
) -> None:
    devices = [{"index": 0, "name": "A", "used_mib": 0, "total_mib": 24576}]
    here = lab(paths, tmp_path, [*devices, {"index": 1, "name": "B", "used_mib": 0, "total_mib": 24576}])
    wanted = here.profile("wanted", "big", "[memory]\ngpu_layers = 'all'\n")
    planned = (await here.look(wanted)).needs["wanted"]
    assert set(planned) == {"gpu0", "gpu1", "host"}

    # Where the driver shows the engine one card only, it says so once it was started.
    launch = Preparer(paths, here.gpus).prepare("s.1", wanted, None)
    planner = launch.planner
    assert planner is not None
    plan = planner.plan(launch.profile, 1, by_formula=True)
    assert plan is not None
    sizes = {
        name: amount.high_bytes + 512 * MIB * (name == "compute") for name, amount in plan.whole.devices[0].items()
    }
    path = str(tmp_path / "big.gguf")
    model = f"big.gguf:{os.stat(path).st_size}:{os.stat(path).st_mtime_ns}"
    engine_found = EngineRegistry(paths).resolve("upstream")
    start = MeasuredStart(
        engine_key(engine_found), model, plan.shape, False, "2026-11-30",
        (MeasuredDevice("CUDA0", {name: size for name, size in sizes.items() if name not in ("overhead", "growth")}),),
        {},
    )  # fmt: skip
    keep(paths, ReadBack(plan, start, ()), launch.profile)
    assert StartStore(paths.starts_file).find(engine_key(engine_found), model) == [start]
    learned = (await here.look(wanted)).needs["wanted"]
    formula = -(-plan.whole.device_total(0).high_bytes // MIB)
    assert set(learned) == {"gpu0", "host"}
    assert learned["gpu0"] == pytest.approx(formula + 512, abs=2)


async def test_a_remote_device_is_unknown_until_an_engine_told_of_it(
    paths: Paths, tmp_path: Path, process: int
) -> None:
    here = lab(paths, tmp_path, [])
    text = "[memory]\nrpc = ['127.0.0.1:5001']\nfit = true\nfit_margin = 2\n"
    one, two = here.profile("one", "small", text), here.profile("two", "small", text)
    looks = MemoryLooks(paths, here.gpus, here.runs)
    first = await looks.look([two])
    assert first is not None
    assert "rpc 127.0.0.1:5001" in first.needs["two"] and set(first.free) == {"host"}

    run = here.run(one, process)
    activity = run.log_cursor.activity
    run.log_cursor.activity = type(activity)(free_mib={"RPC0": 30})
    told(run, {"RPC0": {"weights": 9, "kv": 3}}, 5)
    found = await looks.look([two])
    assert found is not None
    assert found.free["rpc 127.0.0.1:5001"] == 30 - 12 - 2
    assert found.holds["one"]["rpc 127.0.0.1:5001"] == 12

    # It stays known when that engine is gone.
    here.runs.remove(run)
    after = await looks.look([two])
    assert after is not None and after.free["rpc 127.0.0.1:5001"] == 30 - 2


async def test_a_machine_without_devices_has_what_is_available_less_what_is_mapped(
    paths: Paths, tmp_path: Path, process: int
) -> None:
    here = lab(paths, tmp_path, [])
    loaded, wanted = here.profile("loaded", "small"), here.profile("wanted", "big")
    run = here.run(loaded, process)
    plain = (await here.look(wanted)).free["host"]
    assert plain == pytest.approx((available_memory_bytes() >> 20) - 1024, abs=400)

    told(run, {}, 3000)  # of a file of 3000 MiB that is mapped, and of which little is there
    found = await here.look(wanted)
    assert found.holds["loaded"] == {"host": 3000}
    assert found.free["host"] == pytest.approx(plain - 2950, abs=400)
    free_mib = await MemoryLooks(paths, here.gpus, here.runs).free_host_mib()
    assert free_mib == pytest.approx(max(plain - 2950, 0), abs=400)  # a switch reads no more of a model ahead
    assert 4000 < found.needs["wanted"]["host"] < 7000


def test_a_need_is_looked_up_again_once_its_files_have_changed(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = lab(paths, tmp_path, [])
    wanted = here.profile("wanted", "big")
    book = NeedBook(paths)
    looked_up: list[Target] = []
    look_up = NeedBook._look_up

    def counted(self: NeedBook, target: Target, gpus: Collection[GpuReading]) -> object:
        looked_up.append(target)
        return look_up(self, target, tuple(gpus))

    monkeypatch.setattr(NeedBook, "_look_up", counted)
    monkeypatch.setattr("orchestrator.daemon.residency.memory_needs.CHECK_S", 0.0)
    assert CHECK_S > 0
    before = book.need_of(wanted, ())
    assert book.need_of(wanted, ()) == before and len(looked_up) == 1
    here.profile("wanted", "small")
    after = book.need_of(wanted, ())
    assert before is not None and after is not None
    assert after.need.host_mib < before.need.host_mib and len(looked_up) == 2
    Path(paths.profiles, "wanted.toml").write_text("schema = 1")
    assert book.need_of(wanted, ()) is None


async def test_a_disk_that_hangs_holds_up_no_look_and_takes_no_thread_at_each(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_looks, "PATIENCE_S", 0.05)
    here = lab(paths, tmp_path, [{"index": 0, "name": "A", "used_mib": 100, "total_mib": 8192}])
    good, bad = here.profile("good", "small"), here.profile("bad", "small")
    asked: list[Target] = []
    released = threading.Event()

    class Hanging(NeedBook):
        def need_of(self, target: Target, gpus: Sequence[GpuReading]) -> KnownNeed | None:
            asked.append(target)
            if target == bad:
                released.wait(10)

            return KnownNeed(ProfileNeed((("gpu0", 500),)), {})

    try:
        looks = MemoryLooks(paths, here.gpus, here.runs, Hanging(paths))
        for _ in range(3):
            found = await looks.look([bad, good])
            assert found is not None and found.free["gpu0"] == 8192 - 100 - 1024
            assert found.needs == {"good": {"gpu0": 500}}
        assert asked.count(bad) == 1 and asked.count(good) == 3
    finally:
        released.set()


async def test_what_was_read_while_an_engine_ended_is_of_no_moment(paths: Paths, tmp_path: Path, process: int) -> None:
    here = lab(paths, tmp_path, [])
    child = here.run(here.profile("loaded", "small"), process).child

    class Ending(NeedBook):
        def need_of(self, target: Target, gpus: Sequence[GpuReading]) -> KnownNeed | None:
            if child is not None:
                child.exit = cast(Exit, "ended")

            return None

    looks = MemoryLooks(paths, here.gpus, here.runs, Ending(paths))
    assert await looks.look([Target("p", "upstream")]) is None
    found = await looks.look([Target("p", "upstream")])
    assert found is not None and found.holds == {}, "who has ended holds nothing, although he is not forgotten yet"


async def test_a_driver_that_hangs_is_an_unknown_memory(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_looks, "PATIENCE_S", 0.05)
    released = threading.Event()

    class Hanging(GpuReader):
        def read_now(self) -> tuple[GpuReading, ...]:
            released.wait(10)
            return ()

    try:
        assert await MemoryLooks(paths, Hanging(()), EngineRuns()).look([]) is None
    finally:
        released.set()
