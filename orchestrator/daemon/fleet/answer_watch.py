"""Watches how the answers of one instance end, and asks a question of its own when they all fail.

`core/health/outcomes.py` decides. New requests are held once a question of our own has failed, too; the instance is
ended after a second one, with other words, since the text that is drawn can make an engine fail.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import anyio

from orchestrator.adapters.engine_probe import Canary, EngineProbe
from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.failure.while_serving import last_failed
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.serving import answers_failed
from orchestrator.core.health.outcomes import (
    SUSPICIOUS_AFTER,
    AnswerWindow,
    Outcome,
    add_outcome,
    after_question,
    outcome_of,
    outcome_of_question,
    suspicious,
)
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.gateway.contract import Finished

SECOND_QUESTION_AFTER_S = 1.0

LOG_COMES_S = 0.05
"""For the engine's line about an error to arrive: it is written before the answer, and takes another way."""

_PROMPTS = ("The capital of France is", "1 2 3 4 5 6")
_TOKENS = 4

_WITHOUT_TOKENS = ("embed", "rerank")
"""Parts of the routes whose answers have no tokens."""


class AnswerWatch:
    """The answers of one instance.

    :param record: notes an event for people: its kind, and a sentence
    :ivar due: set when a question is due
    :ivar answered: requests that went well; `failed` counts the others
    """

    def __init__(self, run: EngineRun, record: Callable[[str, str], None]) -> None:
        self._run = run
        self._record = record
        self._window = AnswerWindow()
        self._first_line = run.log.next_seq
        self._told = False
        self._judged = anyio.Event()
        self._given_up = False
        self.due = anyio.Event()
        self.answered = 0
        self.failed = 0

    def finished(self, record: Finished) -> None:
        """Take in a request that has ended."""
        generates = not any(part in record.route for part in _WITHOUT_TOKENS)
        status = record.error_status or record.status
        outcome = outcome_of(status, record.outcome, record.output_tokens, generates=generates)
        if outcome == "answered":
            self.answered += 1
            self._window, self._told = AnswerWindow(), False
            self._run.failing = ""
            self._first_line = self._run.log.next_seq
        elif outcome == "failed":
            self.failed += 1
            self._window = add_outcome(self._window, outcome, in_log=self._line() is not None)
            if suspicious(self._window, monotonic()):
                self.due.set()

    async def given_up(self, timeout_s: float) -> bool:
        """Take in an error before its client is told of it, and return whether the instance is given up for it.

        At once where nothing speaks for that; else when the question of our own is answered, or is not.
        """
        if self._line() is None:
            await anyio.sleep(LOG_COMES_S)

        window = add_outcome(self._window, "failed", in_log=self._line() is not None)
        if suspicious(window, monotonic()) and not self._given_up:
            self._window = window
            judged = self._judged
            self.due.set()
            with anyio.move_on_after(timeout_s):
                await judged.wait()

        return self._given_up

    def gone(self) -> None:
        """The instance serves no more: nobody waits any longer for what becomes of it."""
        self._judge(given_up=True)

    def _judge(self, *, given_up: bool) -> None:
        self._given_up = given_up
        self._judged.set()
        self._judged = anyio.Event()

    def look(self) -> bool:
        """Return whether a question is due; the log may tell of streams that ended with an error in them.

        Whatever is done about it, `due` is for the next one.
        """
        self.due = anyio.Event()
        self._window = add_outcome(self._window, "neutral", in_log=self._line() is not None)
        return suspicious(self._window, monotonic())

    async def check(self, probe: EngineProbe, timeout_s: float, hold: Callable[[str], None]) -> Failure | None:
        """Ask questions of our own.

        :param hold: called with a sentence once new requests are to be held; they are let go again when None comes back
        :return: why the instance is to be ended
        """
        failures = self._window.failures
        outcome, _ = await self._ask(probe, 0, timeout_s)
        if outcome == "failed":
            self._judge(given_up=True)
            hold(f"new requests wait: the last {failures} answers and one to orch itself were errors")
            await anyio.sleep(SECOND_QUESTION_AFTER_S)
            outcome, said = await self._ask(probe, 1, timeout_s)
            if outcome == "failed":
                return answers_failed(failures, self._line(), said)

        self._judge(given_up=False)
        if failures >= SUSPICIOUS_AFTER and not self._told:
            self._told = True
            own = "orch itself was answered" if outcome == "answered" else "orch itself was not answered in time"
            self._run.failing = f"the last {failures} answers were errors, and {own}: see `orch logs`"
            self._record("answers_failed", f"{self._run.launch.target}: {self._run.failing}")

        self._window = after_question(self._window, monotonic())
        self._first_line = self._run.log.next_seq
        return None

    async def _ask(self, probe: EngineProbe, number: int, timeout_s: float) -> tuple[Outcome, str]:
        answer = await ask_briefly(probe, self._run, number, timeout_s)
        outcome = outcome_of_question(ok=answer.ok, status=answer.status, cut=answer.cut, detail=answer.detail)
        return outcome, answer.detail

    def _line(self) -> LogRecord | None:
        """Return the engine's own line about a request that could not be computed, where none went well after it."""
        self._run.log_cursor.catch_up_now()
        return last_failed(self._run.log_cursor.records, self._first_line)


async def ask_briefly(probe: EngineProbe, run: EngineRun, number: int, timeout_s: float) -> Canary:
    """Ask an instance that serves for a short answer of its profile's purpose.

    :param number: of the question; each has words of its own
    """
    settings = run.launch.profile.settings
    prompt = _PROMPTS[number % len(_PROMPTS)]
    if settings.get("server.embeddings") is True:
        return await probe.embed(timeout_s, prompt)

    if settings.get("server.reranking") is True:
        return await probe.rerank(timeout_s, prompt)

    return await probe.complete(prompt, _TOKENS, timeout_s)
