"""What is known of whether an engine computes the right thing: the one place where a bench asks for it."""

from __future__ import annotations

from orchestrator.adapters.paths import Paths
from orchestrator.bench.targets import BenchTarget


def verification_of(paths: Paths, target: BenchTarget) -> str | None:
    """Return `right` or `wrong` for a target that was verified; None while nobody has."""
    return None
