"""On which CPUs `cpu.pin` keeps an engine, on topologies as the kernels of such machines tell them."""

from __future__ import annotations

import pytest

from orchestrator.core.profile.settings import Value
from orchestrator.core.starts.cpu_pinning import LogicalCpu, Pinning, cpu_list, pinning_of, useful_pins

EVEN = tuple(range(0, 16, 2))

INTEL_8P_16E = (
    *(LogicalCpu(n, f"{n - n % 2}-{n - n % 2 + 1}", rating=5_800_000 if n in (8, 9) else 5_500_000) for n in range(16)),
    *(LogicalCpu(n, str(n), efficient=True, rating=4_300_000) for n in range(16, 32)),
)
"""Core i9-13900K: threads 0 to 15 are pairs on the performance cores, of which one is favoured."""

AMD_SMT = tuple(LogicalCpu(n, f"{n % 8},{n % 8 + 8}", rating=5_050_000) for n in range(16))
"""Ryzen 7 7800X3D."""

AMD_TWO_CCDS = tuple(
    LogicalCpu(n, f"{n % 16},{n % 16 + 16}", rating=5_250_000 if n % 16 < 8 else 5_750_000) for n in range(32)
)
"""Ryzen 9 7950X3D: the half with the large cache is clocked lower."""

RANKED = tuple(LogicalCpu(n, f"{n % 8},{n % 8 + 8}", rating=5_224_000 - 133_000 * (n % 8)) for n in range(16))
"""Ryzen 7 3700X: cores of one kind, whose ranks the kernel has taken into their highest clocks."""

ZEN5_AND_5C = tuple(
    LogicalCpu(n, f"{n % 12},{n % 12 + 12}", rating=5_157_000 if n % 12 < 4 else 3_300_000) for n in range(24)
)
"""Ryzen AI 9 HX 370: no list of the kernel's says which cores are the small ones."""

GB10 = tuple(LogicalCpu(n, str(n), rating=718 if n % 10 < 5 else 1024 - n // 10 * 7) for n in range(20))
"""DGX Spark: capacities of ten Cortex-A725 and ten Cortex-X925 in two clusters."""

PLAIN = tuple(LogicalCpu(n, str(n)) for n in range(2))
"""A virtual machine without SMT, whose kernel knows no frequencies."""


@pytest.mark.parametrize(
    ("topology", "pin", "cpus"),
    [
        (INTEL_8P_16E, "one_per_core", (*EVEN, *range(16, 32))),
        (INTEL_8P_16E, "fast_cores", EVEN),
        (AMD_SMT, "one_per_core", tuple(range(8))),
        (AMD_SMT, "fast_cores", tuple(range(8))),
        (AMD_TWO_CCDS, "one_per_core", tuple(range(16))),
        (AMD_TWO_CCDS, "fast_cores", tuple(range(16))),  # no half of it is of another kind
        (RANKED, "fast_cores", tuple(range(8))),
        (ZEN5_AND_5C, "fast_cores", (0, 1, 2, 3)),
        (GB10, "fast_cores", (5, 6, 7, 8, 9, 15, 16, 17, 18, 19)),
        (PLAIN, "fast_cores", (0, 1)),
        (INTEL_8P_16E[3:9], "fast_cores", (3, 4, 6, 8)),  # a container with some CPUs, which cut a core in two
        (INTEL_8P_16E[20:24], "fast_cores", (20, 21, 22, 23)),  # a container with small cores alone
    ],
)
def test_one_cpu_of_each_core_that_counts(topology: tuple[LogicalCpu, ...], pin: str, cpus: tuple[int, ...]) -> None:
    pinning = pinning_of({"cpu.pin": pin}, topology)
    assert pinning is not None
    assert pinning.cpus == cpus


@pytest.mark.parametrize("settings", [{}, {"cpu.pin": "none"}])
def test_a_profile_that_does_not_ask_is_left_alone(settings: dict[str, Value]) -> None:
    assert pinning_of({**settings, "cpu.threads": 8}, INTEL_8P_16E) is None


def test_where_the_kernel_does_not_tell_nothing_is_bound_and_it_is_said() -> None:
    assert pinning_of({"cpu.pin": "fast_cores"}, ()) == Pinning(
        (), 'cpu.pin = "fast_cores" has no effect: the kernel does not tell which CPUs share a core here'
    )


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, "one of each fast core, with 8 threads"),
        ({"cpu.threads": "auto", "cpu.threads_batch": 8}, "one of each fast core, with 8 threads"),
        ({"cpu.threads": 6}, "one of each fast core"),
        ({"cpu.threads": 24}, "24 threads (`cpu.threads`) share them, which is slow: leave `cpu.threads` out"),
        (
            {"cpu.threads_batch": 9},
            "9 threads (`cpu.threads_batch`) share them, which is slow: leave `cpu.threads_batch` out",
        ),
    ],
)
def test_the_note_says_where_it_runs_and_with_how_many_threads(settings: dict[str, Value], end: str) -> None:
    pinning = pinning_of({"cpu.pin": "fast_cores", **settings}, INTEL_8P_16E)
    assert pinning is not None
    assert pinning.note.startswith('cpu.pin = "fast_cores": runs on CPUs 0,2,4,6,8,10,12,14 of 32, ')
    assert pinning.note.endswith(end)


def test_one_cpu_is_no_plural() -> None:
    pinning = pinning_of({"cpu.pin": "one_per_core"}, AMD_SMT[:1])
    assert pinning is not None
    assert pinning.note == 'cpu.pin = "one_per_core": runs on CPU 0 of 1, one of each core, with 1 thread'


def test_only_what_leaves_out_cpus_is_worth_trying() -> None:
    assert useful_pins(INTEL_8P_16E) == {"one_per_core": 24, "fast_cores": 8}
    assert useful_pins(AMD_TWO_CCDS) == {"one_per_core": 16}
    assert useful_pins(GB10) == {"fast_cores": 10}
    assert useful_pins(PLAIN) == {}
    assert useful_pins(()) == {}


def test_a_list_of_cpus_is_written_as_the_kernel_writes_it() -> None:
    assert cpu_list((8, 0, 1, 2, 3)) == "0-3,8"
