"""Takes its time to end: `stubborn.py SECONDS [MARKER]`; `never` ignores SIGTERM. Writes MARKER after a clean end."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path


def end(number: int, frame: object) -> None:
    time.sleep(float(sys.argv[1]))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text("ended cleanly")

    sys.exit(0)


signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "never" else end)
sys.stdout.write("ready\n")
sys.stdout.flush()
while True:
    signal.pause()
