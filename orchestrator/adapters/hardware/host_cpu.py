"""The load of the host's CPUs, by an engine and by others: an engine on the CPU is slow when others take it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.adapters.process.linux import read_proc

LEAST_TICKS = 10
"""Of all CPUs together, 10 ms each on most kernels."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Clock ticks since the boot, of all CPUs together: `engine` is one process's share of `busy`."""

    busy: int
    total: int
    engine: int


def read_cpu(pid: int) -> CpuTimes | None:
    """Read the CPU times; None when the process is gone, or /proc does not tell."""
    whole, process = read_proc("/proc/stat"), read_proc(f"/proc/{pid}/stat")
    if not whole or not process or not whole.startswith(b"cpu "):
        return None

    # proc_stat(5): user nice system idle iowait irq softirq steal; what guests take is in `user` as well.
    ticks = [int(each) for each in whole.split(b"\n", 1)[0].split()[1:9]]
    total = sum(ticks)
    fields = process[process.rindex(b")") + 2 :].split()
    return CpuTimes(total - ticks[3] - ticks[4], total, int(fields[11]) + int(fields[12]))


def others_share(before: CpuTimes, after: CpuTimes) -> float | None:
    """Return the share of all CPUs that other programs took in between, 0 to 1; None after too little time."""
    total = after.total - before.total
    if total < LEAST_TICKS:
        return None

    others = (after.busy - before.busy) - (after.engine - before.engine)
    return min(max(others / total, 0.0), 1.0)
