from __future__ import annotations

import os
import time

from orchestrator.adapters.hardware.host_cpu import CpuTimes, others_share, read_cpu


def test_this_machine_tells_and_our_own_work_is_ours() -> None:
    before = read_cpu(os.getpid())
    worked_until = time.process_time() + 0.2  # of our own time: others may have the CPU meanwhile
    while time.process_time() < worked_until:
        pass

    after = read_cpu(os.getpid())
    assert before is not None and after is not None
    assert after.engine - before.engine >= 10  # of 20
    assert after.total > before.total and after.busy > before.busy
    share = others_share(before, after)
    assert share is not None and 0 <= share <= 1


def test_a_process_that_is_gone_tells_nothing() -> None:
    assert read_cpu(2**22 - 1) is None


def test_too_short_a_time_tells_nothing() -> None:
    times = CpuTimes(100, 1000, 10)
    assert others_share(times, times) is None
    assert others_share(times, CpuTimes(104, 1005, 10)) is None
