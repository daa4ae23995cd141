"""For all tests: properties meet the same examples, compiled modules are kept, what is started can be interrupted."""

from __future__ import annotations

import os
import signal
import sys

from hypothesis import settings

# The same examples each time: a change is judged by what it changes. `make fuzz` draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# The tests start hundreds of interpreters. Where bytecode is not to be written, each would compile every module again:
# a second of a processor for each daemon, half of what all tests cost.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts what runs in the background deaf to SIGINT, and whatever that starts inherits it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
