"""On which CPUs an engine runs: `cpu.pin` on the machine's topology. Pure.

orch binds the process before the engine is executed, so that every build does the same: upstream has flags that bind
its threads of computing (`--cpu-mask`), the fork has none. One CPU of each core is left to the engine, and it computes
with one thread for each: threads that share a core take its units from one another, and since all wait for the last of
them at each operation, the slowest core sets the pace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.profile.settings import PINS, Value

SAME_KIND = 0.85
"""Least figure of a core over that of the next faster one, while both are of one kind.

Firmware ranks cores of one kind in steps of some percent, and the kernel's highest clocks may follow the ranks: 4.4 to
5.2 GHz for a Ryzen 3700X, whose cores are all alike. Another kind is a gap: a Zen 5c core beside a Zen 5 has 0.65, a
Cortex-A725 beside an X925 0.7.
"""


@dataclass(frozen=True, slots=True)
class LogicalCpu:
    """A CPU of the kernel's that this process may use.

    :param core: the same for those that share a physical core
    :param efficient: of a kind that the kernel itself lists as the slower one (Intel's hybrid processors)
    :param rating: the kernel's capacity of it, or its highest frequency, whichever all have; None where unknown
    """

    number: int
    core: str
    efficient: bool = False
    rating: int | None = None


@dataclass(frozen=True, slots=True)
class Pinning:
    """What `cpu.pin` comes to on a machine.

    :param cpus: that the engine may run on; empty where it is not bound
    :param note: for people
    """

    cpus: tuple[int, ...]
    note: str


def pinning_of(settings: Mapping[str, Value], topology: Sequence[LogicalCpu]) -> Pinning | None:
    """Return on which CPUs an engine runs; None where the profile does not ask.

    :param settings: of the profile; without a number in `cpu.threads` the engine gets one thread for each CPU
    :param topology: empty where the kernel does not tell it
    """
    pin = settings.get("cpu.pin")
    if pin not in PINS:
        return None

    if not topology:
        return Pinning((), f'cpu.pin = "{pin}" has no effect: the kernel does not tell which CPUs share a core here')

    kept = _fast(topology) if pin == "fast_cores" else topology
    cpus = _one_per_core(kept)
    what = "fast core" if len(kept) < len(topology) else "core"
    plural = "s" if len(cpus) > 1 else ""
    note = f'cpu.pin = "{pin}": runs on CPU{plural} {cpu_list(cpus)} of {len(topology)}, one of each {what}'
    if not isinstance(settings.get("cpu.threads"), int):
        note += f", with {len(cpus)} thread{plural}"

    for key in ("cpu.threads", "cpu.threads_batch"):
        threads = settings.get(key)
        if isinstance(threads, int) and threads > len(cpus):
            note += f"; {threads} threads (`{key}`) share them, which is slow: leave `{key}` out"

    return Pinning(cpus, note)


def useful_pins(topology: Sequence[LogicalCpu]) -> dict[str, int]:
    """Return the values of `cpu.pin` that leave out CPUs of this machine, each another set, with how many stay."""
    found: dict[str, int] = {}  # by their number, as the fast ones are among those of all cores
    for pin in PINS:
        pinning = pinning_of({"cpu.pin": pin}, topology)
        if pinning is not None and 0 < len(pinning.cpus) < len(topology) and len(pinning.cpus) not in found.values():
            found[pin] = len(pinning.cpus)

    return found


def cpu_list(cpus: Iterable[int]) -> str:
    """Return numbers of CPUs in the kernel's list format, e.g. `0-3,8` (cpuset(7))."""
    runs: list[list[int]] = []
    for number in sorted(cpus):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])

    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _fast(topology: Sequence[LogicalCpu]) -> Sequence[LogicalCpu]:
    """Return the CPUs of fast cores: all of them where they are of one kind, or nothing is known."""
    if any(cpu.efficient for cpu in topology):
        return [cpu for cpu in topology if not cpu.efficient] or topology

    ratings = [cpu.rating for cpu in topology if cpu.rating is not None]
    if len(ratings) < len(topology):
        return topology

    slowest = max(ratings)
    for rating in sorted(ratings, reverse=True):
        if rating < SAME_KIND * slowest:
            break

        slowest = rating

    return [cpu for cpu, rating in zip(topology, ratings, strict=True) if rating >= slowest]


def _one_per_core(topology: Sequence[LogicalCpu]) -> tuple[int, ...]:
    first: dict[str, int] = {}
    for cpu in topology:
        first.setdefault(cpu.core, cpu.number)

    return tuple(sorted(first.values()))
