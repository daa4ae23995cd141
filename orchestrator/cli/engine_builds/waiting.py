"""Builds that have passed their gate and wait for a person: a line each for `orch status`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orchestrator.adapters.paths import Paths


def waiting_builds(paths: Paths) -> Iterator[str]:
    """Yield what to do about each; only those that were compared with the build that is current now."""
    if not os.path.exists(paths.gates_file):  # `orch status` pays for what is imported below
        return

    from orchestrator.adapters.store.gates import GateStore
    from orchestrator.engines.build import installs

    for record in GateStore(paths.gates_file).waiting():
        current = installs.current(record.engine, paths)
        if current is not None and current.build == record.against:
            yield f"{record.build} has passed its gate: `orch engines use {record.engine} {record.build}`"
