"""An engine behind a relay that makes it wrong in one way: what verification has to find.

    mutant_engine.py HOW ARGV...

The engine is the program that MUTANT_OF names, by default the embedded one.

`swap`: in one of 50 steps the second likeliest token instead of the likeliest. `seed`: the seed that was asked for is
ignored. `drop`: one token of a hundred is lost. `accept`: all drafts are counted as accepted. `none`: nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EMBEDDED = (sys.executable, "-c", "import sys; from orchestrator.engines.embedded.main import main; sys.exit(main())")
ENGINE = (os.environ["MUTANT_OF"],) if "MUTANT_OF" in os.environ else EMBEDDED


class Mutation:
    """Changes questions and answers; counts tokens over all of them."""

    def __init__(self, how: str) -> None:
        self.how = how
        self._tokens = 0
        self._lock = threading.Lock()

    def question(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "seed": 1} if self.how == "seed" and "seed" in body else body

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        timings = body.get("timings")
        if self.how == "accept" and isinstance(timings, dict) and "draft_n" in timings:
            timings["draft_n_accepted"] = timings["draft_n"]

        steps = body.get("completion_probabilities")
        if self.how in ("swap", "drop") and isinstance(steps, list):
            kept = [step for step in steps if not self._is_hit(step)]
            body["completion_probabilities"] = kept
            body["content"] = "".join(step["token"] for step in kept)

        return body

    def _is_hit(self, step: dict[str, Any]) -> bool:
        """Swap the tokens of a step, or return that it is to be dropped."""
        with self._lock:
            self._tokens += 1
            if self._tokens % (50 if self.how == "swap" else 100):
                return False

        if self.how == "swap":
            step["token"] = step["top_logprobs"][1]["token"]

        return self.how == "drop"


def serve(mutation: Mutation, engine_port: int, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._relay(None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._relay(mutation.question(body))

        def _relay(self, body: dict[str, Any] | None) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", engine_port, timeout=120)
            try:
                headers = {"Content-Type": "application/json"}
                connection.request(self.command, self.path, json.dumps(body) if body is not None else None, headers)
                response = connection.getresponse()
                status, data = response.status, response.read()
            except OSError:
                status, data = 503, b"{}"
            finally:
                connection.close()

            if body is not None and status == 200:
                data = json.dumps(mutation.answer(json.loads(data))).encode()

            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the engine's own log is read."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def main() -> int:
    how, words = sys.argv[1], sys.argv[2:]
    if "--port" not in words:
        return subprocess.run([*ENGINE, *words], check=False).returncode

    at = words.index("--port") + 1
    port = int(words[at])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        engine_port = probe.getsockname()[1]

    words[at] = str(engine_port)
    engine = subprocess.Popen([*ENGINE, *words])
    signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
    threading.Thread(target=serve, args=(Mutation(how), engine_port, port), daemon=True).start()
    return engine.wait()


if __name__ == "__main__":
    sys.exit(main())
