"""The file with the keys that clients of the gateway must send."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from orchestrator.core.errors import UsageError

_log = logging.getLogger(__name__)

MAX_NAME = 64
_NAMED = re.compile(r"(?P<name>[^\s:]+):\s+(?P<key>\S.*)")
"""`NAME: KEY`. Without a space after the colon, the colon belongs to a key."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME - 1}}}")
_COMMENT = re.compile(r"(?:^|\s+)#.*")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the gateway.

    :param name: of the client that has it, for the history and the figures; None for a key without a name
    """

    key: str = field(repr=False)
    name: str | None = None


def read_keys(path: str, credentials: str | None = None) -> tuple[ApiKey, ...]:
    """Return the keys in a file, one a line: `KEY` or `NAME: KEY`; `#` starts a comment. No path, no keys.

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

    keys = tuple(_keys(lines, path))
    _check_unique(keys, path)
    if not keys:
        raise UsageError("the key file has no key", details=(path,), hint="`openssl rand -hex 32 > FILE`")

    handed_over = credentials is not None and os.path.dirname(os.path.normpath(path)) == os.path.normpath(credentials)
    if mode & (stat.S_IRGRP | stat.S_IROTH) and not handed_over:
        # No refusal: secrets that a container runtime mounts are often readable inside the container.
        _log.warning("other users may read the key file: `chmod 600 %s`", path)

    return keys


def _keys(lines: Iterable[str], path: str) -> Iterator[ApiKey]:
    for number, line in enumerate(lines, 1):
        text = _COMMENT.sub("", line).strip()
        named = _NAMED.fullmatch(text)
        if named is None:
            if text:
                yield ApiKey(text)

            continue

        if not _NAME.fullmatch(named["name"]):
            raise UsageError(
                f"line {number} of the key file: the name of the key is not allowed",
                details=(path, f"allowed: letters, digits and . _ @ -, {MAX_NAME} at most"),
                hint="write `NAME: KEY`, as in `laptop: 3f9c...`; a line with a key alone has no name",
            )

        yield ApiKey(named["key"], named["name"])


def _check_unique(keys: Iterable[ApiKey], path: str) -> None:
    """:raises UsageError: when one key has two names, so that nobody could tell whose a request is"""
    for key, count in Counter(each.key for each in set(keys)).items():
        if count > 1:
            names = ", ".join(sorted(each.name or "(no name)" for each in set(keys) if each.key == key))
            raise UsageError("a key of the key file has more than one name", details=(path, f"names: {names}"))
