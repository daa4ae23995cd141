"""One streamed request to the gateway, timed by the client's clock."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from orchestrator.core.bench.figures import BenchAnswer, answer_of
from orchestrator.core.errors import OrchError

TIMEOUT_S = 900.0
"""Without a byte: a long prompt on a slow machine is read for minutes."""


class BenchRequestFailed(OrchError):
    """Raised when a request of a bench had no answer that can be used."""


class GatewayClient:
    """Asks the gateway as any client does.

    :param key: None where the gateway wants none
    :param prefix: of the ids of all requests, by which they are told from those of clients
    :param check: raises what speaks against asking on
    """

    def __init__(self, url: str, key: str | None, prefix: str, check: Callable[[], None] = lambda: None) -> None:
        self._address = urlsplit(url).netloc
        self._key = key
        self.prefix = prefix
        self.check = check
        self._count = 0
        self._closed = False
        self._open: set[http.client.HTTPConnection] = set()

    def close(self) -> None:
        """Cut the requests that run, in whatever threads they do, and send no more."""
        self._closed = True
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def ask(self, name: str, body: dict[str, object]) -> BenchAnswer:
        """Send a chat request, and return what its answer measured.

        :raises BenchRequestFailed: when it failed, or the engine gave no figures
        :raises OrchError: as `check` does
        """
        self.check()
        self._count += 1
        headers = {"Content-Type": "application/json", "X-Request-Id": f"{self.prefix}{self._count}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"

        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        try:
            connection.connect()
            self._open.add(connection)
            if self._closed:
                raise _failed(name, "the bench has ended")

            began = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _failed(name, f"the gateway answered {response.status}: {_text(response.read(500))}")

            first_s, timings = None, None
            for line in response:
                if not line.startswith(b"data: {"):
                    continue

                event = json.loads(line[6:])
                if "error" in event:
                    raise _failed(name, f"the answer broke off: {json.dumps(event['error'])[:300]}")

                timings = event.get("timings") or timings
                if first_s is None and _has_text(event):
                    first_s = time.perf_counter() - began

            wall_s = time.perf_counter() - began
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(name, f"{type(error).__name__}: {error}") from error
        finally:
            self._open.discard(connection)
            connection.close()

        if timings is None:
            raise _failed(name, "the engine gave no `timings`")

        return answer_of(name, timings, wall_s, first_s if first_s is not None else wall_s)


def _has_text(event: dict[str, Any]) -> bool:
    return any(
        choice.get("delta", {}).get("content") or choice.get("delta", {}).get("reasoning_content")
        for choice in event.get("choices", ())
    )


def _failed(name: str, why: str) -> BenchRequestFailed:
    return BenchRequestFailed(f"prompt `{name}` was not answered", details=(why,), hint="look at `orch logs`")


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
