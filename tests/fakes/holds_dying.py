"""Traces a process, so that it stays unreaped after SIGKILL as one stuck in the kernel does: `holds_dying.py PID`.

Prints `holding`, and lets go at the end of its input.
"""

from __future__ import annotations

import ctypes
import sys

PTRACE_SEIZE = 0x4206

libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) != 0:
    sys.exit(f"ptrace: errno {ctypes.get_errno()}")

sys.stdout.write("holding\n")
sys.stdout.flush()
sys.stdin.read()
