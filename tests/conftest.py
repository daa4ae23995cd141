"""For all tests: compiled modules are kept."""

from __future__ import annotations

import os
import sys

# The tests start hundreds of interpreters. Where bytecode is not to be written, each would compile every module again:
# a second of a processor for each daemon, half of what all tests cost.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
