"""The key that an engine reads from a file: made for one process, and gone with it.

Where the file cannot be written (a full disk, one that went read-only), the key is in memory, under a path that leads
there: the engine starts all the same.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass

from orchestrator.adapters.paths import make_private


@dataclass(slots=True)
class EngineKey:
    """A key and where its engine reads it.

    :ivar descriptor: of the memory that it is in; None where it is in a file
    """

    key: str
    path: str
    descriptor: int | None = None

    def forget(self) -> None:
        """Remove it: its process is gone; idempotent. What cannot be removed is swept by the next daemon."""
        with contextlib.suppress(OSError):
            if self.descriptor is None:
                os.unlink(self.path)
            elif self.descriptor >= 0:
                descriptor, self.descriptor = self.descriptor, -1
                os.close(descriptor)


def make_key(directory: str, instance: str) -> tuple[EngineKey, str | None]:
    """Make a key that only this user can read.

    :return: the key, and why it is not in a file
    :raises OSError: when there is not even a descriptor for it
    """
    key = secrets.token_hex(32)
    path = os.path.join(directory, instance)
    try:
        make_private(directory)
        _write_new(path, key)
    except OSError as error:
        descriptor = os.memfd_create("orch-key", os.MFD_CLOEXEC)
        os.write(descriptor, key.encode("ascii"))
        return EngineKey(key, f"/proc/{os.getpid()}/fd/{descriptor}", descriptor), f"{path}: {error.strerror or error}"

    return EngineKey(key, path), None


def sweep_keys(directory: str) -> int:
    """Delete the keys that an earlier daemon left when it was killed. Only called with the daemon's lock held.

    :return: how many there were
    """
    count = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for name in [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
                count += 1

    return count


def _write_new(path: str, key: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Nothing but the key: the fork takes every line for one, comments too.
        if os.write(descriptor, key.encode("ascii")) < len(key):
            raise OSError(0, "only a part of it could be written", path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)

        raise
    finally:
        os.close(descriptor)
