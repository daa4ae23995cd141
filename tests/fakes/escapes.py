"""Leaves a process that is hard to find: `escapes.py HOW`, prints its pid, and waits.

`setsid`: a session of its own. `daemon`: double-forked besides. `bare`: a session of its own and no environment.
"""

from __future__ import annotations

import os
import sys
import time

SLEEP = ["/bin/sleep", "1000"]


def main() -> None:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if sys.argv[1] == "daemon" and os.fork() > 0:
            os._exit(0)

        os.write(writer, str(os.getpid()).encode())
        os.execve(SLEEP[0], SLEEP, {} if sys.argv[1] == "bare" else dict(os.environ))

    pid = os.read(reader, 32).decode()
    sys.stdout.write(f"escaped {pid}\n")
    sys.stdout.flush()
    time.sleep(1000)


main()
