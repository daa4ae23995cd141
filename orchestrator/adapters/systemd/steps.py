"""The steps of an installation, performed: all of them, or none."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator

from orchestrator.adapters.store.state_file import write_atomically
from orchestrator.adapters.systemd.user_database import ids_of
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.service_plan import MakeDirectory, RemoveFile, RemoveTree, Run, Step, WriteFile

Undo = Callable[[], None]


class Tools:
    """Runs programs as an administrator's shell would find them, in a language that we can read."""

    def __init__(self) -> None:
        # `su` leaves root with a user's PATH, where useradd and runuser are not.
        path = os.environ.get("PATH", os.defpath)
        self.path = os.pathsep.join([path, "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])

    def run(self, argv: tuple[str, ...], limit_s: float | None = None) -> str:
        """Run a command, and return its output.

        :param limit_s: none for what starts and stops units: that takes as long as the unit allows
        :raises OrchError: when it is not there, fails, or does not end
        """
        done = self.attempt(argv, limit_s)
        if done.returncode != 0:
            said = [*done.stderr.splitlines(), *done.stdout.splitlines()]
            raise OrchError(f"`{shlex.join(argv)}` failed", details=tuple(said[-12:]) or (f"exit {done.returncode}",))

        return done.stdout

    def attempt(self, argv: tuple[str, ...], limit_s: float | None = 10.0) -> subprocess.CompletedProcess[str]:
        """Run a command, and return its output and status: one that fails is an answer, too.

        :raises OrchError: when it is not there, or does not end
        """
        program = shutil.which(argv[0], path=self.path)
        if program is None:
            raise OrchError(f"`{argv[0]}` is not installed here", details=(f"needed for: {shlex.join(argv)}",))

        env = {**os.environ, "PATH": self.path, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        try:
            return subprocess.run(
                [program, *argv[1:]], env=env, cwd="/", capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise OrchError(f"`{shlex.join(argv)}` did not end within {limit_s:g} s") from None


def perform_steps(steps: Iterable[Step], tools: Tools, root: str, on_step: Callable[[Step], None]) -> None:
    """Perform the steps in order. When one fails, or the person interrupts, undo those before it, last first.

    A terminal that is closed and a TERM are interrupts as well; while they undo, nothing interrupts. What comes after
    the first `RemoveTree` is not undone: a service whose files are half gone is worth less than none.

    :param root: where to look up the owner of a new directory
    :raises OrchError: what failed; its details say what could not be undone either
    """
    undos: list[tuple[Step, Undo]] = []
    final = False
    with _signals(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        try:
            for step in steps:
                on_step(step)
                if isinstance(step, RemoveTree):
                    final = True
                    undos.clear()

                _perform_step(step, tools, root, lambda undo, step=step: undos.append((step, undo)))  # type: ignore[misc]
        except BaseException as error:
            with _signals(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                left = _undo_all(undos)

            if isinstance(error, (OrchError, OSError)):
                after = (
                    ("what was removed before this stays removed",) if final else ("everything is as it was before",)
                )
                raise _failure_with_state(error, tuple(left) or after) from error

            raise


@contextlib.contextmanager
def _signals(handler: Callable[..., object] | signal.Handlers, *numbers: signal.Signals) -> Iterator[None]:
    before = {each: signal.signal(each, handler) for each in numbers}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)


def _perform_step(step: Step, tools: Tools, root: str, undone_by: Callable[[Undo], None]) -> None:
    match step:
        case MakeDirectory(path, owner, mode):
            uid, gid = ids_of(owner, root)
            if os.path.isdir(path):
                undone_by(_restore_owner(path))
            else:
                _make_parents(path, undone_by)
                os.mkdir(path, mode)
                undone_by(lambda: os.rmdir(path))

            os.chmod(path, mode)
            os.chown(path, uid, gid)
        case WriteFile(path, text, mode):
            _make_parents(path, undone_by)
            undone_by(_restore_file(path))
            write_atomically(path, text.encode(), mode=mode)
        case RemoveFile(path):
            undone_by(_restore_file(path))
            os.unlink(path)
        case RemoveTree(path):
            with contextlib.suppress(FileNotFoundError):
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    shutil.rmtree(path)
        case Run(argv, undo):
            if undo:
                undone_by(lambda: _quietly(tools, undo))

            if argv:
                tools.run(argv)


def _make_parents(path: str, undone_by: Callable[[Undo], None]) -> None:
    missing: list[str] = []
    directory = os.path.dirname(path)
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)

    for each in reversed(missing):
        os.mkdir(each, 0o755)
        undone_by(lambda each=each: os.rmdir(each))  # type: ignore[misc]


def _restore_owner(path: str) -> Undo:
    before = os.stat(path)

    def undo() -> None:
        os.chown(path, before.st_uid, before.st_gid)
        os.chmod(path, stat.S_IMODE(before.st_mode))

    return undo


def _restore_file(path: str) -> Undo:
    """Return the undo that puts a file back as it is now, or takes it away if there is none now."""
    try:
        with open(path, "rb") as file:
            before: bytes | None = file.read()
            mode = os.fstat(file.fileno()).st_mode & 0o777
    except FileNotFoundError:
        before, mode = None, 0

    def undo() -> None:
        if before is not None:
            write_atomically(path, before, mode=mode)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    return undo


def _quietly(tools: Tools, argv: tuple[str, ...]) -> None:
    tools.run(argv)


def _undo_all(undos: list[tuple[Step, Undo]]) -> list[str]:
    """Undo everything, whatever fails.

    :return: what could not be undone, for people
    """
    left = []
    for step, undo in reversed(undos):
        try:
            undo()
        except (OrchError, OSError) as error:
            left.append(f"could not undo `{step}`: {error}")

    return left


def _failure_with_state(error: OrchError | OSError, after: tuple[str, ...]) -> OrchError:
    """Return an error with the state of the machine in its details.

    :param after: how the machine is now, for people
    """
    if isinstance(error, OrchError):
        message, details, hint = error.message, error.details, error.hint
    else:
        message, details, hint = f"{error.filename}: {error.strerror}", (), None

    return OrchError(message, details=(*details, *after), hint=hint)
