"""An engine that is another one, slower by a known share: a relay in front of `orch-embedded-server`.

    slow_relay.py SHARE ARGV...

After each piece of a stream it waits for SHARE of the time since the piece before, and adds what it waited to the
milliseconds that the engine tells, so that the engine's clock and the client's agree. With 0 it only relays.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from orchestrator.adapters.process.ports import free_port

ENGINE = [sys.executable, "-c", "from orchestrator.engines.embedded.main import main; raise SystemExit(main())"]
SPIN_S = 0.0005
"""The end of a wait is spent in a loop: a sleep is longer than it says."""


def main() -> None:
    share, words = float(sys.argv[1]), sys.argv[2:]
    if "--port" not in words:
        os.execv(ENGINE[0], [*ENGINE, *words])

    at = words.index("--port") + 1
    port, behind = int(words[at]), free_port()
    child = subprocess.Popen([*ENGINE, *words[:at], str(behind), *words[at + 1 :]])

    def end(number: int, frame: object) -> None:
        child.terminate()
        child.wait()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            relay(self, behind, share)

        def do_POST(self) -> None:
            relay(self, behind, share)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os._exit(child.wait() & 0xFF)


def relay(handler: BaseHTTPRequestHandler, port: int, share: float) -> None:
    """Pass one request on, and its answer back; the connection ends with it."""
    body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
    handler.close_connection = True
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    passed = {k: v for k, v in handler.headers.items() if k.lower() not in ("connection", "host", "content-length")}
    try:
        connection.request(handler.command, handler.path, body or None, {**passed, "Connection": "close"})
        response = connection.getresponse()
    except OSError:
        _reply(handler, 503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}')
        return

    if not (response.getheader("content-type") or "").startswith("text/event-stream"):
        _reply(handler, response.status, response.read(), response.getheader("content-type") or "application/json")
        return

    handler.send_response(response.status)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    waited_s, last = 0.0, None
    for line in response:
        if line.startswith(b"data: {"):
            now = time.perf_counter()
            if last is not None and share:
                _wait_until(now + share * (now - last))
                waited_s += time.perf_counter() - now

            last = time.perf_counter()
            if b'"timings"' in line:
                line = _with_wait(line, waited_s)

        handler.wfile.write(line)
        handler.wfile.flush()

    connection.close()


def _with_wait(line: bytes, waited_s: float) -> bytes:
    """Return the event with what was waited added to the engine's milliseconds."""
    event = json.loads(line[6:])
    timings = event.get("timings")
    if isinstance(timings, dict) and "predicted_ms" in timings:
        timings["predicted_ms"] += waited_s * 1000

    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _wait_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        if left > SPIN_S:
            time.sleep(left - SPIN_S)


def _reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "application/json") -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(body)))
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.wfile.write(body)


if __name__ == "__main__":
    main()
