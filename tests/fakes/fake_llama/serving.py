"""The routes of a fake engine and what goes wrong in them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from tests.fakes.fake_llama import answers
from tests.fakes.fake_llama.dying import die
from tests.fakes.fake_llama.faults import Faults, Files
from tests.fakes.fake_llama.texts import Log
from tests.fakes.fake_llama.web import ClientGone, Request

FOR_EVER_S = 1e6
LOOK_S = 0.02


class Engine:
    """One running engine."""

    def __init__(
        self, faults: Faults, files: Files, log: Log, *, upstream: bool, model: str, key: str, slots: int, drafts: bool
    ) -> None:
        self.loaded = threading.Event()
        self._faults = faults
        self._files = files
        self._log = log
        self._upstream = upstream
        self._model = model
        self._key = key
        self._slots = threading.Semaphore(slots)
        self._n_slots = slots
        self._drafts = drafts
        self._lock = threading.Lock()
        self._tasks = 0
        self._numbered = 0
        self._asked = 0
        self._lost = False
        self._busy: dict[int, int] = {}
        self._healthy = 0

    def handle(self, request: Request) -> None:
        if not self.loaded.is_set():
            request.reply(503, answers.error(503, "unavailable_error", "Loading model"))
        elif request.path in ("/health", "/v1/health"):
            self._health(request)
        elif self._key and request.headers.get("authorization") != f"Bearer {self._key}":
            request.reply(401, answers.error(401, "authentication_error", "Invalid API Key"))
        elif request.path in answers.ROUTES and request.method == "POST":
            self._infer(request, answers.ROUTES[request.path])
        elif request.path == "/slots":
            self._files.asked(request.path)
            if self._faults.hang == "slots":
                time.sleep(FOR_EVER_S)

            request.reply(200, json.dumps(self._slot_states()).encode())
        elif request.path == "/props":
            request.reply(200, json.dumps({"model_path": self._model, "total_slots": self._n_slots}).encode())
        elif request.path in ("/models", "/v1/models"):
            request.reply(200, json.dumps({"object": "list", "data": [{"id": self._model}]}).encode())
        else:
            request.reply(404, answers.error(404, "not_found_error", "File Not Found"))

    def _health(self, request: Request) -> None:
        if self._faults.hang == "health":
            time.sleep(FOR_EVER_S)

        state: dict[str, object] = {"status": "ok"}
        if not self._upstream:
            state |= {"slots_idle": self._n_slots - len(self._busy), "slots_processing": len(self._busy)}

        request.reply(200, json.dumps(state).encode())
        self._healthy += 1
        if self._faults.die_at == "health":
            die(self._faults, self._log)

    def _infer(self, request: Request, family: str) -> None:
        faults = self._faults
        with self._lock:
            self._tasks += 1
            task = self._tasks
            # The supervisor may ask several questions before it calls an engine ready; to the faults they are one.
            counts = bool(request.id) or not self._numbered
            self._numbered += counts
            number = self._numbered if counts else 0

            self._asked += bool(request.id)
            asked = self._asked

        self._files.note("accepted", id=request.id, task=task)
        if 0 < number == faults.oom_at_request:
            self._log.out_of_memory_serving()
            die(faults, self._log, signal_name="ABRT")

        if (faults.die_at == "request" and number >= faults.after) or (
            faults.poison and faults.poison.encode() in request.body
        ):
            die(faults, self._log)

        if request.id and faults.hang == "infer":
            time.sleep(FOR_EVER_S)

        outcome = "gone"
        try:
            while not self._slots.acquire(timeout=LOOK_S):
                request.check()

            try:
                self._log.request(task, "processing task, is_child = 0")
                self._answer(request, family, task, number, asked)
                outcome = "complete"
            finally:
                self._busy.pop(task, None)
                self._slots.release()
        except ClientGone:
            self._log.request(task, f"cancel task, id_task = {task}")
            raise
        finally:
            self._files.note("ended", id=request.id, task=task, outcome=outcome)

    def _answer(self, request: Request, family: str, task: int, number: int, asked: int) -> None:
        faults = self._faults
        if 0 < number == faults.oom_lives_at_request:
            self._log.decode_failed(task)
            request.reply(500, answers.error(500, "server_error", "Compute error."))
            return

        odd = faults.odd and faults.odd.encode() in request.body
        loses = faults.lost_by and faults.lost_by.encode() in request.body
        if loses and b"fake_error_after" not in request.body:
            self._lost = True

        if odd or self._lost or 0 < faults.lost_from <= asked:
            if not odd and faults.lost_says:
                self._log.line(f"srv    update_slots: decode() failed: {faults.lost_says}", "E")

            said = f"decode() failed: {faults.lost_says}" if not odd else "invalid UTF-8 byte at index 1: 0xC3"
            request.reply(faults.lost_status, answers.error(faults.lost_status, "server_error", said))
            return

        if faults.refuse:
            request.reply(faults.refuse, answers.error(faults.refuse, "server_error", "Compute error."))
            return

        body: dict[str, Any] = json.loads(request.body)
        count = answers.tokens_wanted(body)
        began = time.monotonic()
        prompt_s = faults.prompt_s if request.id else 0.0
        while (left_s := began + prompt_s - time.monotonic()) > 0:
            request.check()
            time.sleep(min(left_s, LOOK_S))

        if request.id and faults.die_at == "first-byte":
            die(faults, self._log)

        streams = body.get("stream") is True
        if streams:
            request.begin()
            for event in answers.opening(family, self._model):
                request.chunk(event)

        text = ""
        slow_by = faults.slow_by if request.id and 0 < faults.slow_after <= asked else 1.0
        tokens_s = faults.tokens_s / slow_by / float(body.get("fake_slow_by", 1.0))
        if not request.id:
            tokens_s = max(tokens_s, 500.0)  # nothing here is about the canary's time

        first = time.monotonic()
        for index in range(count):
            time.sleep(max(first + index / tokens_s - time.monotonic(), 0))
            self._busy[task] = index + 1
            piece = f" {self._files.instance}:{index}"
            text += piece
            if streams:
                request.chunk(answers.token(family, piece, self._model))
            elif index % 32 == 0:
                request.check()

            if index + 1 == body.get("fake_stall_after"):
                while True:
                    request.check()
                    time.sleep(LOOK_S)

            if streams and index + 1 == body.get("fake_error_after"):
                if loses:
                    self._lost = True
                    self._log.line(f"srv    update_slots: decode() failed: {faults.lost_says}", "E")

                request.chunk(answers.failing(family, "Compute error."))
                request.end()
                return

            if request.id and faults.die_at == "mid-stream" and index + 1 >= faults.after:
                die(faults, self._log)

        drafts = self._drafts and not (request.id and 0 < faults.draft_requests < asked)
        drafted = count * 2 if drafts else None
        took_s = time.monotonic() - first
        cached = int(body.get("fake_cached", 0))
        right = float(body.get("fake_right", 0.5))
        figures = answers.timings(
            count, prompt_s, took_s, upstream=self._upstream, drafted=drafted, right=right, cached=cached
        )
        if streams:
            for event in answers.closing(family, count, self._model, figures):
                request.chunk(event)

            request.end()
        else:
            request.reply(200, answers.compact(answers.whole(family, text, count, self._model, figures)))

    def _slot_states(self) -> list[dict[str, object]]:
        busy = list(self._busy.items())
        states: list[dict[str, object]] = []
        for index in range(self._n_slots):
            state: dict[str, object] = {"id": index, "n_ctx": 4096, "is_processing": index < len(busy)}
            if index < len(busy):
                task, decoded = busy[index]
                state |= {"id_task": task, "next_token": [{"has_next_token": True, "n_decoded": decoded}]}

            states.append(state)

        return states
