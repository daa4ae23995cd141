"""Makes COUNT grandchildren that lose their parent and end: `orphan_flood.py COUNT`, then exits with 7."""

from __future__ import annotations

import os
import sys

for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.fork()
        os._exit(0)

    os.waitpid(child, 0)

sys.stdout.write("flooded\n")
sys.stdout.flush()
sys.stdin.read()
sys.exit(7)
