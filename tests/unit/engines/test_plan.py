"""What a plan is made of, gathered from a profile, an engine and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import read_gguf
from orchestrator.core.engine_log.projection import Projection
from orchestrator.core.plan.plan import DeviceRoom
from orchestrator.core.plan.shape import ALL
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.engines.plan import build_of, devices_used, gather
from orchestrator.engines.plan_projected import projected_needs
from tests.true_geometry import write

ROOMS = tuple(DeviceRoom(f"card {index}", 1000 * index, 1000 * index) for index in range(3))


def profile(model: str, settings: Mapping[str, Value], engine: str = "upstream") -> EngineProfile:
    return EngineProfile("p", engine, model, (), settings, Recovery(), ())


def test_a_profile_becomes_a_shape_and_its_files_a_geometry(tmp_path: Path) -> None:
    model, drafter = tmp_path / "model.gguf", tmp_path / "drafter.gguf"
    write(model, "llama31-8b")
    write(drafter, "llama32-3b")
    settings: dict[str, Value] = {"context.size": 16384, "kv.k": "q8_0", "speculative.draft_model": str(drafter)}
    subject = gather(profile(str(model), settings), None, [read_gguf(str(model))])
    assert (subject.shape.context_tokens, subject.shape.kv_k, subject.shape.kv_v) == (16384, "q8_0", "f16")
    assert subject.geometry.block_count == 32
    assert subject.drafter is not None and subject.drafter.block_count == 28
    assert subject.drafter_bytes > 1 << 30


def test_files_beside_the_model_that_cannot_be_read_are_left_to_the_checks(tmp_path: Path) -> None:
    model, junk = tmp_path / "model.gguf", tmp_path / "junk.gguf"
    write(model, "llama31-8b")
    junk.write_bytes(b"nothing")
    settings: dict[str, Value] = {"multimodal.mmproj": str(junk), "speculative.draft_model": str(tmp_path / "absent")}
    subject = gather(profile(str(model), settings), None, [read_gguf(str(model))])
    assert (subject.projector_bytes, subject.drafter_bytes, subject.drafter) == (0, 0, None)


@pytest.mark.parametrize(("name", "kind"), [("upstream", "upstream"), ("ik-fork", "ik"), ("embedded", "upstream")])
def test_an_engine_that_is_not_installed_is_planned_as_its_newest_build(name: str, kind: str) -> None:
    assert build_of(None, name) == (kind, None)


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({}, [0, 1, 2]),
        ({"memory.devices": ("CUDA1",)}, [1]),
        ({"memory.devices": ("CUDA2", "CUDA0")}, [2, 0]),
        ({"memory.devices": ("Vulkan",)}, [0]),
        ({"memory.split": "none"}, [0]),
        ({"memory.split": "none", "memory.main_gpu": 2}, [2]),
        ({"memory.split": "layer"}, [0, 1, 2]),
    ],
)
def test_the_devices_are_those_that_the_settings_name(settings: Mapping[str, Value], used: list[int]) -> None:
    assert list(devices_used(settings, ROOMS)) == [ROOMS[index] for index in used]


@pytest.mark.parametrize(
    ("overrides", "layers"),
    [
        (("exps=CPU",), ALL),
        (("nothing_is_called_so=CPU",), 0),
        ((r"blk\.\d+\.ffn_.*_exps\.=CPU",), ALL),
        ((r"blk\.([0-9])\.ffn_.*_exps=CPU",), 10),
        ((r"blk\.(3[0-9])\.ffn_.*_exps=CPU",), 10),  # the last ones: as many, and of nearly the same size
        ((r"blk\.[0-4]\.ffn_(up|down|gate)_exps=CPU", r"blk\.[5-6]\.ffn_.*exps=CPU"), 7),
    ],
)
def test_experts_that_overrides_put_on_the_host_are_planned_there(
    tmp_path: Path, overrides: tuple[str, ...], layers: int
) -> None:
    model = tmp_path / "model.gguf"
    write(model, "qwen36-35b-a3b")
    subject = gather(profile(str(model), {"memory.tensor_overrides": overrides}), None, [read_gguf(str(model))])
    assert (subject.shape.n_cpu_moe, subject.geometry.gaps) == (layers, ())


@pytest.mark.parametrize("override", ["ffn_up_exps=CPU", "attn_k=CPU", "exps=CUDA1", "(=CPU", "token_embd=CUDA0"])
def test_other_overrides_leave_the_plan_open(tmp_path: Path, override: str) -> None:
    model = tmp_path / "model.gguf"
    write(model, "qwen36-35b-a3b")
    subject = gather(profile(str(model), {"memory.tensor_overrides": (override,)}), None, [read_gguf(str(model))])
    assert subject.geometry.gaps == (f"tensor_overrides {override}",)
    assert subject.needs()(subject.shape).device_total().is_open


def test_what_the_engine_projects_goes_before_the_formula_for_that_shape(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write(model, "qwen36-35b-a3b")
    settings: dict[str, Value] = {"memory.n_cpu_moe": 20, "speculative.type": "mtp", "context.size": 8192}
    subject = gather(profile(str(model), settings), None, [read_gguf(str(model))])
    projection = Projection(compute={"CUDA0": 333 << 20, "host": 99 << 20})
    need = projected_needs(subject.needs(), subject.shape, projection)
    parts = need(subject.shape).devices[0]
    assert (parts["compute"].low_mib, parts["compute"].high_mib) == (333, 335)
    assert "draft_compute" not in parts
    assert parts["weights"] == subject.needs()(subject.shape).devices[0]["weights"]
    other = replace(subject.shape, context_tokens=4096)
    assert need(other) == subject.needs()(other)
