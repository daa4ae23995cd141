"""A small program, run as a user who has nothing to do with us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support import PATIENCE_S

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")

# All imports come first: that user may be unable to read the interpreter's own library.
_BECOME = f"""
import encodings.idna, http.client, json, os, socket, sys
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
"""


def as_nobody(code: str, *args: str) -> Any:
    """What the program printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BECOME + code, *args],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
