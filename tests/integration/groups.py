"""Control groups that a test may use: in the hierarchy of version 2, as systemd gives them to a service."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.process.cgroup import Leaf

MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
MARK = "trusted.delegate"


@contextlib.contextmanager
def given_group() -> Iterator[Path]:
    """An empty group below the root, marked like one of a unit with `Delegate=`; all in it is killed at the end.

    Skips where there is none to be had: without root, with a read-only hierarchy, before Linux 5.14.
    """
    top = next((mount for mount in MOUNTS if os.path.exists(f"{mount}/cgroup.controllers")), None)
    if top is None:
        pytest.skip("no control groups of version 2 are mounted here")

    try:
        root = Path(tempfile.mkdtemp(prefix="orch-test-", dir=top))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")

    try:
        if not (root / "cgroup.kill").exists():
            pytest.skip("this kernel has no cgroup.kill")

        try:
            os.setxattr(root, MARK, b"1")
        except OSError as error:
            pytest.skip(f"a control group cannot be marked here: {error}")

        yield root
    finally:
        if (root / "cgroup.kill").exists():
            Leaf(str(root)).kill()

        assert Leaf(str(root)).remove(10.0), f"{root} is still in use"


def in_group(group: Path, *words: str) -> list[str]:
    """A command that runs in a group from its beginning."""
    return ["/bin/sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$@"', "sh", *words]
