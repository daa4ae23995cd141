"""A file that is being fetched: under a name of its own, locked by whoever fetches it; it gets its name when whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

from orchestrator.adapters.store.state_file import write_atomically
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.pulls import partial_name, read_partial_name

READ_BYTES = 1 << 20

CHECKSUM = ".sha256"
"""Ending of the file beside a fetched one that `sha256sum -c` reads: what it was when it got its name."""

_FILE_MODE = 0o644


def kept_bytes(target: str, size: int, identity: str) -> int:
    """Return how much of a file an earlier try has left."""
    try:
        return min(size, os.stat(partial_name(target, size, identity)).st_size)
    except OSError:
        return 0


def is_whole(target: str, size: int, sha256: str | None, hashing: Callable[[int], None] | None = None) -> bool:
    """Return whether a file is there as the hub has it: by its size, and by its checksum where that is known.

    The checksum is read from the file beside it, and computed where that is missing or says another one.

    :param hashing: called with the bytes read so far while it is computed; None to take
        the size for enough where none is noted
    """
    try:
        if os.stat(target).st_size != size:
            return False
    except OSError:
        return False

    noted = _noted_checksum(target)
    if sha256 is None or noted == sha256:
        return True

    if hashing is None:
        return noted is None

    digest, read = hashlib.sha256(), 0
    with open(target, "rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
            hashing(read := read + len(piece))

    if digest.hexdigest() != sha256:
        return False

    _note_checksum(target, sha256)
    return True


@contextlib.contextmanager
def open_partial(target: str, size: int, identity: str, waiting: Callable[[], None]) -> Iterator[int]:
    """Open a file's incomplete form for this process alone, with what an earlier try has left in it.

    :param waiting: called when another process fetches it; this one waits until that has ended
    :raises OrchError: when the directory cannot be written
    """
    path = partial_name(target, size, identity)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        fd = _open_locked(path, waiting)
    except OSError as error:
        raise OrchError("a model cannot be written", details=(f"{path}: {error.strerror}",)) from error

    try:
        yield fd
    finally:
        if os.fstat(fd).st_size == 0 and _is_at(fd, path):  # there is nothing to continue
            os.unlink(path)

        os.close(fd)


def drop_other_versions(target: str, size: int, identity: str) -> None:
    """Delete what is left of other versions of a file, unless somebody fetches one of them just now."""
    folder, name = os.path.split(target)
    ours = os.path.basename(partial_name(target, size, identity))
    with os.scandir(folder) as entries:
        for entry in entries:
            parsed = read_partial_name(entry.name)
            if parsed is not None and parsed.name == name and entry.name != ours:
                remove_partial(entry.path)


def remove_partial(path: str) -> bool:
    """Delete an incomplete file; return whether it is gone. One that is being fetched stays."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return not os.path.lexists(path)

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)

    return True


def give_name(fd: int, target: str, size: int, identity: str, sha256: str | None) -> None:
    """Give a whole file its name, so that it is there after a power cut too, and note its checksum."""
    os.fsync(fd)
    os.replace(partial_name(target, size, identity), target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

    if sha256 is not None:
        _note_checksum(target, sha256)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target + CHECKSUM)


def _open_locked(path: str, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()

                told = True
                fcntl.flock(fd, fcntl.LOCK_EX)

            # Who held it may have given it its name, or deleted it: then this is no longer the file of that name.
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise

        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _noted_checksum(target: str) -> str | None:
    try:
        with open(target + CHECKSUM, encoding="ascii", errors="replace") as file:
            return file.read(64)
    except OSError:
        return None


def _note_checksum(target: str, sha256: str) -> None:
    with contextlib.suppress(OSError):  # it is computed again then
        line = f"{sha256}  {os.path.basename(target)}\n"
        write_atomically(target + CHECKSUM, os.fsencode(line), mode=_FILE_MODE)
