"""Profiles that were written to try other settings, and are removed afterwards: by whoever tried, or the next one.

They lie among the user's profiles, so that they are checked and started as any of them; their names and their first
line tell them apart. Whoever has written some holds the lock of benches, so the lock tells whether they are in use.
"""

from __future__ import annotations

import contextlib
import os
import re

from orchestrator.adapters.config.profile_files import SUFFIX
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import bench_lock
from orchestrator.core.errors import AlreadyRunningError

MADE = re.compile(r"bench-[0-9a-f]{12}")
HEADING = "# Written by `orch bench`, and removed at its end."


def is_trial_profile(name: str) -> bool:
    """Return whether a profile is called as those are that are written to try settings."""
    return MADE.fullmatch(name) is not None


def sweep_trial_profiles(paths: Paths) -> list[str]:
    """Remove what was left by somebody who was killed; the caller holds the lock.

    :return: the names of the profiles
    """
    swept = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(paths.profiles):
            if is_trial_profile(name.removesuffix(SUFFIX)):
                path = os.path.join(paths.profiles, name)
                with open(path, encoding="utf-8", errors="replace") as file:
                    ours = file.readline().startswith(HEADING)

                if ours:
                    os.unlink(path)
                    swept.append(name.removesuffix(SUFFIX))

    return swept


def sweep_unused_trial_profiles(paths: Paths) -> list[str]:
    """Remove what was left, unless somebody uses it; what cannot be read or removed stays.

    :return: the names of the profiles
    """
    with contextlib.suppress(AlreadyRunningError, OSError), bench_lock(paths.bench_file, patience_s=0):
        return sweep_trial_profiles(paths)

    return []
