"""What a process waited for a processor, from figures in lines and from the kernel's own."""

from __future__ import annotations

import os

import pytest

from orchestrator.adapters.hardware.run_queue import ThreadTimes, read_threads, waited_ms

MS = 1_000_000


def times(computed_ms: int, waited_ms: int) -> ThreadTimes:
    return ThreadTimes(computed_ms * MS, waited_ms * MS)


def test_the_longest_wait_of_a_thread_that_computes_counts() -> None:
    before = {1: times(100, 10), 2: times(100, 0), 3: times(0, 0)}
    after = {1: times(600, 210), 2: times(500, 300), 3: times(5, 900)}
    assert waited_ms(before, after, 2) == 300, "the third one only serves"


def test_more_threads_than_cpus_wait_for_each_other_and_that_is_not_taken_off() -> None:
    before = dict.fromkeys((1, 2, 3, 4), times(0, 0))
    after = dict.fromkeys((1, 2, 3, 4), times(500, 500))
    assert waited_ms(before, after, 4) == 500
    assert waited_ms(before, after, 2) is None


def test_a_thread_that_is_new_began_with_nothing() -> None:
    assert waited_ms({1: times(100, 10)}, {1: times(101, 10), 2: times(400, 50)}, 2) == 50


def test_where_the_kernel_tells_nothing_nothing_is_known() -> None:
    assert waited_ms({}, {1: times(5, 5)}, 2) is None
    assert waited_ms({1: times(5, 5)}, {}, 2) is None
    assert read_threads(2**22 + 1) == {}


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this kernel has no schedstat")
def test_the_kernel_counts_what_this_process_computes() -> None:
    before = read_threads(os.getpid())
    while (after := read_threads(os.getpid()))[os.getpid()].computed_ns - before[os.getpid()].computed_ns < MS:
        pass

    found = waited_ms(before, after, 2)
    assert found is not None and found >= 0
