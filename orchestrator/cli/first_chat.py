"""One question to a model that has just been started, through the gateway, as any client asks it."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError

QUESTION = "Say hello in one short sentence."
MOST_TOKENS = 64
"""A model that thinks first says so in these; nobody waits for a long thought."""

PATIENCE_S = 300.0


class FirstAnswer(NamedTuple):
    """What came back.

    :param tok_s: by the engine's own counts; None where it gives none
    """

    text: str
    tok_s: float | None
    seconds: float


def ask_once(paths: Paths, url: str, model: str, show: Callable[[str], None]) -> FirstAnswer:
    """Ask one question and stream the answer.

    :param show: called with each piece of the answer
    :raises OrchError: when the gateway answers with an error
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MOST_TOKENS,
        "temperature": 0,
        "stream": True,
        "chat_template_kwargs": {"enable_thinking": False},  # of templates that know it; others leave it out
    }
    began = time.monotonic()
    with _Connection(paths, url, "/v1/chat/completions", body) as response:
        text = thought = ""
        timings: dict[str, float] = {}
        for line in response:
            if not line.startswith(b"data: {"):
                continue

            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise OrchError(f"the answer broke off: {chunk['error'].get('message', chunk['error'])}")

            timings = chunk.get("timings") or timings
            for choice in chunk.get("choices", ()):
                piece = choice["delta"].get("content") or ""
                thought += choice["delta"].get("reasoning_content") or ""
                piece = piece.lstrip() if not text else piece
                text += piece
                if piece and "\n" not in text.removesuffix(piece):  # the first line: a person looks whether it answers
                    show(piece.partition("\n")[0])

    if not text and thought:
        text = f"(it thinks first) {thought.strip()}"
        show(text)

    count, milliseconds = timings.get("predicted_n", 0), timings.get("predicted_ms", 0.0)
    speed = (count - 1) * 1000 / milliseconds if count > 1 and milliseconds else None
    return FirstAnswer(text.strip().partition("\n")[0], speed, time.monotonic() - began)


def embed_once(paths: Paths, url: str, model: str) -> int:
    """Have one text turned into numbers; return how many there are."""
    with _Connection(paths, url, "/v1/embeddings", {"model": model, "input": "hello"}) as response:
        return len(json.loads(response.read())["data"][0]["embedding"])


def rank_once(paths: Paths, url: str, model: str) -> float:
    """Have one text ranked; return its score."""
    body = {"model": model, "query": "hello", "documents": ["a greeting"]}
    with _Connection(paths, url, "/v1/rerank", body) as response:
        return float(json.loads(response.read())["results"][0]["relevance_score"])


class _Connection:
    """One request, whose answer is an error or is read."""

    def __init__(self, paths: Paths, url: str, target: str, body: Mapping[str, object]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        self._target, self._body = target, json.dumps(body)
        self._headers = {"Content-Type": "application/json", **_key_header(paths)}

    def __enter__(self) -> http.client.HTTPResponse:
        try:
            self._connection.request("POST", self._target, self._body, self._headers)
            response = self._connection.getresponse()
            if response.status == 200:
                return response

            said = response.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise OrchError(f"the gateway did not answer: {error}", hint="look at `orch logs`") from error

        self._connection.close()
        raise OrchError(f"the gateway answered {response.status}", details=(said[:300],), hint="look at `orch logs`")

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _key_header(paths: Paths) -> dict[str, str]:
    """Return the header with a key, where the gateway wants one."""
    from orchestrator.adapters.config.config_file import load_config
    from orchestrator.adapters.config.key_file import read_keys

    keys = read_keys(load_config(paths).gateway.api_key_file, os.environ.get("CREDENTIALS_DIRECTORY"))
    return {"Authorization": f"Bearer {keys[0].key}"} if keys else {}
