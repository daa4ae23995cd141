"""What a dashboard sees, and what a client measures by itself."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchestrator.api import client
from tests.support import PATIENCE_S, Home, until

AGREEMENT = 0.05
"""How far the dashboard's rate may be from the client's."""


def frame(home: Home, points: int = 3600, requests: int = 64) -> Any:
    path = os.path.join(home.root, "run", "control.sock")
    return json.loads(client.request(path, f"/v1/frame?points={points}&requests={requests}"))


@dataclass(frozen=True)
class Measured:
    """One stream as its client saw it.

    :ivar tok_s: tokens after the first, over the time after the first, by the client's clock
    :ivar engine_tok_s: the same by the engine's, from its last event
    """

    tokens: int
    tok_s: float
    engine_tok_s: float = 0.0

    @property
    def undisturbed(self) -> bool:
        """Both clocks agree: on a busy machine a client that reads late finds many tokens at once."""
        return abs(self.tok_s / self.engine_tok_s - 1.0) <= AGREEMENT if self.engine_tok_s else False


def measure(url: str, prompt: str, tokens: int, enough: threading.Event | None = None) -> Measured:
    """Stream a completion, and take its rate from the clock.

    :param enough: the client leaves as soon as it is set
    """
    body = {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "stream": True,
        "cache_prompt": False,
        "return_tokens": True,
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    first = last = 0.0
    count, engine_tok_s = 0, 0.0
    try:
        connection.request("POST", "/completion", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        while not (enough and enough.is_set()) and (line := response.readline()):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                last = time.perf_counter()
                first = first or last
                if event["stop"]:
                    count = event["tokens_predicted"]
                    engine_tok_s = event["timings"]["predicted_per_second"]
    finally:
        connection.close()

    return Measured(count, (count - 1) / (last - first), engine_tok_s)


def measure_all(url: str, prompt: str, tokens: int, streams: int) -> list[Measured]:
    """Streams at the same time, the slowest first."""
    with ThreadPoolExecutor(streams) as pool:
        futures = [pool.submit(measure, url, prompt, tokens) for _ in range(streams)]
        return sorted((future.result() for future in futures), key=lambda each: each.tok_s)


def lasting(url: str, prompt: str, seconds: float, streams: int = 1, most: int = 1500) -> int:
    """How many tokens a stream has that lasts so long here and now, beside others; 200 to `most`."""
    return int(min(max(measure_all(url, prompt, 200, streams)[0].tok_s * seconds, 200), most))


def check_agreement(home: Home, prompt: str, streams: int = 1, rounds: int = 30) -> list[float]:
    """That the rate in a request's row is the client's, in the median of those streams that nothing disturbed: what a
    client that came too late to read has measured says nothing. Ends with three rounds' worth of them.

    :param streams: at the same time
    :return: the dashboard's rate over the client's, for each undisturbed stream
    """
    url = home.url
    # A stream that is over in an instant is measured badly by either.
    tokens = lasting(url, prompt, 1.0, streams)
    quotients: list[float] = []
    for _ in range(rounds):
        seen = max(row["id"] for row in frame(home)["requests"])
        measured = measure_all(url, prompt, tokens, streams)
        assert all(each.tokens == tokens for each in measured)
        rows = until(ended_since(home, seen, streams), "the requests are in the frame")
        assert all(row["outcome"] == "complete" and row["output_tokens"] == tokens for row in rows)
        rates = sorted(row["decode_tok_s"] for row in rows)
        quotients += [rate / each.tok_s for rate, each in zip(rates, measured, strict=True) if each.undisturbed]
        if len(quotients) >= 3 * streams:
            break

    assert quotients, f"no stream of {rounds} rounds was left undisturbed"
    assert abs(statistics.median(quotients) - 1.0) <= AGREEMENT, quotients
    return quotients


def ended_since(home: Home, seen: int, count: int) -> Callable[[], list[Any]]:
    def rows() -> list[Any]:
        found = [row for row in frame(home)["requests"] if row["id"] > seen and row["status"] is not None]
        return found if len(found) == count else []

    return rows
