"""Which bytes of a file the host reads: as `place` has the layers, within what is mapped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.memory.host_placement import planned_placement
from orchestrator.core.plan.memory.host_spans import FileTensor, HostPart, host_part
from orchestrator.core.plan.shape import ALL, PlanShape
from tests.true_geometry import header

HEADER = header("qwen36-35b-a3b")
GEOMETRY = geometry_of([HEADER])
SHAPE = PlanShape(8192)
WHOLE = {"m.gguf": ((0, 1 << 40),)}


def tensors() -> list[FileTensor]:
    found, at = [], 4096
    for tensor in HEADER.tensors:
        found.append(FileTensor("m.gguf", tensor.name, at, tensor.size_bytes))
        at += tensor.size_bytes

    return found


def size(part: HostPart, which: str = "weights") -> int:
    return sum(length for spans in getattr(part, which).values() for _, length in spans)


def named(*words: str) -> int:
    return sum(tensor.size_bytes for tensor in HEADER.tensors if all(word in tensor.name for word in words))


def test_without_a_device_all_is_on_the_host() -> None:
    part = host_part(tensors(), WHOLE, planned_placement(GEOMETRY, replace(SHAPE, devices=0), "upstream"))
    assert size(part) == named("")
    assert size(part, "experts") == named("_exps.")
    assert part.where == "all layers"
    assert part.weights == {"m.gguf": ((4096, named("")),)}  # one range, as they follow each other


def test_the_experts_of_the_first_layers_and_the_input_embedding_are_on_the_host() -> None:
    part = host_part(tensors(), WHOLE, planned_placement(GEOMETRY, replace(SHAPE, n_cpu_moe=3), "upstream"))
    experts = sum(named(f"blk.{layer}.", "_exps.") for layer in range(3))
    assert size(part, "experts") == experts
    assert size(part) == experts + named("token_embd")
    assert part.where == "experts of layers 0-2"
    assert host_part(tensors(), WHOLE, planned_placement(GEOMETRY, replace(SHAPE, n_cpu_moe=1), "upstream")).where == (
        "experts of layers 0"
    )


def test_layers_that_no_device_has_are_on_the_host_with_everything() -> None:
    shape = replace(SHAPE, gpu_layers=len(GEOMETRY.trunk) - 2, n_cpu_moe=ALL)
    part = host_part(tensors(), WHOLE, planned_placement(GEOMETRY, shape, "ik"))
    first = int(part.where.partition("-")[2].partition(",")[0])
    assert part.where.startswith("layers 0-")
    assert ", experts of layers" in part.where
    attention = sum(named(f"blk.{layer}.", "attn_norm") for layer in range(first + 1))
    assert size(part) > named("_exps.") + attention


def test_only_what_is_mapped_counts() -> None:
    begin, length = 4096 + 10_000, 5_000_000
    part = host_part(tensors(), {"m.gguf": ((begin, length),)}, None)
    assert part.weights == {"m.gguf": ((begin, length),)}
    assert (part.experts, part.where) == (None, "")  # part of it may be on a device
    assert host_part(tensors(), {}, None) == HostPart({}, None)


@pytest.mark.parametrize("name", ["gemma3-12b", "llama31-8b"])
def test_a_dense_model_has_no_experts(name: str) -> None:
    other = header(name)
    found = [FileTensor("m.gguf", each.name, 0, each.size_bytes) for each in other.tensors]
    part = host_part(found, WHOLE, planned_placement(geometry_of([other]), replace(SHAPE, devices=0), "upstream"))
    assert part.experts == {}
