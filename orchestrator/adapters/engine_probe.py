"""Questions to an engine over HTTP: is it loaded, does it really answer. The one module that imports httpx.

The gateway's traffic does not come through here: `adapters/http1/client.py` relays it.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import anyio
import httpx

from orchestrator.core.health.canary import DrawnToken

_LIKELY_TOKENS = 8

Health = Literal["ok", "loading", "silent", "refused"]

MAX_ANSWER_BYTES = 8 << 20
"""The fork's /slots holds the prompts: a long context in each of some slots."""

MAX_DEPTH = 32

_WHOLE_EXTRA_S = 0.25
"""The whole of an answer may take so much longer than one step of it: who waits in vain for a connection is told so,
and not that the answer is missing."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The engine is on loopback without TLS. httpx wants a context all the same: its own costs 280 ms of CPU, and one for
each probe (`verify=False`) 15 KiB that come back late."""


@dataclass(frozen=True, slots=True)
class Canary:
    """The result of a canary request.

    :param ok: a complete answer with at least one token (or one vector) arrived
    :param detail: the status and the start of the body when it did not
    :param draft_tokens: drafts that the engine counted; None where its answer does not say
    :param status: of the answer; None when none came
    :param cut: the connection broke before the answer was whole
    """

    ok: bool
    detail: str
    predicted_tokens: int | None = None
    draft_tokens: int | None = None
    status: int | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer as it came, token by token.

    :param canary: whether it came at all
    :param whole: it ended by itself; else the time for it was over
    """

    canary: Canary
    steps: tuple[DrawnToken, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The words of an engine about itself: the `Server` header, and `build_info` of /props (`b11434-1234567`)."""

    server: str | None
    build_info: str | None


class EngineProbe:
    """Talks to one engine; one request at a time, each with its own time limit.

    The fork listens before it loads and answers nobody until then: its backlog holds five connections, so a probe that
    timed out must be closed before the next one is opened. Hence no connection is kept.
    """

    def __init__(self, host: str, port: int, api_key: str | None) -> None:
        headers = {"Accept-Encoding": "identity"}  # what is unpacked has no bound
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"

        self._client = httpx.AsyncClient(
            base_url=f"http://{host}:{port}",
            headers=headers,
            verify=_NO_TLS,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def health(self, timeout_s: float) -> Health:
        """Return `loading` on 503, `silent` when connected but not answered in time, `refused` when nobody listens."""
        try:
            response = await self._ask("GET", "/health", timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return "refused"
        except httpx.HTTPError:
            return "silent"

        return "ok" if response.status_code == 200 else "loading"

    async def identity(self, timeout_s: float) -> ServerIdentity:
        """Ask who answers, as far as it says so: upstream and the fork name themselves, and upstream its build."""
        try:
            response = await self._ask("GET", "/props", timeout_s)
            answer = _json(response) if response.status_code == 200 else {}
        except (httpx.HTTPError, ValueError):
            return ServerIdentity(None, None)

        build_info = answer.get("build_info") if isinstance(answer, dict) else None
        return ServerIdentity(response.headers.get("server"), build_info if isinstance(build_info, str) else None)

    async def slots(self, timeout_s: float) -> object:
        """Return the answer of /slots, as it came; None when it is switched off or was not answered in time."""
        return await self.page("/slots", timeout_s)

    async def page(self, path: str, timeout_s: float) -> object:
        """Return the JSON of one of its pages, as it came; None when it has none or did not answer in time."""
        try:
            response = await self._ask("GET", path, timeout_s)
            return _json(response) if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    async def metrics(self, timeout_s: float) -> str | None:
        """Return the answer of /metrics, as it came; None when it is switched off or was not answered in time."""
        try:
            response = await self._ask("GET", "/metrics", timeout_s)
        except httpx.HTTPError:
            return None

        return response.text if response.status_code == 200 else None

    async def complete(self, prompt: str, tokens: int, timeout_s: float) -> Canary:
        """Ask for a greedy completion, past the prompt cache."""
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False}
        answer = await self._post("/completion", body, timeout_s)
        if isinstance(answer, Canary):
            return answer

        timings = answer.get("timings")
        counts = timings if isinstance(timings, dict) else {}
        predicted = _count(counts.get("predicted_n"))
        if predicted is None:
            predicted = _count(answer.get("tokens_predicted"))

        if not predicted:
            return Canary(False, "the answer has no token", predicted)

        return Canary(True, "", predicted, _count(counts.get("draft_n")))

    async def generate(
        self, prompt: str, tokens: int, *, cached: bool, timeout_s: float, budget_s: float
    ) -> Generation:
        """Ask for a greedy completion as a stream.

        :param cached: take of the prompt what is in the engine's cache
        :param timeout_s: for the first token, and between two
        :param budget_s: after so long the tokens that have come are the answer
        """
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": cached, "stream": True}
        reader = _StreamReader()
        late = Generation(Canary(False, f"no answer to POST /completion within {timeout_s:g} s"))
        try:
            with anyio.fail_after(timeout_s + budget_s):
                async with self._client.stream(
                    "POST", "/completion", json={**body, "n_probs": _LIKELY_TOKENS}, timeout=timeout_s
                ) as response:
                    if response.status_code != 200:
                        text = (await _read_whole(response)).text[:300]
                        detail = f"POST /completion answered {response.status_code}: {text}"
                        return Generation(Canary(False, detail, status=response.status_code))

                    await reader.read(response.aiter_raw(), budget_s)
        except (TimeoutError, httpx.TimeoutException):
            return reader.answer() if reader.steps else late
        except (httpx.HTTPError, AttributeError, OSError) as error:
            return Generation(Canary(False, f"POST /completion: {type(error).__name__}: {error}", cut=True))

        return reader.answer()

    async def count_tokens(self, text: str, timeout_s: float) -> int | None:
        """Return the number of tokens of a text; None when the engine does not tell."""
        answer = await self._post("/tokenize", {"content": text}, timeout_s)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        return len(tokens) if isinstance(tokens, list) else None

    async def embed(self, timeout_s: float, text: str = "ping") -> Canary:
        """Ask for the embedding of a text."""
        answer = await self._post("/v1/embeddings", {"input": text}, timeout_s)
        if isinstance(answer, Canary):
            return answer

        return Canary(bool(answer.get("data")), "the answer has no vector")

    async def rerank(self, timeout_s: float, text: str = "pong") -> Canary:
        """Ask for the ranking of one document."""
        answer = await self._post("/v1/rerank", {"query": "ping", "documents": [text]}, timeout_s)
        if isinstance(answer, Canary):
            return answer

        return Canary(bool(answer.get("results")), "the answer has no result")

    async def _post(self, path: str, body: dict[str, object], timeout_s: float) -> dict[str, object] | Canary:
        try:
            response = await self._ask("POST", path, timeout_s, body)
            answer = _json(response) if response.status_code == 200 else None
        except httpx.TimeoutException:
            return Canary(False, f"no answer to POST {path} within {timeout_s:g} s")
        except (httpx.HTTPError, ValueError) as error:
            return Canary(False, f"POST {path}: {type(error).__name__}: {error}", cut=True)

        if not isinstance(answer, dict):
            detail = f"POST {path} answered {response.status_code}: {response.text[:300]}"
            return Canary(False, detail, status=response.status_code)

        return answer

    async def _ask(
        self, method: str, path: str, timeout_s: float, body: dict[str, object] | None = None
    ) -> httpx.Response:
        """:raises httpx.HTTPError: when there is no answer"""
        try:
            with anyio.fail_after(timeout_s + _WHOLE_EXTRA_S):
                async with self._client.stream(method, path, json=body, timeout=timeout_s) as response:
                    return await _read_whole(response)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"the answer to {path} did not end in time") from error
        except (AttributeError, OSError) as error:
            # anyio asks a new connection for its addresses. When the engine died in that instant, uvloop has no socket
            # any more, or the kernel no peer.
            raise httpx.ConnectError(f"closed while it was being opened: {error}") from error


async def _read_whole(response: httpx.Response) -> httpx.Response:
    """Return the response with its body.

    :raises httpx.RemoteProtocolError: when it is too large
    """
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise httpx.RemoteProtocolError(f"the answer has more than {MAX_ANSWER_BYTES >> 20} MiB")

    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body))


def _json(response: httpx.Response) -> object:
    """Return the decoded body.

    :raises ValueError: when it is no JSON, or nested too deeply
    """
    try:
        answer: object = response.json()
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None

    level = [answer]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _children(each) if isinstance(child, (dict, list))]
        if not level:
            return answer

    raise ValueError(f"the answer is nested more than {MAX_DEPTH} levels deep")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()

    return value if isinstance(value, list) else ()


class _StreamReader:
    """Reads the events of a `/completion`; an engine that answers in one piece is read, too."""

    def __init__(self) -> None:
        self.steps: list[DrawnToken] = []
        self._last: dict[str, object] = {}
        self._error = ""

    async def read(self, parts: AsyncIterator[bytes], budget_s: float) -> None:
        """Read to the end, until the time is over, or to the end of what an answer may have."""
        until = monotonic() + budget_s
        rest, size = b"", 0
        async for part in parts:
            size += len(part)
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                self._take(line)

            if self._last or self._error or size > MAX_ANSWER_BYTES or (self.steps and monotonic() > until):
                return

        self._take(rest)

    def answer(self) -> Generation:
        if self._error:
            return Generation(Canary(False, f"POST /completion ended with an error: {self._error}", status=500))

        timings = self._last.get("timings")
        counts = timings if isinstance(timings, dict) else {}
        predicted = _count(counts.get("predicted_n"))
        if predicted is None:
            predicted = _count(self._last.get("tokens_predicted"))

        canary = Canary(True, "", len(self.steps) or predicted, _count(counts.get("draft_n")), status=200)
        return Generation(canary, tuple(self.steps), whole=bool(self._last))

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").removeprefix("data:").strip()
        try:
            event = json.loads(text.removeprefix("error:")) if text and text[0] in "{e" else None
        except (ValueError, RecursionError):
            return

        if not isinstance(event, dict):
            return

        error = event.get("error", event if text.startswith("error:") else None)
        if error is not None:
            self._error = str(error)[:300]
            return

        content = event.get("content")
        if isinstance(content, str) and content:
            self.steps.append(DrawnToken(content, _likely(event.get("completion_probabilities"))))

        if event.get("stop") is True:
            self._last = event


def drawn_tokens(told: object) -> tuple[DrawnToken, ...]:
    """Return the tokens of `completion_probabilities`, each with the likeliest ones; empty where it has none."""
    return tuple(
        DrawnToken(str(each.get("token", each.get("content", ""))), likeliest(each))
        for each in (told if isinstance(told, list) else ())
        if isinstance(each, dict)
    )


def likeliest(told: dict[str, object]) -> dict[str, float]:
    """Return the likeliest tokens at one position and their probabilities, in the words of either engine."""
    tops = told.get("top_logprobs") or told.get("top_probs") or told.get("probs")
    found: dict[str, float] = {}
    for each in tops if isinstance(tops, list) else ():
        if isinstance(each, dict):
            token, logprob = each.get("token", each.get("tok_str")), each.get("logprob")
            probability = math.exp(min(logprob, 0.0)) if isinstance(logprob, int | float) else each.get("prob")
            if isinstance(token, str) and isinstance(probability, int | float):
                found[token] = max(found.get(token, 0.0), float(probability))

    return found


def _likely(told: object) -> dict[str, float]:
    """Return the likeliest tokens of an event's one token; nothing where there are several, or none are told."""
    return likeliest(told[0]) if isinstance(told, list) and len(told) == 1 and isinstance(told[0], dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
