"""What the kernel does with the groups of engines; skipped where a test may not make any."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from orchestrator.adapters.process import cgroup, linux, reaper
from orchestrator.adapters.process.cgroup import EngineGroups, Leaf
from orchestrator.adapters.process.child import LaunchSpec, spawn
from orchestrator.adapters.process.oom_counter import nearest_oom_counter
from tests.integration.groups import given_group, in_group
from tests.integration.processes import PATH, Lines, alive, until
from tests.support import until as until_sync


@pytest.fixture
def root() -> Iterator[Path]:
    with given_group() as group:
        yield group


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    linux.become_subreaper()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as made:
        yield made

    until_sync(lambda: not (reaper.reap_adopted() or linux.children_of_self()), "the reaping of the adopted", 40.0)


def shell_in(leaf: Leaf | None, script: str) -> LaunchSpec:
    return LaunchSpec(("/bin/sh", "-c", script), {"PATH": PATH}, "/", "test", group=leaf)


def groups_below(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


def output_of(words: list[str]) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


ESCAPE = "(setsid env -i /bin/sh -c 'echo escaped $$; touch {sign}; exec sleep 1000' &); echo started; "
"""A descendant in a session of its own, without our tag, whose parent is dead: only its group tells whose it is.

It makes the file `sign` once it has said its pid.
"""


def test_an_engine_is_in_its_group_before_it_runs(runner: asyncio.Runner, root: Path) -> None:
    async def scenario() -> None:
        log = Lines()
        leaf = EngineGroups(str(root)).make("1a2b.1")
        assert leaf is not None and leaf.path == str(root / "engine-1a2b.1")
        child = await spawn(shell_in(leaf, "cat /proc/self/cgroup; exit 3"), log)
        assert (await child.wait()).code == 3
        assert child.group == leaf
        assert log.starting("0::")[0].endswith(f"{root.name}/engine-1a2b.1")
        assert not leaf.populated() and leaf.remove()
        assert groups_below(root) == []

    runner.run(scenario())


@pytest.mark.parametrize("end", ["exit 1", "exec sleep 1000"], ids=["it ended by itself", "it was stopped"])
def test_nothing_of_an_engine_outlives_it_whatever_it_did_to_hide(
    runner: asyncio.Runner, root: Path, tmp_path: Path, end: str
) -> None:
    async def scenario() -> None:
        log = Lines()
        leaf = EngineGroups(str(root)).make("1")
        assert leaf is not None
        sign = tmp_path / "escaped"
        wait = f"until [ -e {sign} ]; do sleep 0.02; done; "
        child = await spawn(shell_in(leaf, ESCAPE.format(sign=sign) + wait + end), log)
        escaped = int((await log.until("escaped"))[0].split()[1])
        exit = await child.stop(0.5) if "sleep" in end else await child.wait()
        assert not exit.unkillable
        assert not alive(escaped)
        assert leaf.remove()

    runner.run(scenario())


def test_an_engine_starts_although_it_cannot_enter_its_group(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        child = await spawn(shell_in(Leaf(str(tmp_path / "gone")), "exit 3"), Lines())
        assert (await child.wait()).code == 3
        assert child.group is None

    runner.run(scenario())


def test_a_group_in_use_is_not_removed_and_one_that_was_left_is_swept(runner: asyncio.Runner, root: Path) -> None:
    async def scenario() -> None:
        leaf = EngineGroups(str(root)).make("1")
        assert leaf is not None
        child = await spawn(shell_in(leaf, "exec sleep 1000"), Lines())
        await until(lambda: leaf.holds(child.pid), "it is in its group")
        assert leaf.populated() and not leaf.remove(0.1)

        # As after the death of a daemon: somebody else finds the group.
        answer = await asyncio.to_thread(output_of, in_group(root, sys.executable, "-c", TAKES))
        assert json.loads(answer) == [str(root), f"0::/{root.name}/daemon"]
        assert (await asyncio.wait_for(child.wait(), 10.0)).signal == 9
        assert groups_below(root) == ["daemon"]

    runner.run(scenario())


TAKES = """
import json
from orchestrator.adapters.process.cgroup import claim_engine_groups
root = claim_engine_groups().root
print(json.dumps([root, [line.strip() for line in open("/proc/self/cgroup") if line.startswith("0::")][0]]))
"""


def test_a_group_with_a_stranger_in_it_is_left_as_it_is(root: Path) -> None:
    """A shell that runs `orch serve`, in a group that it may divide."""
    inner = f"{sys.executable} -c '{TAKES}'; echo done"
    answer = output_of(in_group(root, "/bin/sh", "-c", inner))
    assert json.loads(answer.splitlines()[0]) == [None, f"0::/{root.name}"]
    assert groups_below(root) == []


def test_a_kernel_without_cgroup_kill_is_helped_out_with_signals(
    runner: asyncio.Runner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cgroup._write

    def old_kernel(path: str, text: str) -> None:
        if path.endswith("cgroup.kill"):
            raise FileNotFoundError(path)

        write(path, text)

    async def scenario() -> None:
        log = Lines()
        leaf = EngineGroups(str(root)).make("1")
        assert leaf is not None
        child = await spawn(shell_in(leaf, ESCAPE.format(sign="/dev/null") + "exec sleep 1000"), log)
        escaped = int((await log.until("escaped"))[0].split()[1])
        with monkeypatch.context() as patch:
            patch.setattr(cgroup, "_write", old_kernel)
            await child.stop(0.0)

        assert not alive(escaped) and leaf.remove()

    runner.run(scenario())


LIMIT_MIB = 64
HOG = f"held = [b'x' * (number + (1 << 20)) for number in range({4 * LIMIT_MIB})]"


def test_an_engine_that_takes_more_than_its_limit_dies_alone_and_its_group_says_why(
    runner: asyncio.Runner, root: Path
) -> None:
    try:
        (root / "cgroup.subtree_control").write_text("+memory")
    except OSError as error:
        pytest.skip(f"the memory controller is not in this hierarchy: {error}")

    async def scenario() -> None:
        groups = EngineGroups(str(root), LIMIT_MIB)
        leaf, other = groups.make("1"), groups.make("2")
        assert groups.can_limit and leaf is not None and other is not None
        counters = [nearest_oom_counter(leaf), nearest_oom_counter(other)]
        assert [(each.scope, each.read()) for each in counters] == [("engine", 0), ("engine", 0)]
        bystander = await spawn(shell_in(other, "exec sleep 1000"), Lines())
        child = await spawn(shell_in(leaf, f'sleep 1000 & {sys.executable} -c "{HOG}"; exit 0'), Lines())
        assert (await child.wait()).signal == 9  # the shell in front as well: all of it or none
        killed = counters[0].read()
        assert killed is not None and killed >= 1 and counters[1].read() == 0
        assert (await bystander.stop(1.0)).signal == 15
        assert leaf.remove() and other.remove()

    runner.run(scenario())
