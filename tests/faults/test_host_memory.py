"""The machine's memory ends, or somebody kills; and what control groups do for an engine. Scenarios 31 and 40."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.process.cgroup import own_groups
from tests.faults.lab import QUICK, Lab
from tests.faults.test_host import serve_as
from tests.integration.groups import given_group, in_group
from tests.support import ORCH, alive, until

PARENT = own_groups().memory or "/sys/fs/cgroup"
LIMIT_FILE = "memory.limit_in_bytes" if own_groups().memory else "memory.max"
LIMIT_MIB = 300
HOG = f"held = [b'x' * (number + (1 << 24)) for number in range({LIMIT_MIB})]"
"""More than the limit, and of no use to anybody."""


@pytest.fixture
def cgroup() -> Iterator[str]:
    """A memory cgroup, of either version, with a limit that a daemon and a fake engine fit into.

    To be asked for before the lab: its daemon has to leave first.
    """
    path = os.path.join(PARENT, f"orch-test-{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")

    try:
        limit = os.path.join(path, LIMIT_FILE)
        if not os.path.exists(limit):
            pytest.skip("the memory controller is not given to children of the root cgroup here")

        Path(limit).write_text(str(LIMIT_MIB << 20))
        yield path
    finally:
        until(lambda: not Path(path, "cgroup.procs").read_text(), "the cgroup is empty")
        os.rmdir(path)


def serve_greedy(lab: Lab, cgroup: str) -> Any:
    """A daemon in the group, whose first engine takes more memory than there is; the status when the second serves."""
    greedy = os.path.join(lab.root, "greedy")
    Path(greedy).touch()
    eats = f"if rm {greedy} 2>/dev/null; then exec {sys.executable} -c {shlex.quote(HOG)}; fi"
    lab.fake("hungry", "upstream", wrapper=f'case "$*" in *--help*|*--version*) ;; *) {eats} ;; esac; exec {{}}')
    lab.model("m", engine="hungry")
    lab.serve()
    assert lab.daemon is not None
    Path(cgroup, "cgroup.procs").write_text(str(lab.daemon.pid))
    lab.up("m")
    return lab.ready("m")


def kills_of(cgroup: str) -> int:
    for name in ("memory.events", "memory.oom_control"):
        if os.path.exists(os.path.join(cgroup, name)):
            words = Path(cgroup, name).read_text().split()
            return int(words[words.index("oom_kill") + 1])

    raise AssertionError("no counter of kills")


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


# 31. Host memory runs out.


def test_the_kernel_takes_the_engine_and_not_the_daemon_when_memory_ends(cgroup: str, lab: Lab) -> None:
    status = serve_greedy(lab, cgroup)
    assert lab.daemon is not None
    assert kills_of(cgroup) == 1
    assert lab.daemon.poll() is None and status["daemon_pid"] == lab.daemon.pid
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["host_oom", "ready"]
    assert score_of(status["pid"]) >= max(score_of(lab.daemon.pid) + 500, 300)
    lab.ask("r").check_complete(8)


# 40. The kernel's kill, or a person's.


def test_a_kill_by_the_kernel_and_a_kill_by_a_person_are_two_classes(cgroup: str, lab: Lab) -> None:
    first = serve_greedy(lab, cgroup)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    by_kernel, by_person = lab.ready("m")["attempts"][:2]
    counter = "memory.events" if os.path.exists(f"{cgroup}/memory.events") else "memory.oom_control"
    assert by_kernel["outcome"] == "host_oom"
    assert by_kernel["evidence"].startswith(f"{counter} of {cgroup}: oom_kill 0 -> 1")
    assert by_person["outcome"] == "killed"
    assert by_person["evidence"] == f"{counter} of {cgroup}: oom_kill 1, as before"


def test_a_kill_by_a_person_is_told_without_any_control_group(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    attempt = lab.ready("m")["attempts"][0]
    assert attempt["outcome"] == "killed"


# Where a group was given to the daemon, each engine has one of its own.

ESCAPE = "(setsid env -i /bin/sh -c 'echo $$ > {marker}; exec sleep 1000' &)"
"""A descendant in a session of its own, without a tag, whose parent is dead."""


@pytest.fixture
def given() -> Iterator[Path]:
    with given_group() as group:
        yield group


def serve_in(lab: Lab, group: Path) -> subprocess.Popen[bytes]:
    first = lab.baseline
    daemon = serve_as(lab, *in_group(group, *ORCH, "serve"))
    lab.baseline = first or lab.baseline  # a later daemon goes on with what the first one ran
    return daemon


def group_of(pid: int) -> str:
    """The last two names of a process's group."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return "/".join(next(line for line in lines if line.startswith("0::")).split("/")[-2:])


def engine_groups(group: Path) -> list[str]:
    return [entry.name for entry in group.iterdir() if entry.name.startswith("engine-")]


def escaping_engine(lab: Lab, name: str) -> Path:
    marker = Path(lab.root, f"{name}.escaped")
    escape = ESCAPE.format(marker=marker)
    lab.fake(name, "upstream", wrapper=f'case "$*" in *--help*|*--version*) ;; *) {escape} ;; esac; exec {{}}')
    return marker


def test_each_engine_has_a_group_of_its_own_and_what_hides_there_ends_with_it(given: Path, lab: Lab) -> None:
    marker = escaping_engine(lab, "leaky")
    lab.model("m", engine="leaky")
    daemon = serve_in(lab, given)
    lab.up("m")
    engine = lab.ready("m")["pid"]
    assert group_of(daemon.pid) == f"{given.name}/daemon"
    assert (given / "cgroup.procs").read_text() == ""
    assert [group_of(engine)] == [f"{given.name}/{name}" for name in engine_groups(given)]
    escaped = int(marker.read_text())
    assert group_of(escaped) == group_of(engine)
    lab.control("/v1/down", {})
    lab.state("stopped")
    assert not alive(escaped)
    assert engine_groups(given) == []

    lab.up("m")
    os.kill(lab.ready("m")["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 3, "it is started again")
    until(lambda: len(engine_groups(given)) == 1, "the group of the one that was killed is gone")
    lab.ready("m")


def test_a_daemon_ends_what_an_earlier_one_left_in_its_group(given: Path, lab: Lab) -> None:
    marker = escaping_engine(lab, "leaky")
    lab.model("m", engine="leaky")
    daemon = serve_in(lab, given)
    lab.up("m")
    lab.ready("m")
    escaped = int(marker.read_text())
    (left,) = engine_groups(given)
    daemon.kill()
    daemon.wait()
    until(lambda: not lab.tagged(), "its guard has ended all that it could find")
    assert alive(escaped)  # without session, group and tag, only its control group tells whose it is

    serve_in(lab, given)
    assert not alive(escaped)
    assert left not in engine_groups(given)
    lab.ready("m")


def test_a_limit_that_cannot_be_set_is_told_and_the_engine_runs(lab: Lab) -> None:
    lab.configure(QUICK.replace("[daemon]", "[daemon]\nengine_memory_max_mib = 4096"))
    lab.run("m")
    assert "daemon.engine_memory_max_mib is not in force" in lab.daemon_log()
    lab.ask("r").check_complete(8)
