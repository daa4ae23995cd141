"""The file with the keys that clients of the gateway must send."""

from __future__ import annotations

import logging
import os
import stat

from orchestrator.core.errors import UsageError

_log = logging.getLogger(__name__)


def read_keys(path: str, credentials: str | None = None) -> tuple[str, ...]:
    """Return the keys in a file, one a line; `#` starts a comment. No path, no keys.

    :param credentials: the directory that the service manager lets this service alone enter; root may own what lies
        there, and what its mode says of groups is the mask of an access list
    :raises UsageError: when it cannot be read, or holds none
    """
    if not path:
        return ()

    try:
        # Not blocking: a FIFO without a writer would hold the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        with os.fdopen(descriptor, encoding="utf-8") as file:
            if not stat.S_ISREG(mode):
                raise UsageError("the key file is not a regular file", details=(path,))

            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        hint = None if credentials or not path.startswith("$") else "`LoadCredential=` in the unit hands it over"
        raise UsageError(f"the key file cannot be read: {reason}", details=(path,), hint=hint) from None

    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError("the key file has no key", details=(path,), hint="`openssl rand -hex 32 > FILE`")

    handed_over = credentials is not None and os.path.dirname(os.path.normpath(path)) == os.path.normpath(credentials)
    if mode & (stat.S_IRGRP | stat.S_IROTH) and not handed_over:
        # No refusal: secrets that a container runtime mounts are often readable inside the container.
        _log.warning("other users may read the key file: `chmod 600 %s`", path)

    return keys
