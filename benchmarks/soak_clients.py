"""The clients of a soak: they ask, read, sometimes leave, and judge what they got to the last byte."""

from __future__ import annotations

import functools
import http.client
import json
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.soak_plan import Ask
from orchestrator.engines.known.model import known_model
from tests.faults.lab import expected_text

DEADLINE_S = 60.0
"""A request that has not ended by then hangs."""

REAL = "embedded engine"


class Violation(AssertionError):
    """Raised at something that must never be seen."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a request.

    :param code: of an error, as the client was told
    :param detail: the error as it came
    :param instance: of a complete answer: the fake's own name for itself, or `REAL`
    """

    kind: Literal["complete", "error", "gone"]
    code: str = ""
    detail: str = ""
    instance: str = ""


class Clients:
    """A few clients that take the next request as soon as they have ended one."""

    def __init__(self, address: str, count: int) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.problems: list[str] = []
        self.slowest_s = 0.0
        self._address = address
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._open = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def send(self, ask: Ask) -> None:
        with self._changed:
            self._open += 1

        self._asks.put(ask)

    def wait_for_at_most(self, count: int, timeout_s: float = 4 * DEADLINE_S) -> None:
        """Wait until so many requests are left.

        :raises Violation: when it takes too long
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._open <= count, timeout_s):
                raise Violation(f"{self._open} requests have not ended within {timeout_s:g} s")

    def end(self) -> None:
        for _ in self._threads:
            self._asks.put(None)

        for thread in self._threads:
            thread.join(2 * DEADLINE_S)

    def tally(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.outcomes.values())

    def codes(self) -> Counter[str]:
        return Counter(outcome.code for outcome in self.outcomes.values() if outcome.kind == "error")

    def _work(self) -> None:
        while (ask := self._asks.get()) is not None:
            time.sleep(ask.wait_s)
            began = time.monotonic()
            outcome, problem = None, ""
            try:
                outcome = perform(self._address, ask)
            except Violation as violation:
                problem = f"{ask}: {violation}"
            except Exception as error:  # noqa: BLE001  (whatever it is, it is what a client saw)
                problem = f"{ask}: {error!r}"

            with self._changed:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if outcome is not None:
                    self.outcomes[ask.id] = outcome
                else:
                    self.problems.append(problem)

                self._open -= 1
                self._changed.notify_all()


def perform(address: str, ask: Ask, deadline_s: float = DEADLINE_S) -> Outcome:
    """Ask, and read to the end or until it is time to leave.

    :raises Violation: when it hangs, is cut, or is not what it says
    """
    now = time.monotonic()
    deadline = now + deadline_s
    leaves_at = deadline if ask.leaves_after_s is None else now + ask.leaves_after_s
    connection = http.client.HTTPConnection(address, timeout=deadline_s)
    response = None
    body = b""
    try:
        headers = {"content-type": "application/json", "x-request-id": ask.id}
        connection.request("POST", ask.route, json.dumps(ask.body()), headers)
        sock = connection.sock
        _limit(sock, leaves_at)
        response = connection.getresponse()
        while not response.isclosed() and response.length != 0:
            if ask.leaves_after_bytes is not None and len(body) >= ask.leaves_after_bytes:
                return _leave(ask, sock)

            _limit(sock, leaves_at)
            body += response.read1(65536)

        if response.length:
            raise Violation(f"the answer was cut after {len(body)} bytes: {body[-200:]!r}")
    except TimeoutError:
        if ask.leaves_after_s is not None:
            return _leave(ask, sock)

        raise Violation(f"not ended within {deadline_s:g} s; so far: {body[-200:]!r}") from None
    except (ConnectionError, http.client.HTTPException) as error:
        raise Violation(f"the answer was cut after {len(body)} bytes: {error!r}; {body[-200:]!r}") from error
    finally:
        if response is not None:
            response.close()

        connection.close()

    return judge(ask, response.status, response.getheader("content-type", ""), body)


def _limit(sock: socket.socket, until: float) -> None:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError

    sock.settimeout(left_s)


def _leave(ask: Ask, sock: socket.socket) -> Outcome:
    if ask.resets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return Outcome("gone")


def judge(ask: Ask, status: int, kind: str, body: bytes) -> Outcome:
    """Judge a whole answer.

    :raises Violation: when it is neither complete to the byte nor an error that says so
    """
    try:
        if kind.startswith("text/event-stream"):
            return _judge_stream(ask, status, list(_events(body)))

        answer = json.loads(body)
        if status != 200:
            if answer["error"].get("code", "") is None:  # every error that is meant has a code
                raise Violation(f"an exception that nobody caught: {answer}")

            return Outcome("error", code=_code(answer), detail=f"status {status}: {answer}")

        if ask.stream:
            raise Violation(f"not a stream: {body[-200:]!r}")

        return Outcome("complete", instance=check_text(ask, _whole_text(ask, answer)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Violation(f"status {status}, not to be understood ({error!r}): {body[-300:]!r}") from error


def check_text(ask: Ask, text: str) -> str:
    """Return who wrote a text: a fake engine, whose text carries its name and counts, or the known model.

    :raises Violation: when it is not all of the text of one engine
    """
    if text == known_text("\n" if ask.route != "/completion" else ask.prompt[-1], ask.tokens):
        return REAL

    instance = text[1:].partition(":")[0]
    if text != expected_text(instance, ask.tokens):
        raise Violation(f"not the text of one engine: {text[:100]!r} ... {text[-100:]!r}")

    return instance


@functools.cache
def known_text(last: str, tokens: int) -> str:
    return known_model(stops=True).greedy_text(last, tokens)


def _judge_stream(ask: Ask, status: int, events: list[Any]) -> Outcome:
    errors = [event for event in events if isinstance(event, dict) and "error" in event]
    complete = bool(events) and _is_last(ask, events)
    if status != 200 or not ask.stream:
        raise Violation(f"a stream with status {status}")

    if errors:
        if complete or events[-1] is not errors[0]:
            raise Violation(f"an error in the middle of a stream: {events[-3:]}")

        return Outcome("error", code=_code(errors[0]), detail=f"in a stream: {errors[0]}")

    if not complete:
        raise Violation(f"the stream stops without an end or an error: {events[-2:]}")

    return Outcome("complete", instance=check_text(ask, "".join(_piece(ask, event) for event in events)))


def _is_last(ask: Ask, events: list[Any]) -> bool:
    last = events[-1]
    if ask.route == "/v1/chat/completions":
        return last == "[DONE]" and str(events[-2]["choices"][0]["finish_reason"]) == "length"

    if ask.route == "/v1/messages":
        return isinstance(last, dict) and last.get("type") == "message_stop"

    return isinstance(last, dict) and last.get("stop") is True


def _piece(ask: Ask, event: Any) -> str:
    if event == "[DONE]":
        return ""

    if ask.route == "/v1/chat/completions":
        return event["choices"][0]["delta"].get("content") or ""

    if ask.route == "/v1/messages":
        return str(event["delta"]["text"]) if event["type"] == "content_block_delta" else ""

    return str(event["content"])


def _whole_text(ask: Ask, answer: Any) -> str:
    if ask.route == "/v1/chat/completions":
        return str(answer["choices"][0]["message"]["content"])

    if ask.route == "/v1/messages":
        return str(answer["content"][0]["text"])

    return str(answer["content"])


def _code(answer: Any) -> str:
    """The code of an error; Anthropic's dialect has types alone."""
    error = answer["error"]
    return str(error["code"]) if "code" in error else f"{error['type']} (Anthropic)"


def _events(body: bytes) -> Iterator[Any]:
    if body and not body.endswith(b"\n\n"):
        raise Violation(f"the stream ends within an event: {body[-200:]!r}")

    for line in body.decode().split("\n"):
        if line.startswith("data: "):
            yield "[DONE]" if line == "data: [DONE]" else json.loads(line[6:])
