"""The plan of a soak, decided by its seed alone: each switch with its troubles, each request with its client."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeVar

FAKES = ("upstream-1", "upstream-2", "fork-1", "fork-2")
EMBEDDED = "real"
EMBEDDED_BROKEN = "real-broken"
T = TypeVar("T")

EMBEDDED_SHARE = 0.15
"""It takes the longest to start."""

LADDER = (1024, 1536, 2048)
"""Margins of every fake profile, MiB."""

Start = Literal["well", "bad_model", "crash", "refuse", "oom", "oom_for_ever", "hang"]
Trouble = Literal["none", "kill", "segv", "pause", "stop"]
Route = Literal["/completion", "/v1/chat/completions", "/v1/messages"]

FAULTS: dict[Start, dict[str, object]] = {
    "well": {},
    "bad_model": {"die_at": "load", "say": ["gguf_init_from_reader: invalid magic characters: 'soak'"]},
    "crash": {"die_at": "load", "signal": "SEGV"},
    "refuse": {"refuse": 500},
    "oom": {"oom_below_mib": LADDER[-1], "oom_mib": 1},
    "oom_for_ever": {"oom_below_mib": 2 * LADDER[-1], "oom_mib": 1},
    "hang": {"hang": "infer"},
}
"""The words that make a fake engine start so: `tests/fakes/fake_llama/faults.py`."""

ENDS_WELL: frozenset[Start] = frozenset(("well", "oom", "hang"))
"""Starts that a switch survives: the ladder has a margin for `oom`, and `hang` shows itself only later."""

_STARTS: dict[Start, float] = {
    "well": 78, "bad_model": 5, "crash": 4, "refuse": 3, "oom": 4, "oom_for_ever": 3, "hang": 3,
}  # fmt: skip
_TROUBLES: dict[Trouble, float] = {"none": 66, "kill": 11, "segv": 9, "pause": 9, "stop": 5}
_ROUTES: dict[Route, float] = {"/completion": 5, "/v1/chat/completions": 3, "/v1/messages": 2}


@dataclass(frozen=True, slots=True)
class Cycle:
    """One switch.

    :param other: the target if `target` runs already
    :param start: how the target starts
    :param trouble: what happens to an engine: SIGKILL, SIGSEGV, SIGSTOP for `pause_s` s, or SIGSTOP for good
    :param during: while the switch is under way, `after_s` s after its begin; otherwise so long after its end
    :param victim: which engine it happens to during a switch
    :param patient: wait until an engine is ready before the switch begins
    """

    number: int
    target: str
    other: str
    strategy: Literal["beside", "replace"]
    start: Start
    trouble: Trouble
    during: bool
    victim: Literal["old", "new"]
    after_s: float
    pause_s: float
    patient: bool

    def __str__(self) -> str:
        parts = [f"cycle {self.number}: {self.target} (or {self.other}), {self.strategy}"]
        if self.start != "well":
            parts.append(f"starts with {self.start}")

        if self.trouble != "none":
            whom = f"the {self.victim} engine during the switch" if self.during else "the engine after it"
            lasts = f" for {self.pause_s:.2f} s" if self.trouble == "pause" else ""
            parts.append(f"{self.trouble}{lasts} {whom}, {self.after_s:.2f} s")

        return ", ".join(parts if self.patient else [*parts, "impatient"])


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    :param wait_s: how long the client waits before it asks
    :param leaves_after_s: it closes its connection then, unless it has its answer
    :param leaves_after_bytes: it closes once it has read so much of the answer
    :param resets: it leaves with a RST
    :param model: that it names; empty for none
    """

    number: int
    route: Route
    stream: bool
    tokens: int
    wait_s: float
    leaves_after_s: float | None
    leaves_after_bytes: int | None
    resets: bool
    model: str = ""

    @property
    def id(self) -> str:
        return f"soak-{self.number}"

    @property
    def prompt(self) -> str:
        """Each its own: equal requests are one to the quarantine. The known model looks at the last letter alone."""
        return f"{self.number}: A supervisor"

    @property
    def leaves(self) -> bool:
        return self.leaves_after_s is not None or self.leaves_after_bytes is not None

    def body(self) -> dict[str, object]:
        common: dict[str, object] = {"stream": self.stream, "temperature": 0}
        common |= {"model": self.model} if self.model else {}
        if self.route == "/completion":
            return {**common, "prompt": self.prompt, "n_predict": self.tokens, "cache_prompt": False}

        return {**common, "messages": [{"role": "user", "content": self.prompt}], "max_tokens": self.tokens}

    def __str__(self) -> str:
        kind = "stream" if self.stream else "whole"
        leaving = ""
        if self.leaves_after_s is not None:
            leaving = f", leaves after {self.leaves_after_s:.2f} s"
        elif self.leaves_after_bytes is not None:
            leaving = f", leaves after {self.leaves_after_bytes} bytes"

        return f"{self.id}: {self.route}, {kind}, {self.tokens} tokens{leaving}"


def cycle(seed: int, number: int) -> Cycle:
    """:param number: from 1"""
    dice = random.Random(f"{seed}/cycle/{number}")
    start = _drawn(dice, _STARTS)
    trouble = _drawn(dice, _TROUBLES)
    target = EMBEDDED if dice.random() < EMBEDDED_SHARE else dice.choice(FAKES)
    if target == EMBEDDED:
        start = "well" if start in ENDS_WELL else "bad_model"

    shown = EMBEDDED_BROKEN if target == EMBEDDED and start != "well" else target
    during = dice.random() < 0.5
    return Cycle(
        number=number,
        target=shown,
        other=dice.choice([each for each in FAKES if each != target]),
        strategy=dice.choice(("beside", "replace")),
        start=start,
        trouble=trouble,
        during=during,
        victim=dice.choice(("old", "new")),
        after_s=dice.uniform(0.0, 0.4 if during else 0.2),
        pause_s=dice.uniform(0.1, 0.6),
        patient=dice.random() < 0.7,
    )


def ask(seed: int, number: int) -> Ask:
    """:param number: from 1"""
    dice = random.Random(f"{seed}/request/{number}")
    stream = dice.random() < 0.5
    leaving = dice.random()
    return Ask(
        number=number,
        route=_drawn(dice, _ROUTES),
        stream=stream,
        tokens=dice.randint(10, 120) if stream else dice.randint(1, 40),
        wait_s=dice.uniform(0.0, 0.15),
        leaves_after_s=dice.uniform(0.0, 0.5) if leaving < 0.08 else None,
        leaves_after_bytes=dice.randint(1, 3000) if 0.08 <= leaving < 0.14 else None,
        resets=dice.random() < 0.5,
    )


def _drawn(dice: random.Random, weights: dict[T, float]) -> T:
    return dice.choices(list(weights), list(weights.values()))[0]
