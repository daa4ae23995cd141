"""Reads a model into the page cache before the engine that needs it is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

BLOCK_BYTES = 8 << 20


def warm(paths: Sequence[str], limit_bytes: int, cancelled: Callable[[], bool]) -> int:
    """Read files in order, sequentially. Blocks: call it in a thread.

    :param limit_bytes: stop there, so that nothing that is in use is pushed out
    :param cancelled: asked between blocks
    :return: bytes read
    """
    done = 0
    buffer = bytearray(BLOCK_BYTES)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while done < limit_bytes and not cancelled():
                read = os.readv(descriptor, [buffer])
                if not read:
                    break

                done += read
        finally:
            os.close(descriptor)

    return done
