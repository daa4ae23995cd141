"""At which priority compilers run that nobody waits for."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from orchestrator.engines.build.compile import idle_words


@pytest.mark.skipif(shutil.which("chrt") is None or shutil.which("ionice") is None, reason="no util-linux here")
def test_what_is_built_unattended_takes_what_is_left() -> None:
    script = "nice; ionice -p $$; cat /proc/$$/sched | grep policy"
    told = subprocess.run([*idle_words(), "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    priority, disk, policy = told.splitlines()
    assert (priority, disk) == ("19", "idle")
    assert policy.split()[-1] == str(os.SCHED_IDLE)
