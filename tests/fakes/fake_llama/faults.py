"""What a fake engine shall do, read from files beside its model, and what it did, written there.

MODEL.faults.json    one object, or a list: start N takes entry N, the last one goes on
MODEL.starts         one line of JSON for each start
MODEL.requests       one line of JSON for each request that was accepted, and for each that ended
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Faults:
    """Everything is off by default. Times in seconds.

    :param load_s: how long loading takes
    :param load_moves: whether loading shows progress (log lines)
    :param load_computes: whether loading keeps a core busy
    :param bind_after_s: how long it waits before it takes its port
    :param die_at: spawn, load, ready, health (after the first good answer), first-byte, mid-stream, request
    :param after: tokens before `mid-stream`, requests before `request`, seconds after `ready`. `first-byte` and
        `mid-stream` spare the canary, and so does `hang: infer`
    :param poison: a prompt that holds this text kills the process
    :param signal: die by this one instead of by `exit`, `SEGV`
    :param say: lines on stderr right before the end
    :param oom_below_mib: loading runs out of device memory with a smaller margin
    :param oom_mib: the allocation that fails then
    :param free_mib: what its device has free when it begins, as it says
    :param oom_at_request: request N (the canary is the first) runs out of device memory: CUDA's abort
    :param oom_lives_at_request: request N is answered with an error for want of device memory, and the engine lives on
    :param hang: health, infer, accept, slots
    :param refuse: status that every inference is answered with
    :param odd: a prompt that holds this text is answered with an error about the text that was drawn
    :param lost_from: from client's request N on, each inference is answered with an error, and the engine lives on
    :param lost_by: a prompt that holds this text loses the device: it and each later one are answered with an error;
        with `fake_error_after` in its body once that many tokens are out
    :param lost_says: what its log says then; nothing when it is empty
    :param lost_status: of those errors
    :param slow_term_s: how long an orderly end takes
    :param grandchild: leaves a process that holds the log's pipe: pgid (same group) or setsid (escaped)
    :param log_lines_s: lines printed per second while it lives
    :param log_bytes: garbage of this size on one line, invalid UTF-8 and terminal sequences in it
    :param prompt_s: time before the first token of a client's request
    :param tokens_s: tokens per second
    :param slow_after: from client's request N on, tokens take `slow_by` times as long
    :param with_words: by words of the command line, such as `--ubatch-size 1024`: what else such a start shall do
    :param draft_requests: so many requests of clients are answered with drafts, the later ones without; 0 for all

    A client's request may say in its body what only it shall meet: `fake_cached`, tokens of its context that are said
    to have been in the cache; `fake_right`, the share of its drafts that are right (0.5); `fake_slow_by`, as `slow_by`;
    `fake_stall_after`, tokens after which its stream stands still; `fake_error_after`, tokens after which its stream
    ends with an error.
    """

    bind_after_s: float = 0.0
    load_s: float = 0.0
    load_moves: bool = True
    load_computes: bool = False
    die_at: str = ""
    after: float = 0
    poison: str = ""
    exit: int = 1
    signal: str = ""
    say: tuple[str, ...] = ()
    oom_below_mib: int = 0
    oom_mib: float = 0
    free_mib: int = 0
    oom_at_request: int = 0
    oom_lives_at_request: int = 0
    hang: str = ""
    refuse: int = 0
    odd: str = ""
    lost_from: int = 0
    lost_by: str = ""
    lost_says: str = ""
    lost_status: int = 500
    ignore_term: bool = False
    slow_term_s: float = 0.0
    grandchild: str = ""
    reuseport: bool = False
    log_lines_s: float = 0.0
    log_bytes: int = 0
    prompt_s: float = 0.0
    tokens_s: float = 500.0
    slow_after: int = 0
    slow_by: float = 1.0
    draft_requests: int = 0
    with_words: dict[str, dict[str, object]] = field(default_factory=dict)


class Files:
    """The files beside a model."""

    def __init__(self, model: str, instance: str) -> None:
        self._model = model
        self.instance = instance

    def begin(self, argv: list[str], port: int) -> Faults:
        """Count this start, and read what it shall do."""
        number = self._append("starts", {"argv": argv, "port": port, "pid": os.getpid()})
        try:
            with open(f"{self._model}.faults.json", encoding="utf-8") as file:
                wanted = json.load(file)
        except FileNotFoundError:
            return Faults()

        entry = wanted[min(number, len(wanted)) - 1] if isinstance(wanted, list) else wanted
        line = f" {' '.join(argv)} "
        for words, more in entry.get("with_words", {}).items():
            entry = {**entry, **more} if f" {words} " in line else entry

        known = {each.name for each in fields(Faults)}
        assert known >= set(entry), f"unknown faults: {set(entry) - known}"
        return Faults(**entry)

    def note(self, event: str, **what: object) -> None:
        self._append("requests", {"event": event, **what})

    def asked(self, path: str) -> None:
        self._append("asked", {"path": path})

    def mark(self, name: str) -> None:
        """Leave a file that says that something happened."""
        with open(f"{self._model}.{name}", "w", encoding="utf-8") as file:
            file.write(self.instance)

    def _append(self, name: str, what: dict[str, object]) -> int:
        """:return: how many lines the file has now"""
        row = json.dumps({"instance": self.instance, "time": time.monotonic(), **what}) + "\n"
        with open(f"{self._model}.{name}", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(row.encode())
            file.flush()
            os.fsync(file.fileno())
            if name != "starts":
                return 0

            file.seek(0)
            return sum(1 for _ in file)
