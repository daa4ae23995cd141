"""The daemon's memory across restarts: one small JSON file, replaced whole.

A reader always finds the old content or the new one. Content that cannot be read is kept aside as `.bad` (then
`.bad2`, ...), never deleted; content of a newer orch is refused and left alone, and so is whatever else is in the
file's place (a directory, a FIFO), without which the daemon starts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import tempfile

from orchestrator.core.errors import UsageError

VERSION = 1

TEMPORARY = ".tmp"
_MADE_HERE = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""`.NAME.RANDOM.tmp`, as mkstemp makes it below."""


class NotAFileError(OSError):
    """Raised when something else is in a file's place: it cannot hold anything of ours."""


def write_atomically(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file's content so that a crash at any moment leaves the old content or the new one.

    :raises OSError: when the disk is full or the directory cannot be written; the old content stays
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle, temporary = _temporary(directory, f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # before the lock ends with the file
    except BaseException:
        with contextlib.suppress(OSError):  # a file system that went read-only meanwhile; the next start sweeps it
            os.unlink(temporary)

        raise


def _temporary(directory: str, prefix: str) -> tuple[int, str]:
    """Make a new file that is locked: a sweep knows by the lock that its writer lives."""
    while True:
        handle, path = tempfile.mkstemp(dir=directory, prefix=prefix, suffix=TEMPORARY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, path

        os.close(handle)  # a sweep was quicker than the lock


def sweep_temporaries(*directories: str) -> int:
    """Delete what writers left that were killed while they wrote; what a living one writes is left alone.

    :return: how many there were
    """
    count = 0
    for directory in directories:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for name in [entry.name for entry in entries if _MADE_HERE.fullmatch(entry.name)]:
                count += _sweep_file(os.path.join(directory, name))

    return count


def _sweep_file(path: str) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # replaced meanwhile, or no file of ours

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(handle)

    return True


def save_state(path: str, state: dict[str, object]) -> None:
    """Replace the state.

    :raises OSError: as `write_atomically`
    """
    write_atomically(path, json.dumps({"version": VERSION, **state}, indent=2).encode() + b"\n")


def load_state(path: str) -> tuple[dict[str, object], str | None]:
    """Return the state, and a notice for people when the file could not be read.

    :raises UsageError: when a newer orch wrote it
    """
    try:
        state = _decode(read_regular(path))
    except FileNotFoundError:
        return {}, None
    except OSError as error:  # somebody's directory, or content that may be as good as ever: it stays where it is
        return {}, f"{path} cannot be read ({error.strerror or error}); starting without it"

    version = state.get("version") if state is not None else None
    if state is None or not isinstance(version, int):
        return {}, f"{path} could not be read and {_set_aside(path)}; starting without it"

    if version > VERSION:
        # As a wrong configuration: a service manager that starts this again meets the same file.
        raise UsageError(
            f"{path} was written by a newer orch",
            details=(f"version {version}, this orch reads up to {VERSION}",),
            hint="upgrade orch, or move the file away to start without what was remembered",
        )

    return state, None


def read_regular(path: str) -> bytes:
    """Return the content of a regular file.

    :raises NotAFileError: for anything else: a directory, a FIFO
    :raises OSError: when it cannot be read
    """
    try:
        # Not blocking: a FIFO without a writer would hold this open for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket; a link to itself
            raise NotAFileError(error.errno, error.strerror, path) from error

        raise

    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise NotAFileError(errno.EINVAL, f"it is no file: {stat.filemode(mode)}", path)

        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)

        return b"".join(parts)
    finally:
        os.close(descriptor)


def _decode(raw: bytes) -> dict[str, object] | None:
    try:
        state = json.loads(raw)
    except (ValueError, RecursionError):  # a thousand brackets in a row are no JSON of ours
        return None

    return state if isinstance(state, dict) else None


def _set_aside(path: str) -> str:
    """Move what is no state of ours out of the way, and return what became of it, for a sentence."""
    try:
        aside = free_name(f"{path}.bad")
        os.replace(path, aside)
    except OSError as error:
        return f"cannot be moved away ({error.strerror or error})"

    return f"is kept as {aside}"


def free_name(path: str) -> str:
    """Return the path, or the first of `path2`, `path3` ... that nothing has."""
    name, number = path, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}{number}"

    return name
