"""Which starts that failed for good are looked at again when their files change. Pure.

A failure is for good because the same start would meet it again. A start is made of its profile, its model's files and
its engine's program: once one of them is another, it is not the same start any more, whatever the failure was. An
editor that truncates before it writes, a build that is under way and a disk that was away for a moment all end so.
"""

from __future__ import annotations

from orchestrator.core.fleet.lifecycle_states import Failed, State


def waits_for_files(state: State) -> bool:
    """Return whether nothing but another file, or a person, can help here: what waits for a time helps itself."""
    return isinstance(state, Failed) and state.until is None
