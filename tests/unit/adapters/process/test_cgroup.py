"""What is read of control groups, on trees that look like the kernel's. What only the kernel can do is tested with it:
`integration/test_cgroup.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.process import cgroup, oom_counter
from orchestrator.adapters.process.cgroup import (
    EngineGroups,
    Groups,
    Leaf,
    claim_engine_groups,
    groups_of,
    is_delegated,
)
from orchestrator.adapters.process.oom_counter import nearest_oom_counter, parse_oom_kills

PURE = "26 25 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
SERVICE = "/user.slice/user-1000.slice/user@1000.service/app.slice/orch.service"


@pytest.mark.parametrize(
    ("memberships", "mounts", "expected"),
    [
        (f"0::{SERVICE}\n", PURE, Groups(f"/sys/fs/cgroup{SERVICE}", None)),
        ("4:memory:/a/b\n1:cpu:/c\n0::/\n", HYBRID, Groups("/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory/a/b")),
        ("4:memory:/a\n", PURE, Groups(None, None)),
        ("0::/../other\n", PURE, Groups(None, None)),  # outside this namespace
        ("0::/docker/f00/x\n", PURE.replace(" / ", " /docker/f00 "), Groups("/sys/fs/cgroup/x", None)),
        ("0::/docker/f00\n", PURE.replace(" / ", " /docker/bar "), Groups(None, None)),
        ("0::/a\n", PURE.replace("/sys/fs/cgroup", r"/odd\040place"), Groups("/odd place/a", None)),
        ("", "", Groups(None, None)),
    ],
)  # fmt: skip
def test_a_group_is_found_where_its_hierarchy_is_mounted(memberships: str, mounts: str, expected: Groups) -> None:
    assert groups_of(memberships, mounts) == expected


def test_our_own_groups_are_directories_that_are_there() -> None:
    for path in cgroup.own_groups():
        assert path is None or os.path.isdir(path)


def make_group(path: Path, *pids: int, controllers: str = "memory pids", marked: bool = False) -> str:
    """A directory that looks like a group of version 2."""
    path.mkdir(parents=True)
    files = {
        "cgroup.procs": "".join(f"{pid}\n" for pid in pids),
        "cgroup.events": "populated 0\nfrozen 0\n",
        "cgroup.controllers": f"{controllers}\n",
        "cgroup.subtree_control": "",
    }
    for name, text in files.items():
        (path / name).write_text(text)

    if marked:
        try:
            os.setxattr(path, "user.delegate", b"1")
        except OSError as error:
            pytest.skip(f"no extended attributes in {path}: {error}")

    return str(path)


def test_a_group_that_systemd_marked_is_ours_to_divide(tmp_path: Path) -> None:
    assert is_delegated(make_group(tmp_path / "orch.service", os.getpid(), marked=True))


def test_a_group_that_we_may_write_to_like_its_parent_is_not_ours(tmp_path: Path) -> None:
    """Root may write to every group, and a user to those of every service of theirs."""
    assert not is_delegated(make_group(tmp_path / "orch.service", os.getpid()))


@pytest.mark.parametrize(
    ("delegate", "control_group", "given"),
    [
        ("yes", "/user@1000.service/app.slice/orch.service", True),
        ("no", "/user@1000.service/app.slice/orch.service", False),
        ("yes", "/user@1000.service/app.slice/other.service", False),
        ("yes", "", False),
    ],
)
def test_a_user_s_systemd_is_asked_since_it_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delegate: str, control_group: str, given: bool
) -> None:
    group = make_group(tmp_path / "user@1000.service" / "app.slice" / "orch.service", os.getpid())
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ntest "$6" = orch.service && printf "Delegate={delegate}\\nControlGroup={control_group}\\n"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert is_delegated(group) is given


def test_a_user_s_systemd_that_cannot_be_asked_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = make_group(tmp_path / "user@1000.service" / "orch.service", os.getpid())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_delegated(group)


def test_a_group_with_somebody_else_in_it_is_not_ours(tmp_path: Path) -> None:
    session = make_group(tmp_path / "session-2.scope", os.getppid(), os.getpid(), marked=True)
    assert not is_delegated(session)


def test_a_group_that_another_daemon_has_divided_is_not_ours(tmp_path: Path) -> None:
    group = make_group(tmp_path / "shared", marked=True)
    make_group(tmp_path / "shared" / "daemon", os.getppid())
    assert not is_delegated(group)


def test_the_root_of_the_hierarchy_is_not_ours(tmp_path: Path) -> None:
    group = make_group(tmp_path / "root", os.getpid(), marked=True)
    os.unlink(os.path.join(group, "cgroup.events"))
    assert not is_delegated(group)


def stand_in(monkeypatch: pytest.MonkeyPatch, groups: Groups) -> None:
    for module in (cgroup, oom_counter):
        monkeypatch.setattr(module, "own_groups", lambda: groups)


def test_the_daemon_goes_into_a_group_of_its_own_and_takes_the_controllers_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_group(tmp_path / "unit", os.getpid(), controllers="cpu memory", marked=True)
    make_group(tmp_path / "unit" / "daemon")
    stand_in(monkeypatch, Groups(root, None))
    groups = claim_engine_groups(4096)
    assert groups == EngineGroups(root, 4096)
    assert (tmp_path / "unit" / "daemon" / "cgroup.procs").read_text() == str(os.getpid())
    assert (tmp_path / "unit" / "cgroup.subtree_control").read_text() == "+memory"


def test_a_daemon_that_systemd_put_into_the_group_below_divides_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_group(tmp_path / "unit", marked=True)
    below = make_group(tmp_path / "unit" / "daemon", os.getpid())
    stand_in(monkeypatch, Groups(below, None))
    assert claim_engine_groups().root == root


@pytest.mark.parametrize("unified", [True, False])
def test_without_a_group_of_ours_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unified: bool
) -> None:
    group = make_group(tmp_path / "session-2.scope", os.getppid(), os.getpid(), marked=True)
    before = sorted(os.listdir(group))
    stand_in(monkeypatch, Groups(group if unified else None, None))
    groups = claim_engine_groups(4096)
    assert (groups.root, groups.can_limit, groups.make("1a2b")) == (None, False, None)
    assert sorted(os.listdir(group)) == before


def test_an_engine_s_group_has_the_limit_and_dies_as_one(tmp_path: Path) -> None:
    root = make_group(tmp_path / "unit")
    (tmp_path / "unit" / "cgroup.subtree_control").write_text("memory pids\n")
    leaf = tmp_path / "unit" / "engine-1a2b.1"
    make_group(leaf)
    for name in ("memory.max", "memory.oom.group"):
        (leaf / name).write_text("")

    groups = EngineGroups(root, 100)
    assert groups.can_limit and groups.make("1a2b.1") == Leaf(str(leaf))
    assert ((leaf / "memory.max").read_text(), (leaf / "memory.oom.group").read_text()) == (str(100 << 20), "1")


EVENTS = "low 0\nhigh 0\nmax 12\noom 2\noom_kill {}\noom_group_kill 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EVENTS.format(3), 3),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),  # version 1
        ("nr_free_pages 123\noom_kill 13\n", 13),
        ("oom_kill_disable 0\nunder_oom 0\n", None),  # before Linux 4.13
        ("", None),
    ],
)
def test_the_counter_is_read_from_each_of_the_three_files(text: str, expected: int | None) -> None:
    assert parse_oom_kills(text) == expected


def test_the_counter_of_the_engine_s_own_group_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_group(tmp_path / "unit")
    leaf = make_group(tmp_path / "unit" / "engine-1")
    (tmp_path / "unit" / "memory.events").write_text(EVENTS.format(8))
    memory = tmp_path / "v1"
    memory.mkdir()
    (memory / "memory.oom_control").write_text("oom_kill 5\n")
    stand_in(monkeypatch, Groups(os.path.join(root, "daemon"), str(memory)))
    (tmp_path / "unit" / "engine-1" / "memory.events").write_text(EVENTS.format(2))
    counter = nearest_oom_counter(Leaf(leaf))
    assert (counter.read(), counter.source, counter.scope) == (2, "memory.events", "engine")

    os.unlink(os.path.join(leaf, "memory.events"))  # a group without the memory controller: the one above counts
    counter = nearest_oom_counter(Leaf(leaf))
    assert (counter.read(), counter.source, counter.scope) == (8, f"memory.events of {root}", "group")

    os.unlink(os.path.join(root, "memory.events"))
    counter = nearest_oom_counter(Leaf(leaf))
    assert (counter.read(), counter.source, counter.scope) == (5, f"memory.oom_control of {memory}", "group")

    (memory / "memory.oom_control").write_text("under_oom 0\n")
    assert (nearest_oom_counter(None).source, nearest_oom_counter(None).scope) == ("/proc/vmstat", "machine")


def test_a_counter_that_is_gone_says_nothing(tmp_path: Path) -> None:
    assert oom_counter.OomCounter(str(tmp_path / "gone"), "gone", "engine").read() is None
