"""Runs in the child, between fork and the engine: `python -I -S process_shim.py PPID OOM_SCORE_ADJ ERROR_FD -- ARGV`.

Sets what only the child can set for itself and then becomes the engine, keeping the pid. Stands alone: it imports
nothing of orch. On ERROR_FD it writes `+` before it executes, and one line of JSON when that or an earlier step failed.
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

PARENT_GONE = 125
"""Exit status; the daemon died before it could be told."""

NOT_EXECUTED = 126
"""Exit status beside a report on ERROR_FD."""


def main() -> int:
    expected_ppid, oom_score_adj, error_fd = (int(word) for word in sys.argv[1:4])
    argv = sys.argv[5:]
    os.set_inheritable(error_fd, False)
    try:
        die_with_parent()
        if os.getppid() != expected_ppid:
            return PARENT_GONE  # it died before the line above; whoever adopted us knows nothing of this engine

        raise_oom_score(oom_score_adj)
        dump_no_core()
        reset_signals()
        os.write(error_fd, b"+")
        os.execve(argv[0], argv, released(os.environb))
    except OSError as error:
        report(error_fd, error.errno or 0, error.strerror or str(error))

    return NOT_EXECUTED


def die_with_parent() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def dump_no_core() -> None:
    """A core of an engine is as big as its model, and holds prompts. Why 1: see `hardening.dump_no_core`."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def raise_oom_score(wanted: int) -> None:
    """The kernel should take the engine before the daemon. Lowering needs a privilege, and is never wanted."""
    path = "/proc/self/oom_score_adj"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # /proc is restricted: the engine runs all the same

    try:
        if int(os.read(fd, 32)) < wanted:
            os.write(fd, str(wanted).encode())
    except OSError:
        return
    finally:
        os.close(fd)


def reset_signals() -> None:
    """Ignored signals and the mask survive exec: the daemon may run under nohup, and Python ignores SIGPIPE."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def released(environ: os._Environ[bytes]) -> dict[bytes, bytes]:
    """The environment that was asked for: without what held it back, and without the locale that Python sets."""
    return {name.removeprefix(HELD_PREFIX): value for name, value in environ.items() if name != b"LC_CTYPE"}


def report(error_fd: int, code: int, message: str) -> None:
    import json

    os.write(error_fd, json.dumps({"errno": code, "message": message}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
