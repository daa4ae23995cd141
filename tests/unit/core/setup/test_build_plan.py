"""What a build is planned from: devices, tools, cores."""

from __future__ import annotations

import pytest

from orchestrator.cli.engine_builds import building
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.build_plan import (
    BACKENDS,
    Backend,
    BuildHost,
    build_id,
    choose_backend,
    cmake_definitions,
    default_jobs,
    wanted_targets,
)

BASICS = {"cmake": "/usr/bin/cmake", "ninja": "/usr/bin/ninja", "cc": "/usr/bin/cc", "c++": "/usr/bin/c++"}
NVCC = {"nvcc": "/usr/local/cuda/bin/nvcc"}
VULKAN = {"glslc": "/usr/bin/glslc", "vulkan headers": "/usr/include/vulkan"}


def machine(programs: dict[str, str], *devices: Backend, apple: bool = False) -> BuildHost:
    return BuildHost(8, 32000, {**BASICS, **programs}, frozenset(devices), ("86", "89"), apple)


@pytest.mark.parametrize(
    ("host", "backend"),
    [
        (machine({}), "cpu"),
        (machine(NVCC), "cpu"),  # a toolkit without a card
        (machine(NVCC, "cuda"), "cuda"),
        (machine({**NVCC, **VULKAN}, "vulkan", "cuda"), "cuda"),
        (machine({"hipcc": "/opt/rocm/bin/hipcc"}, "rocm"), "rocm"),
        (machine(VULKAN, "cuda", "vulkan"), "vulkan"),
        (machine({}, "metal", apple=True), "metal"),
    ],
)
def test_the_fastest_back_end_with_device_and_tools_is_chosen(host: BuildHost, backend: str) -> None:
    choice = choose_backend(host)
    assert choice.backend == backend
    assert choice.reasons[-1].startswith(f"{backend}: there is ")


def test_a_passed_over_card_is_explained() -> None:
    assert choose_backend(machine(VULKAN, "cuda", "vulkan")).reasons[0] == "cuda: there is an NVIDIA card, but no nvcc"


def test_a_card_without_its_toolkit_is_not_silently_built_for_the_processor() -> None:
    with pytest.raises(OrchError) as raised:
        choose_backend(machine({}, "cuda"))

    assert raised.value.hint == "run `sudo apt install nvidia-cuda-toolkit`, or build with `--backend cpu`"
    assert choose_backend(machine({}, "cuda"), "cpu").backend == "cpu"


def test_missing_tools_are_named_with_their_packages() -> None:
    with pytest.raises(OrchError) as raised:
        choose_backend(BuildHost(2, 4000, {"cc": "/usr/bin/cc", "c++": "/usr/bin/c++"}))

    assert raised.value.details == ("not found: cmake, ninja",)
    assert "apt install cmake ninja-build" in str(raised.value.hint)

    with pytest.raises(OrchError, match="a build for vulkan needs") as raised:
        choose_backend(machine({}), "vulkan")

    assert "apt install glslc libvulkan-dev" in str(raised.value.hint)


def test_metal_is_refused_elsewhere() -> None:
    with pytest.raises(OrchError, match="Metal exists on Apple's systems alone"):
        choose_backend(machine({}), "metal")


def test_each_engine_gets_its_own_name_for_rocm() -> None:
    host = machine({"hipcc": "/opt/rocm/bin/hipcc"}, "rocm")
    assert cmake_definitions("upstream", "rocm", host)["GGML_HIP"] == "ON"
    assert cmake_definitions("ik", "rocm", host)["GGML_HIPBLAS"] == "ON"
    assert "GGML_HIP" not in cmake_definitions("ik", "rocm", host)


def test_cuda_is_built_for_the_cards_present() -> None:
    definitions = cmake_definitions("ik", "cuda", machine(NVCC, "cuda"))
    assert definitions["CMAKE_CUDA_ARCHITECTURES"] == "86-real;89-real"
    assert definitions["CMAKE_CUDA_COMPILER"] == NVCC["nvcc"]


@pytest.mark.parametrize("kind", ["upstream", "ik"])
def test_nothing_is_fetched_while_building(kind: str) -> None:
    definitions = cmake_definitions("upstream" if kind == "upstream" else "ik", "cpu", machine({}))
    assert definitions["LLAMA_CURL"] == "OFF"
    if kind == "upstream":
        assert (definitions["LLAMA_BUILD_UI"], definitions["LLAMA_USE_PREBUILT_UI"]) == ("OFF", "OFF")


def test_programs_find_the_libraries_beside_them() -> None:
    assert cmake_definitions("ik", "cpu", machine({}))["CMAKE_INSTALL_RPATH"] == "$ORIGIN"
    assert cmake_definitions("ik", "cpu", machine({}, apple=True))["CMAKE_INSTALL_RPATH"] == "@loader_path"
    assert cmake_definitions("ik", "cpu", machine({}, apple=True))["GGML_METAL"] == "OFF"


def test_ccache_is_used_where_it_is() -> None:
    assert cmake_definitions("ik", "cpu", machine({}))["GGML_CCACHE"] == "OFF"
    assert cmake_definitions("ik", "cpu", machine({"ccache": "/usr/bin/ccache"}))["GGML_CCACHE"] == "ON"


@pytest.mark.parametrize(("cores", "memory_mib", "jobs"), [(2, 24000, 2), (16, 6144, 4), (4, 100, 1), (1, 64000, 1)])
def test_jobs_are_bounded_by_cores_and_memory(cores: int, memory_mib: int, jobs: int) -> None:
    assert default_jobs(cores, memory_mib) == jobs


def test_a_build_is_named_by_what_it_is_made_of() -> None:
    name = build_id("b11434", "cpu", "abc", {"A": "1", "B": "2"})
    assert name.startswith("b11434-cpu-")
    assert build_id("b11434", "cpu", "abc", {"B": "2", "A": "1"}) == name
    assert build_id("b11434", "cpu", "abd", {"A": "1", "B": "2"}) != name
    assert build_id("b11434", "cpu", "abc", {"A": "1", "B": "3"}) != name
    assert build_id("../../x y", "cpu", "abc", {}).startswith("x-y-cpu-")


def test_the_tools_that_a_source_has_are_built_beside_the_server() -> None:
    assert wanted_targets(["all", "rpc-server", "llama-server", "llama-bench"]) == (
        "llama-server",
        "llama-bench",
        "rpc-server",
    )
    with pytest.raises(OrchError, match="no target `llama-server`"):
        wanted_targets(["all", "main"])


def test_the_command_line_allows_the_back_ends_that_there_are() -> None:
    assert building._BACKENDS == BACKENDS
