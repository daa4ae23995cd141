"""Small text files that people edit: read within limits, written whole or not at all."""

from __future__ import annotations

import os
import stat

from orchestrator.adapters.store.state_file import write_atomically
from orchestrator.core.errors import OrchError, UsageError

MAX_BYTES = 1024 * 1024
"""No configuration file is this long; a device or a model given by mistake is."""


def read_text(path: str) -> str:
    """Return the text of a small regular file, line ends as they are.

    :raises UsageError: when it is not one, cannot be read, or is not UTF-8
    """
    try:
        # Not blocking: a FIFO without a writer would hold this open for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path} is not a regular file")

            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {path!r}: {reason}") from error

    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is too long", details=(f"more than {MAX_BYTES} bytes, the most that is read",))

    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8", hint="save the file as UTF-8") from error


def write_text(path: str, text: str) -> None:
    """Replace a file whole, keeping its mode; the file behind a link, not the link.

    :raises OrchError: when it cannot be written; the old text stays
    """
    path = os.path.realpath(path)
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o644
        write_atomically(path, text.encode(), mode=mode)
    except OSError as error:
        raise OrchError(f"cannot write {path}: {error.strerror}", details=("the file is as it was",)) from error
