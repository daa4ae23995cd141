"""The file with the keys that clients of the gateway must send."""

from __future__ import annotations

import logging
import os
import stat

from orchestrator.core.errors import OrchError

_log = logging.getLogger(__name__)


def read_keys(path: str) -> tuple[str, ...]:
    """The keys in a file, one a line; `#` starts a comment. No path, no keys.

    :raises OrchError: when it cannot be read, or holds none
    """
    if not path:
        return ()

    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise OrchError(f"the key file cannot be read: {reason}", details=(path,)) from None

    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise OrchError("the key file has no key", details=(path,), hint="`openssl rand -hex 32 > FILE`")

    if mode & (stat.S_IRGRP | stat.S_IROTH):
        # No refusal: secrets that a container runtime mounts are often readable inside the container.
        _log.warning("other users may read the key file: `chmod 600 %s`", path)

    return keys
