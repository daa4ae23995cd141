"""What is kept of the speed of the engines that run: answers that had one, and the machine, to themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.adapters.store.speeds import SpeedStore
from orchestrator.core.health.slowdown import StepSample
from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.speed.forecast import decode_amounts
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart
from orchestrator.core.starts.start import plan_start
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.telemetry.speed_book import SpeedBook
from orchestrator.engines.read_back import ReadBack
from tests.true_geometry import header

pytestmark = pytest.mark.anyio

A3B = geometry_of([header("qwen36-35b-a3b")])
BUILD = PlanBuild("upstream", 11434)
STEP = StepSample(0.0, 100, 10.0, 300.0)


def run_of(name: str = "a.1", *, on_host: int = 0, devices: tuple[str, ...] = ("NVIDIA RTX 3060:12288",)) -> EngineRun:
    """An engine that has put the experts of so many layers on the host by itself."""
    profile = EngineProfile("a", "upstream", "/a.gguf", (), {"context.size": 8192}, Recovery(), ())
    plan = plan_start(A3B, profile, BUILD, devices=1)
    assert plan.fitted
    host = A3B.input_bytes + sum(A3B.trunk[index].expert_bytes for index in range(on_host))
    start = MeasuredStart("b", "m", plan.shape, True, "2026-11-30", (MeasuredDevice("CUDA0", {}),), {"weights": host})
    launch = SimpleNamespace(
        instance=name, target="a@upstream", margin_key=SimpleNamespace(devices=devices),
        rendered=SimpleNamespace(build="b11434"),
    )  # fmt: skip
    return cast(EngineRun, SimpleNamespace(launch=launch, read_back=ReadBack(plan, start, ())))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "speeds.json")


async def kept(path: str, run: EngineRun, steps: list[StepSample]) -> list[Any]:
    book = SpeedBook(path)
    for step in steps:
        book.note(run, step)

    await book.save_due([run.launch.instance])
    return SpeedStore(path).samples()


async def test_five_answers_are_kept_with_what_their_steps_read(path: str) -> None:
    [sample] = await kept(path, run_of(on_host=20), [STEP] * 5)
    assert (sample.key.device, sample.key.build, sample.key.architecture) == ("NVIDIA RTX 3060", "b11434", "qwen35moe")
    shape = replace(run_of().read_back.plan.shape, n_cpu_moe=20)  # type: ignore[union-attr]
    assert sample.amounts == pytest.approx(decode_amounts(A3B, shape, "upstream", depth=300))
    assert (sample.low_ms, sample.high_ms) == (10.0, 10.0)


@pytest.mark.parametrize("disturbed", [{"streams": 1.5}, {"other_cpu": 0.5}, {"steps": 3}])
async def test_an_answer_that_was_disturbed_or_short_is_none(path: str, disturbed: dict[str, Any]) -> None:
    assert await kept(path, run_of(), [replace(STEP, **disturbed)] * 9) == []


async def test_it_is_written_at_the_fifth_the_tenth_and_the_twentieth_answer(path: str) -> None:
    book, run = SpeedBook(path), run_of()
    written = []
    for count in range(1, 25):
        book.note(run, replace(STEP, step_ms=float(count)))
        before = SpeedStore(path).samples()
        await book.save_due(["a.1"])
        if SpeedStore(path).samples() != before:
            written.append(count)

    assert written == [5, 10, 20]


async def test_an_engine_that_said_nothing_of_its_memory_is_not_kept(path: str) -> None:
    silent = cast(EngineRun, SimpleNamespace(launch=run_of().launch, read_back=None))
    assert await kept(path, silent, [STEP] * 5) == []


async def test_a_device_that_no_driver_names_is_not_taken_for_the_host(path: str) -> None:
    assert await kept(path, run_of(devices=()), [STEP] * 5) == []


async def test_instances_that_have_ended_are_forgotten(path: str) -> None:
    book = SpeedBook(path)
    for _ in range(4):
        book.note(run_of(), STEP)

    await book.save_due([])
    book.note(run_of(), STEP)
    await book.save_due(["a.1"])
    assert SpeedStore(path).samples() == []
