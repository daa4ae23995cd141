"""An engine that is another one at a known speed: a relay in front of `orch-embedded-server`.

    slow_relay.py SHARE PACE_MS ARGV...

Without a pace, it waits after each piece of a stream for SHARE of the time since the piece before. With one, each piece
goes out (1 + SHARE) * PACE_MS after the piece before it, which a busy machine disturbs less than computing; orch's own
questions at a start are answered at once. The milliseconds that the engine tells are made to agree.
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
    share, pace_s, words = float(sys.argv[1]), float(sys.argv[2]) / 1000, sys.argv[3:]
    if "--port" not in words:
        os.execv(ENGINE[0], [*ENGINE, *words])

    at = words.index("--port") + 1
    port, behind = int(words[at]), free_port()
    child = subprocess.Popen([*ENGINE, *words[:at], str(behind), *words[at + 1 :]])

    def end(number: int, frame: object) -> None:
        child.terminate()  # its end is waited for below

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            relay(self, behind, share, pace_s)

        def do_POST(self) -> None:
            relay(self, behind, share, pace_s)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os._exit(max(child.wait(), 0))


def relay(handler: BaseHTTPRequestHandler, port: int, share: float, pace_s: float) -> None:
    """Pass one request on, and its answer back; the connection ends with it."""
    pace_s = pace_s if (handler.headers.get("x-request-id") or "").startswith("bench-") else 0.0
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
    begun = last = due = 0.0
    waited_s = 0.0
    for line in response:
        if line.startswith(b"data: {") and b'"timings"' in line:
            paced_ms = (time.perf_counter() - begun) * 1000 if pace_s else None
            line = _with_time(line, waited_s * 1000, paced_ms)
        elif line.startswith(b"data: {"):
            now = time.perf_counter()
            if not begun:
                begun = due = now
            elif pace_s:
                due += (1 + share) * pace_s
                _wait_until(due)
            elif share:
                _wait_until(now + share * (now - last))
                waited_s += time.perf_counter() - now

            last = time.perf_counter()

        handler.wfile.write(line)
        handler.wfile.flush()

    connection.close()


def _with_time(line: bytes, waited_ms: float, paced_ms: float | None) -> bytes:
    """Return the event with the milliseconds of the answer as they were behind this relay."""
    event = json.loads(line[6:])
    timings = event.get("timings")
    if isinstance(timings, dict) and "predicted_ms" in timings:
        timings["predicted_ms"] = paced_ms if paced_ms is not None else timings["predicted_ms"] + waited_ms

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
