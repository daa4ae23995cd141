"""What differs once a file has changed, without reading it."""

from __future__ import annotations

import os

from orchestrator.core.identities import ModelIdentity

Stamp = tuple[int, int, int] | None
"""Size, time of change and inode of a file; None where there is none."""


def stamp(path: str) -> Stamp:
    """Return what differs once a file has changed."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None

    return found.st_size, found.st_mtime_ns, found.st_ino


def file_identity(path: str) -> str:
    """Return the identity of a model's file as text.

    :raises OSError: when there is none
    """
    found = os.stat(path)
    return str(ModelIdentity(os.path.basename(path), found.st_size, found.st_mtime_ns))


def directory_stamp(path: str) -> tuple[tuple[str, Stamp], ...]:
    """Return what differs once a file in a directory has come, gone or changed."""
    try:
        with os.scandir(path) as entries:
            # A link that leads nowhere, or a file that an editor replaces right now, hides no other.
            return tuple(sorted((entry.name, stamp(entry.path)) for entry in entries))
    except OSError:  # no directory yet
        return ()
