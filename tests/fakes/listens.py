"""A server on 127.0.0.1: `listens.py PORT [--share]`; `--share` sets SO_REUSEPORT, as the fork does."""

from __future__ import annotations

import socket
import sys
import time

server = socket.socket()
if "--share" in sys.argv:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
sys.stdout.write("listening\n")
sys.stdout.flush()
time.sleep(1000)
