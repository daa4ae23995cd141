"""Files and directories of sysfs, of which any may be missing, or not readable at the moment. Blocks."""

from __future__ import annotations

import errno
import os

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
"""Errors that say nothing of the file: to take them for "not there" would lose a device that is."""


def read_text(directory: str, name: str) -> str:
    """Return a file's text without white space around it; empty where there is no file, or it cannot be read now.

    A driver fails with errors of its own while its device sleeps (EBUSY) or is gone (ENODEV).

    :raises OSError: when this process, or the machine, has run out of descriptors
    """
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise

        return ""


def read_number(directory: str, name: str) -> int | None:
    """Return the whole number that is a file's text; None where it has none, or as `read_text`.

    :raises OSError: as `read_text`
    """
    text = read_text(directory, name)
    return int(text) if text.removeprefix("-").isdecimal() else None


def names_in(directory: str) -> list[str]:
    """Return the names in a directory; none where it is not there: no such driver, or no /sys in this container.

    :raises OSError: when this process, or the machine, has run out of descriptors
    """
    try:
        return os.listdir(directory)
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise

        return []
