from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.process.cgroup import Leaf
from orchestrator.adapters.process.oom_counter import OomCounter, nearest_oom_counter, parse_oom_kills


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 1\n", 7),  # memory.events
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),  # memory.oom_control of version 1
        ("nr_free_pages 5\noom_kill 12\n", 12),  # /proc/vmstat
        ("low 0\noom 2\n", None),
        ("", None),
    ],
)
def test_the_count_is_found_in_each_of_the_kernels_files(text: str, count: int | None) -> None:
    assert parse_oom_kills(text) == count


def test_a_counter_reads_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    counter = OomCounter(str(path), "memory.events", "engine")
    assert counter.read() is None
    path.write_text("oom_kill 1\n")
    assert counter.read() == 1
    path.write_text("oom_kill 2\n")
    assert counter.read() == 2


def test_an_engines_own_group_is_nearest(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    counter = nearest_oom_counter(Leaf(str(tmp_path)))
    assert (counter.path, counter.scope) == (str(tmp_path / "memory.events"), "engine")


def test_without_a_memory_controller_the_group_above_counts(tmp_path: Path) -> None:
    leaf = tmp_path / "engine-1"
    leaf.mkdir()
    for directory in (tmp_path, leaf):
        (directory / "cgroup.procs").write_text("")

    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    counter = nearest_oom_counter(Leaf(str(leaf)))
    assert (counter.path, counter.scope) == (str(tmp_path / "memory.events"), "group")


def test_where_no_group_counts_the_machine_does() -> None:
    assert nearest_oom_counter(Leaf("/nowhere")).scope in ("machine", "group")
