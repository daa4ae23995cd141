"""Spawning: the fork, the shim, and the errors by which it fails."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import Literal

from orchestrator.adapters.process import linux
from orchestrator.core.errors import OrchError

SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.py")

SHIM_ALLOWANCE_S = 30.0
"""The shim needs 30 ms; exec of a binary on a file system that does not answer can take forever."""

HELD_VARIABLES = ("LD_", "GLIBC_", "LC_")
"""For the engine, not for the interpreter that the shim runs in."""

Kind = Literal[
    "not_found", "missing_interpreter", "not_executable", "exec_format", "too_big", "busy", "again", "no_memory",
    "bad_directory", "other",
]  # fmt: skip

_KINDS: dict[int, tuple[Kind, str]] = {
    errno.ENOENT: ("not_found", "there is no such program"),
    errno.ENOTDIR: ("not_found", "there is no such program"),
    errno.EACCES: ("not_executable", "the program may not be executed"),
    errno.EPERM: ("not_executable", "the program may not be executed"),
    errno.EISDIR: ("not_executable", "the program is a directory"),
    errno.ENOEXEC: ("exec_format", "the program is not for this machine, or is damaged"),
    errno.ELIBBAD: ("exec_format", "the program is not for this machine, or is damaged"),
    errno.E2BIG: ("too_big", "its arguments and environment are too long"),
    errno.ETXTBSY: ("busy", "the program is being written"),
    errno.EAGAIN: ("again", "the limit on processes is reached"),
    errno.ENOMEM: ("no_memory", "the host is out of memory"),
    errno.EMFILE: ("again", "the limit on open files is reached"),
    errno.ENFILE: ("again", "the limit on open files is reached"),
}

_RETRYABLE: frozenset[Kind] = frozenset({"again", "no_memory", "busy"})


class SpawnError(OrchError):
    """Raised when a program could not be started.

    `retryable`: the same start may succeed later without anybody changing anything.
    """

    def __init__(self, kind: Kind, program: str, reason: str, *, detail: str | None = None) -> None:
        details = (f"{program}: {detail or reason}",)
        super().__init__(f"cannot start the engine: {reason}", details=details, hint=_HINTS.get(kind))
        self.kind: Kind = kind
        self.retryable = kind in _RETRYABLE

    @classmethod
    def from_errno(cls, code: int, program: str, message: str | None = None) -> SpawnError:
        kind, reason = _KINDS.get(code, ("other", "the system refused"))
        if code == errno.ENOENT and os.path.exists(program):
            kind, reason = "missing_interpreter", "its interpreter or dynamic linker is missing"

        return cls(kind, program, reason, detail=message or os.strerror(code))


_HINTS: dict[Kind, str] = {
    "not_found": "see the builds that are there with `orch engines list`",
    "missing_interpreter": "build it for this system with `orch engines build`",
    "exec_format": "build it for this machine with `orch engines build`",
}


class ShimStart:
    """A forked shim that has not said yet how it went. Owns `_report_fd`; the rest goes to the `Child`.

    :ivar joined: whether it is in the control group that it was given, once `wait_outcome` has returned
    """

    def __init__(self, program: str, pid: int, pidfd: int, start_ticks: int, log_fd: int, report_fd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_ticks = start_ticks
        self.log_fd = log_fd
        self.joined = True
        self._program = program
        self._report_fd = report_fd

    async def wait_outcome(self) -> SpawnError | None:
        """Wait for the shim's report: None when the program runs. Once only; the process is not ended here."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        report = bytearray()

        def on_readable() -> None:
            data = os.read(self._report_fd, 4096)
            report.extend(data)
            if not data:
                loop.remove_reader(self._report_fd)
                ended.set_result(None)

        loop.add_reader(self._report_fd, on_readable)
        try:
            await asyncio.wait_for(ended, SHIM_ALLOWANCE_S)
        except TimeoutError:
            detail = f"no answer for {SHIM_ALLOWANCE_S:g} s"
            return SpawnError("other", self._program, "its file system does not answer", detail=detail)
        finally:
            loop.remove_reader(self._report_fd)
            os.close(self._report_fd)

        self.joined = not report.startswith(b"!")
        report = report.removeprefix(b"!")
        if report == b"+":
            return None

        if not report:
            return SpawnError("other", self._program, "the process ended before it could be executed")

        failure = json.loads(report.removeprefix(b"+"))
        return SpawnError.from_errno(failure["errno"], self._program, failure["message"])


def start_shim(
    argv: tuple[str, ...],
    env: dict[str, str],
    cwd: str,
    oom_score_raise: int,
    cpus: tuple[int, ...] = (),
    procs_file: str | None = None,
) -> ShimStart:
    """Fork the shim.

    :param cpus: numbers of those that it may run on; empty for all that this process has
    :param procs_file: of the control group to enter; that it could not does not stop the start
    :raises SpawnError: when even that failed; nothing is left behind
    :raises RuntimeError: on another thread than the main one, whose end would kill the child
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("engines are spawned from the main thread only: a child dies with the thread that forked it")

    program = argv[0]
    if not os.path.isdir(cwd):
        raise SpawnError("bad_directory", program, "its working directory does not exist", detail=cwd)

    with ExitStack() as on_error, ExitStack() as writers:
        try:
            log_fd, log_writer = _pipe(on_error, writers)
            report_fd, report_writer = _pipe(on_error, writers)
            group = [procs_file] if procs_file is not None else []
            bound = ",".join(map(str, cpus)) or "-"
            words = [str(os.getpid()), str(oom_score_raise), str(report_writer), bound, *group, "--", *argv]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", SHIM, *words],
                stdin=subprocess.DEVNULL,
                stdout=log_writer,
                stderr=log_writer,  # one pipe for both keeps their order
                env={f"ORCH_EXEC_{name}" if name.startswith(HELD_VARIABLES) else name: env[name] for name in env},
                cwd=cwd,
                start_new_session=True,
                pass_fds=(report_writer,),
            )
            on_error.callback(_discard, process)
            pidfd = os.pidfd_open(process.pid)
            on_error.callback(os.close, pidfd)
            stat = linux.stat_of(process.pid)
        except OSError as error:
            raise SpawnError.from_errno(error.errno or 0, program) from error
        except ValueError as error:  # a NUL character
            raise SpawnError(
                "other", program, "an argument or a variable is not a C string", detail=str(error)
            ) from error

        if stat is None:
            raise SpawnError("other", program, "/proc does not show the new process")

        process.returncode = 0  # Popen shall not wait for it, now or when it is collected: the Child does
        on_error.pop_all()
        return ShimStart(program, process.pid, pidfd, stat.start_ticks, log_fd, report_fd)


def _pipe(on_error: ExitStack, writers: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    on_error.callback(os.close, reader)
    writers.callback(os.close, writer)
    return reader, writer


def _discard(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
