"""A lock file that one process at a time holds. The lock dies with its holder, so it is never stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

_RETRY_S = 0.025


@contextlib.contextmanager
def exclusive_lock(path: str, refusal: Exception, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is not there and never deleted.

    :param patience_s: for holders that only look
    :raises refusal: when somebody else holds it
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        deadline = time.monotonic() + patience_s
        while not _locks(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise refusal

            time.sleep(_RETRY_S)

        yield


def is_locked(path: str) -> bool:
    """Return whether somebody holds the lock of a file. Nothing is made: where there is no file, nobody does."""
    try:
        with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            return not _locks(descriptor, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False

    return True
