from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop

from orchestrator.adapters.process import linux, reaper
from orchestrator.adapters.process.child import Child, Exit, LaunchSpec, SpawnError, spawn
from orchestrator.adapters.process.spawning import Kind
from orchestrator.adapters.process.tree import Activity
from tests.busy import in_time
from tests.integration.processes import FAKES, INSTANCE, PATH, Lines, alive, fake, shell, until, zombies
from tests.support import PATIENCE_S
from tests.support import until as until_sync

EVERY_LOOP = pytest.mark.parametrize("runner", ["asyncio", "uvloop"], indirect=True)

TAG = f"ORCH_INSTANCE={INSTANCE}".encode()

LIBC_SIGNALS = 0b11 << 31
"""Signals 32 and 33 belong to glibc: sigaction(2) refuses them, so whoever started the tests decides about them."""


LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def start(argv: list[str]) -> subprocess.Popen[bytes]:
    """A process that is not the process layer's."""
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def choose_next_pid(pid: int) -> None:
    LAST_PID.write_text(str(pid - 1))


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    on_uvloop = getattr(request, "param", "uvloop") == "uvloop"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as made:
        yield made


@pytest.fixture(scope="module")
def loops_are_warm() -> None:
    """uvloop opens two descriptors once and for all."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as warm:
        warm.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def nothing_is_left(loops_are_warm: None) -> Iterator[None]:
    """Whatever a test does: afterwards no descriptor, no zombie and no tagged process is left."""
    linux.become_subreaper()
    linux.check_platform()
    fds = set(os.listdir("/proc/self/fd"))
    yield
    assert linux.find_tagged(TAG) == []
    until_sync(lambda: not (reaper.reap_adopted() or zombies()), "the reaping of the adopted")
    assert set(os.listdir("/proc/self/fd")) == fds


@EVERY_LOOP
def test_the_exit_status_comes_with_the_whole_log_to_every_waiter(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(shell("echo one; echo two >&2; printf three; exit 7"), log)
        exits = await asyncio.gather(*(child.wait() for _ in range(5)))
        assert set(exits) == {Exit(7, None)}
        assert exits[0].returncode == 7
        assert child.exit is exits[0]
        assert log.lines == ["one", "two", "three"]

    runner.run(scenario())


@EVERY_LOOP
def test_a_death_by_signal_is_told_as_python_tells_it(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        child = await spawn(shell("kill -SEGV $$"), Lines())
        ended = await child.wait()
        assert (ended.code, ended.signal, ended.returncode) == (None, signal.SIGSEGV, -11)
        assert not child.signal(signal.SIGTERM)
        assert not child.signal_group(signal.SIGTERM)
        assert child.tree() == set()

    runner.run(scenario())


@EVERY_LOOP
def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("stubborn.py", "never"), log)
        await log.until("ready")
        begun = time.monotonic()
        ended = await child.stop(0.4)
        took_s = time.monotonic() - begun
        assert took_s >= 0.4 and in_time(took_s, 2.4)
        assert ended == Exit(None, signal.SIGKILL, killed_after_grace=True)

    runner.run(scenario())


@EVERY_LOOP
def test_a_slow_legal_shutdown_is_not_cut_short(runner: asyncio.Runner, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("stubborn.py", 0.8, marker), log)
        await log.until("ready")
        assert await child.stop(3.0) == Exit(0, None)
        assert marker.read_text() == "ended cleanly"

    runner.run(scenario())


def test_a_server_behind_a_wrapper_keeps_its_grace(runner: asyncio.Runner, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def scenario() -> None:
        log = Lines()
        server = f"{sys.executable} -S {FAKES / 'stubborn.py'} 0.5 {marker}"
        child = await spawn(shell(f"{server} & wait"), log)  # the shell dies of the SIGTERM at once
        await log.until("ready")
        ended = await child.stop(3.0)
        assert ended == Exit(None, signal.SIGTERM)
        assert marker.read_text() == "ended cleanly"

    runner.run(scenario())


def test_a_server_in_a_session_of_its_own_is_asked_before_it_is_killed(runner: asyncio.Runner, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def scenario() -> None:
        log = Lines()
        server = f"{sys.executable} -S {FAKES / 'stubborn.py'} 0.2 {marker}"
        child = await spawn(shell(f"setsid {server} & wait"), log)
        await log.until("ready")
        await child.stop(3.0)
        assert marker.read_text() == "ended cleanly"

    runner.run(scenario())


def test_a_stopped_child_still_gets_to_obey_sigterm(runner: asyncio.Runner, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("stubborn.py", 0, marker), log)
        await log.until("ready")
        child.signal(signal.SIGSTOP)
        assert await child.stop(3.0) == Exit(0, None)
        assert marker.exists()

    runner.run(scenario())


@EVERY_LOOP
def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_stop(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        child = await spawn(shell("sleep 1000 & wait"), Lines())
        await until(lambda: len(child.tree()) == 2, "the grandchild")
        begun = time.monotonic()
        await child.stop(5.0)
        assert in_time(time.monotonic() - begun, 2.0)

    runner.run(scenario())


def test_what_a_child_leaves_behind_when_it_exits_is_killed(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(shell("sleep 1000 & echo pid $!; exit 3"), log)
        ended = await asyncio.wait_for(child.wait(), PATIENCE_S)
        assert ended == Exit(3, None)
        assert not alive(int(log.starting("pid")[0].split()[1]))

    runner.run(scenario())


@pytest.mark.parametrize("how", ["setsid", "daemon", "bare"])
@EVERY_LOOP
def test_a_grandchild_that_left_the_session_is_gone_after_the_stop(runner: asyncio.Runner, how: str) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("escapes.py", how), log)
        (line,) = await log.until("escaped")
        escaped = int(line.split()[1])
        assert alive(escaped)
        await child.stop(1.0)
        assert not alive(escaped)

    runner.run(scenario())


@pytest.mark.parametrize("how", ["setsid", "daemon"])
def test_a_grandchild_that_left_the_session_is_gone_after_a_crash(runner: asyncio.Runner, how: str) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("escapes.py", how), log)
        (line,) = await log.until("escaped")
        child.signal(signal.SIGKILL)
        await child.wait()
        assert not alive(int(line.split()[1]))

    runner.run(scenario())


def test_every_caller_of_stop_gets_the_same_answer_and_one_sigterm_is_sent(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done"
        child = await spawn(shell(script), log)
        await log.until("ready")
        exits = await asyncio.gather(*(child.stop(0.5) for _ in range(4)))
        assert set(exits) == {Exit(None, signal.SIGKILL, killed_after_grace=True)}
        assert log.starting("term") == ["term"]
        assert await child.stop(0.0) == exits[0]

    runner.run(scenario())


@EVERY_LOOP
def test_a_stop_goes_on_when_its_caller_is_cancelled(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("stubborn.py", "never"), log)
        await log.until("ready")
        caller = asyncio.create_task(child.stop(0.3))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        assert (await asyncio.wait_for(child.wait(), PATIENCE_S)).killed_after_grace

    runner.run(scenario())


def test_a_second_stop_with_less_grace_shortens_the_first(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        child = await spawn(fake("stubborn.py", "never"), log)
        await log.until("ready")
        patient = asyncio.create_task(child.stop(100.0))
        await asyncio.sleep(0)
        assert await child.stop(0.1) == await patient

    runner.run(scenario())


@EVERY_LOOP
def test_a_process_that_the_kernel_does_not_let_die_does_not_hold_up_the_stop(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        child = await spawn(shell("exec sleep 1000"), Lines())
        tracer = start([sys.executable, str(FAKES / "holds_dying.py"), str(child.pid)])
        try:
            assert tracer.stdout is not None
            if tracer.stdout.readline() != b"holding\n":
                pytest.skip("tracing another process is not allowed here")

            begun = time.monotonic()
            ended = await child.stop(0.1, kill_allowance_s=0.5)
            assert in_time(time.monotonic() - begun, 2.0)
            assert ended.unkillable
            assert child.exit is None
            assert (await child.stop(0.1)).unkillable
        finally:
            tracer.communicate()  # lets go

        later = await asyncio.wait_for(child.wait(), PATIENCE_S)
        assert not later.unkillable
        assert await child.stop(0.1) == later

    runner.run(scenario())


@pytest.mark.parametrize(
    ("name", "content", "mode", "kind"),
    [
        ("absent", None, 0, "not_found"),
        ("plain/below-a-file", None, 0, "not_found"),
        ("data", b"\x7fELF but not really", 0o755, "exec_format"),
        ("forbidden", b"#!/bin/sh\n", 0o644, "not_executable"),
        ("script", b"#!/no/such/interpreter\n", 0o755, "missing_interpreter"),
        ("folder/", None, 0, "not_executable"),
    ],
)
def test_each_way_that_exec_fails_has_its_kind(
    runner: asyncio.Runner, tmp_path: Path, name: str, content: bytes | None, mode: int, kind: Kind
) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)

    async def scenario() -> None:
        program = str(tmp_path / name)
        with pytest.raises(SpawnError) as raised:
            await spawn(LaunchSpec((program,), {}, "/", INSTANCE), Lines())

        assert raised.value.kind == kind
        assert not raised.value.retryable
        assert program in raised.value.details[0]

    runner.run(scenario())


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (LaunchSpec(("/bin/true", "x" * 200_000), {}, "/", INSTANCE), "too_big"),
        (LaunchSpec(("/bin/true",), {}, "/no/such/directory", INSTANCE), "bad_directory"),
        (LaunchSpec(("/bin/true", "nul\0"), {}, "/", INSTANCE), "other"),
    ],
)
def test_what_fails_before_exec_has_its_kind(runner: asyncio.Runner, spec: LaunchSpec, kind: Kind) -> None:
    async def scenario() -> None:
        with pytest.raises(SpawnError) as raised:
            await spawn(spec, Lines())

        assert raised.value.kind == kind

    runner.run(scenario())


def test_running_out_of_descriptors_may_be_tried_again(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, limits[1]))
        try:
            with pytest.raises(SpawnError) as raised:
                await spawn(shell("true"), Lines())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert (raised.value.kind, raised.value.retryable) == ("again", True)

    runner.run(scenario())


def test_a_limit_on_processes_may_be_tried_again(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become a user whose limit on processes is used up")

    script = """
import asyncio, os, resource
from orchestrator.adapters.process.child import LaunchSpec, SpawnError, spawn
class Lines:
    def write(self, lines): pass
async def main():
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
    try:
        await spawn(LaunchSpec(("/bin/true",), {}, "/", "limited"), Lines())
    except SpawnError as error:
        assert (error.kind, error.retryable) == ("again", True), (error.kind, error.details)
        return
    raise SystemExit("it was started")
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_hundred_failed_spawns_leave_nothing(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(100):
            with pytest.raises(SpawnError):
                await spawn(LaunchSpec(("/no/such/program",), {}, "/", INSTANCE), Lines())

        assert zombies() == []
        await until(lambda: (len(os.listdir("/proc/self/fd")), threading.active_count()) == before, "what was before")

    runner.run(scenario())


def test_a_spawn_that_is_cancelled_leaves_nothing(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        cancelled = 0
        for _ in range(50):
            starting = asyncio.create_task(spawn(shell("exec sleep 1000"), Lines()))
            await until(lambda: linux.children_of_self(), "the child")
            starting.cancel()
            try:
                child = await starting
            except asyncio.CancelledError:
                cancelled += 1
            else:
                await child.stop(1.0)  # it was spawned before the test looked

            assert linux.children_of_self() == []
            if cancelled == 5:
                break

        assert cancelled

    runner.run(scenario())


def test_another_thread_may_not_spawn(runner: asyncio.Runner) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(_spawn_true())
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


async def _spawn_true() -> Child:
    return await spawn(shell("true"), Lines())


def test_a_child_is_kept_on_its_cpus(runner: asyncio.Runner) -> None:
    first = min(os.sched_getaffinity(0))

    async def shown(*cpus: int) -> list[str]:
        log = Lines()
        argv = ("/bin/grep", "Cpus_allowed_list", "/proc/self/status")
        child = await spawn(LaunchSpec(argv, {"PATH": PATH}, "/", INSTANCE, cpus=cpus), log)
        await child.wait()
        return log.lines

    assert runner.run(shown(first)) == [f"Cpus_allowed_list:\t{first}"]
    with pytest.raises(SpawnError, match="cannot start") as refused:
        runner.run(shown(999_999))

    assert "it cannot be kept on CPUs 999999" in str(refused.value.details)


def test_a_child_starts_clean(runner: asyncio.Runner, tmp_path: Path) -> None:
    """No descriptor, ignored signal, blocked signal or variable of this process reaches it."""
    # Its own interpreter would show its own ignored signals: look through a shell.
    shown = (
        "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; env; ulimit -c; cat /proc/self/oom_score_adj; pwd"
    )

    async def scenario() -> None:
        log = Lines()
        env = {"PATH": PATH, "LD_BIND_NOW": "1", "LC_ALL": "C"}
        child = await spawn(LaunchSpec(("/bin/sh", "-c", shown), env, str(tmp_path), INSTANCE, 321), log)
        assert await child.wait() == Exit(0, None)
        masks = {
            name: int(mask, 16) & ~LIBC_SIGNALS for name, _, mask in (line.partition(":") for line in log.lines[:2])
        }
        assert masks == {"SigBlk": 0, "SigIgn": 0}
        assert log.lines[2:6] == ["0", "1", "2", "3"]  # the last is ls's own
        variables = {line for line in log.lines[6:-3] if not line.startswith("PWD=")}
        (spawn_tag,) = log.starting("ORCH_SPAWN=")
        assert variables == {f"PATH={PATH}", "LD_BIND_NOW=1", "LC_ALL=C", f"ORCH_INSTANCE={INSTANCE}", spawn_tag}
        assert log.lines[-3:] == ["0", "321", str(tmp_path)]

    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        runner.run(scenario())
    finally:
        os.close(reader)
        os.close(writer)
        signal.signal(signal.SIGHUP, ignored)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def test_hostile_output_neither_blocks_the_child_nor_reaches_the_reader(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        script = r"""head -c 10000000 /dev/zero | tr '\0' x; printf '\n\377\0\033]0;t\007ok\n'; echo end"""
        child = await spawn(shell(script), log)
        assert await asyncio.wait_for(child.wait(), 20) == Exit(0, None)
        assert log.lines[0].endswith(f" …[+{10_000_000 - 8192} bytes]")
        assert log.lines[1:] == ["\ufffd␀ok", "end"]
        assert child.log_reader.bytes_read == 10_000_000 + len("\n??]0;t?ok\nend\n") + 1

    runner.run(scenario())


class Counter:
    def __init__(self) -> None:
        self.lines = 0

    def write(self, lines: Sequence[str]) -> None:
        self.lines += len(lines)


@EVERY_LOOP
def test_a_flood_is_read_to_the_last_line_while_the_loop_keeps_turning(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Counter()
        child = await spawn(shell("yes 'a line of the usual length, with a number: 123456789' | head -n 1000000"), log)
        longest_s = 0.0
        while child.exit is None:
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.monotonic() - begun)

        assert log.lines == 1_000_000
        assert in_time(longest_s, 0.5)

    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runner.run(scenario())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before < 32 * 1024  # KiB


def test_dying_orphans_are_reaped_and_the_exit_status_stays_right(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        log = Lines()
        children = [await spawn(shell("exit 5"), Lines()) for _ in range(3)]
        flood = await spawn(fake("orphan_flood.py", 300), log)
        own = start(["/bin/sh", "-c", "exit 9"])
        assert (await flood.wait()).code == 7
        await until(lambda: reaper.reap_adopted() == 0 and set(zombies()) <= {own.pid}, "the reaping", 2.0)
        own.communicate()
        assert own.returncode == 9  # somebody else's child was left alone
        assert [(await child.wait()).code for child in children] == [5, 5, 5]

    runner.run(scenario())


def test_the_status_of_a_child_is_left_to_who_waits_for_it(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        child = await spawn(shell("sleep 0.1; exit 5"), Lines())
        deadline = time.monotonic() + PATIENCE_S
        while child.pid not in zombies():  # the loop is not asked meanwhile: it has not seen the end
            assert time.monotonic() < deadline
            time.sleep(0.01)  # noqa: ASYNC251

        for _ in range(3):
            reaper.reap_adopted()

        assert child.pid in zombies()
        assert (await child.wait()).code == 5

    runner.run(scenario())


def test_an_orphan_that_nobody_waits_for_is_reaped_after_a_while(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        script = "(setsid sh -c 'exit 0' &) ; sleep 0.05"
        start(["/bin/sh", "-c", script]).communicate()
        await until(lambda: zombies(), "the orphan")
        begun = time.monotonic()
        await until(lambda: not (reaper.reap_adopted() or zombies()), "the reaping")
        assert in_time(time.monotonic() - begun, 2.0)

    runner.run(scenario())


def test_a_stranger_that_got_the_pid_is_never_signalled(runner: asyncio.Runner) -> None:
    if not os.access(LAST_PID, os.W_OK) or os.getuid() != 0:
        pytest.skip("choosing the next pid needs root and checkpoint/restore in the kernel")

    async def scenario() -> None:
        child = await spawn(shell("exec sleep 1000"), Lines())
        child.signal(signal.SIGKILL)
        await child.wait()
        for _ in range(50):  # others may take the number first
            choose_next_pid(child.pid)
            innocent = start(["/bin/sleep", "1000"])
            if innocent.pid == child.pid:
                break

            innocent.kill()
            innocent.communicate()
        else:
            pytest.skip("the pid was taken by another process each time")

        try:
            assert not child.signal(signal.SIGKILL)
            assert not child.signal_group(signal.SIGKILL)
            assert not linux.send_to(child.pid, child.start_time_ticks, signal.SIGKILL)
            await child.stop(0.0)
            assert child.tree() == set()
            assert innocent.poll() is None
        finally:
            innocent.kill()
            innocent.communicate()

    runner.run(scenario())


def test_progress_and_memory_count_the_whole_tree(runner: asyncio.Runner, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(8_000_000))

    async def scenario() -> None:
        log = Lines()
        script = f"sh -c 'read go; cat {model} > /dev/null; echo loaded; sleep 1000' < {tmp_path}/go & wait"
        os.mkfifo(tmp_path / "go")
        child = await spawn(shell(script), log)
        await until(lambda: len(child.tree()) == 2, "the grandchild")
        before = child.read_bytes()
        assert before is not None
        (tmp_path / "go").write_text("go\n")
        seen = [before]
        while not log.starting("loaded"):
            seen.append(child.read_bytes() or 0)
            await asyncio.sleep(0.001)

        assert seen == sorted(seen)
        assert child.activity().rss_bytes > 500_000
        await child.stop(1.0)
        assert child.read_bytes() is None
        assert child.activity() == Activity()

    runner.run(scenario())


def test_pid_and_start_time_name_one_process_alone(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        first = await spawn(shell("true"), Lines())
        second = await spawn(shell("true"), Lines())
        assert (first.pid, first.start_time_ticks) != (second.pid, second.start_time_ticks)
        await first.wait()
        await second.wait()

    runner.run(scenario())
