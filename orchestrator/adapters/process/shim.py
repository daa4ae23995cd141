"""Runs in the child, between fork and the engine:
`python -I -S shim.py PPID OOM_SCORE_RAISE ERROR_FD CPUS [CGROUP_PROCS] -- ARGV`.

Sets what only the child can set for itself and then becomes the engine, keeping the pid. Stands alone: it imports
nothing of orch. CPUS are numbers with commas in between, `-` for all that there are. On ERROR_FD it writes `!` if it
could not enter the control group whose `cgroup.procs` it was given, `+` before it executes, and one line of JSON when
that or an earlier step failed.
Variables for the dynamic linker and the locale arrive with `ORCH_EXEC_` in front: they are not for this interpreter.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2). It is sent when the *thread* that forked ends, so the daemon forks from its main thread only."""

HELD_PREFIX = b"ORCH_EXEC_"

MIN_OOM_SCORE, MAX_OOM_SCORE = 300, 1000
"""Before a desktop's programs, too, where the daemon itself is protected; the most there is."""

PARENT_GONE = 125
"""Exit status; the daemon died before it could be told."""

NOT_EXECUTED = 126
"""Exit status beside a report on ERROR_FD."""


def main() -> int:
    dashes = sys.argv.index("--")
    expected_ppid, oom_score_raise, error_fd = (int(word) for word in sys.argv[1:4])
    argv = sys.argv[dashes + 1 :]
    os.set_inheritable(error_fd, False)
    try:
        die_with_parent()
        if os.getppid() != expected_ppid:
            return PARENT_GONE  # it died before the line above; whoever adopted us knows nothing of this engine

        if any(not enter_group(procs_file) for procs_file in sys.argv[5:dashes]):
            os.write(error_fd, b"!")

        raise_oom_score(oom_score_raise)
        bind_to_cpus(sys.argv[4])
        dump_no_core()
        reset_signals()
        os.write(error_fd, b"+")
        os.execve(argv[0], argv, engine_environment(os.environb))
    except OSError as error:
        report(error_fd, error.errno or 0, error.strerror or str(error))

    return NOT_EXECUTED


def die_with_parent() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def bind_to_cpus(cpus: str) -> None:
    """Run on these CPUs alone, and so will every thread and child (sched_setaffinity(2))."""
    if cpus == "-":
        return

    try:
        os.sched_setaffinity(0, map(int, cpus.split(",")))
    except OSError as error:
        raise OSError(error.errno, f"it cannot be kept on CPUs {cpus}: {error.strerror}") from error


def dump_no_core() -> None:
    """Keep cores off the disk: an engine's is as big as its model, and holds prompts. As `hardening.dump_no_core`."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def enter_group(procs_file: str) -> bool:
    """Enter a control group, before the engine is executed: so all its memory is counted there, and its children's."""
    try:
        fd = os.open(procs_file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False

    try:
        os.write(fd, b"0")  # the writer itself
    except OSError:
        return False
    finally:
        os.close(fd)

    return True


def raise_oom_score(by: int) -> None:
    """Have the kernel take the engine before the daemon, whose score was inherited (proc_pid_oom_score_adj(5))."""
    path = "/proc/self/oom_score_adj"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # /proc is restricted: the engine runs all the same

    try:
        wanted = max(int(os.read(fd, 32)) + by, MIN_OOM_SCORE)
        os.write(fd, str(min(wanted, MAX_OOM_SCORE)).encode())
    except OSError:
        return
    finally:
        os.close(fd)


def reset_signals() -> None:
    """Reset ignored signals and the mask, which survive exec: the daemon may be under nohup, Python ignores SIGPIPE."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def engine_environment(environ: os._Environ[bytes]) -> dict[bytes, bytes]:
    """Return the environment that was asked for: without the prefix, and without the locale that Python sets."""
    return {name.removeprefix(HELD_PREFIX): value for name, value in environ.items() if name != b"LC_CTYPE"}


def report(error_fd: int, code: int, message: str) -> None:
    import json

    os.write(error_fd, json.dumps({"errno": code, "message": message}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
