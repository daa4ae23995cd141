"""How much of a model is read into the page cache before a switch to it, while what runs serves on. Pure.

The engine that is started then finds its model in memory. Beside a start it would help nobody: the engine reads its
file as fast as the disk gives it.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.profile.settings import Value

THERE_SHARE = 0.98
"""Of a model that is there as far as this, reading it again would only delay the switch."""


def read_ahead_bytes(
    settings: Mapping[str, Value],
    *,
    model_bytes: int,
    resident_bytes: int | None,
    free_bytes: int,
) -> int:
    """Return how many bytes of a model are read, from its beginning on, as the engine reads it; 0 for none.

    :param resident_bytes: of it that are in the page cache; None where the kernel does not tell
    :param free_bytes: host memory that a start could take, as admission counts it: without what engines that serve have
        mapped from files, which reading more would push out
    """
    if settings.get("memory.prefetch") is False or settings.get("memory.direct_io") is True:
        return 0

    if resident_bytes is not None and resident_bytes >= THERE_SHARE * model_bytes:
        return 0

    return max(0, min(model_bytes, free_bytes))
