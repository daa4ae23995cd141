"""Reads a model into the page cache before the engine that needs it is started."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Sequence

BLOCK_BYTES = 8 << 20

_log = logging.getLogger(__name__)


def read_ahead(paths: Sequence[str], limit_bytes: int, cancelled: Callable[[], bool]) -> int:
    """Read files in order, sequentially. Blocks: call it in a thread.

    Best effort: a file that cannot be read is left to the engine, which says what is wrong with it.

    :param limit_bytes: stop there (at most a block later), so that nothing that is in use is pushed out
    :param cancelled: asked between blocks
    :return: bytes read
    """
    done = 0
    # Not from malloc: glibc keeps a block of this size in the arena of each thread that ever read a model.
    with mmap.mmap(-1, BLOCK_BYTES) as buffer:
        for path in paths:
            try:
                with open(path, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                    while done < limit_bytes and not cancelled() and (read := file.readinto(buffer)):
                        done += read
            except OSError as error:
                _log.info("%s is not read ahead: %s", path, error)

    return done
