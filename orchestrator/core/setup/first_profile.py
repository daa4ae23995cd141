"""A profile's first settings: what a use asks for, what the plan says of it, and the reason beside each number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import count
from typing import Literal, NamedTuple

from orchestrator.core.plan.plan import Plan
from orchestrator.core.profile.profile import SCHEMA_VERSION
from orchestrator.core.profile.settings import Value
from orchestrator.core.quantities import MIB
from orchestrator.core.terminal import quote_text

Use = Literal["chat", "agent", "several"]

USES: dict[Use, str] = {
    "chat": "one person who chats",
    "agent": "a coding agent or long documents: as much context as there is room for",
    "several": "several people or programs at once: four requests side by side",
}
"""What a profile can be made for."""

_WIDTH = 110


class Reasoned(NamedTuple):
    """A dotted key of a profile, its value, and why it has that."""

    key: str
    value: Value
    why: str


class Goal(NamedTuple):
    """What a use asks of a context.

    :param tokens: wanted, over all slots
    :param least: that are worth leaving a part of the model in host memory for
    """

    tokens: int
    least: int
    slots: int
    kv: tuple[str, ...]


GOALS: dict[Use, Goal] = {
    "chat": Goal(32768, 8192, 1, ("f16",)),
    "agent": Goal(131072, 32768, 1, ("f16", "q8_0")),
    "several": Goal(4 * 16384, 4 * 4096, 4, ("f16",)),
}

LEAST_CONTEXT = 4096
MARGINS_MIB = (1024, 1280, 1536, 2048)
"""Device memory that stays free at the first start, and at those after one that ran out of it."""


FIT = Reasoned("memory.fit", True, "the engine leaves in host memory what the device has no room for")


class ContextChoice(NamedTuple):
    """A context and a type of its cache, with the plan of a start with them."""

    tokens: int
    kv: str
    plan: Plan


def choose_context(goal: Goal, trained: int, plan: Callable[[int, str], Plan]) -> ContextChoice:
    """Return the largest context up to the goal with which all is on the devices, else with which it runs at all.

    :param trained: tokens that the model was made for; 0 where it does not say
    :param plan: of a context and a type of its cache
    """
    most = min(goal.tokens, trained * goal.slots) if trained else goal.tokens
    asked: list[ContextChoice] = []
    for tokens in _halves(most):
        for kv in goal.kv:
            choice = ContextChoice(tokens, kv, plan(tokens, kv))
            if choice.plan.judgement.verdict == "fits" and tokens >= min(goal.least, most):
                return choice

            asked.append(choice)

    for verdict in ("fits_with_offload", "fits", "unclear"):
        for choice in asked:
            if choice.plan.judgement.verdict == verdict and choice.kv == goal.kv[0]:
                return choice

    return asked[-1]


def context_reasons(choice: ContextChoice, goal: Goal, trained: int) -> Iterator[Reasoned]:
    """Yield the settings of a context with their reasons."""
    made_for = f" of the {trained} that the model was made for" if trained > choice.tokens else ""
    if trained and choice.tokens == trained:
        made_for = ", all that the model was made for"

    shared = f", {choice.tokens // goal.slots} for each of {goal.slots} slots" if goal.slots > 1 else ""
    yield Reasoned("context.size", choice.tokens, f"tokens{made_for}{shared}: {memory_words(choice.plan)}")
    slots = "one request at a time has all of the context" if goal.slots == 1 else "requests that are answered at once"
    yield Reasoned("context.parallel", goal.slots, slots)
    if choice.kv != "f16":
        yield Reasoned("kv.k", choice.kv, f"half of the memory of f16: with that, {choice.tokens} tokens fit")
        yield Reasoned("kv.v", choice.kv, "as kv.k")


def memory_words(plan: Plan) -> str:
    """Return in words what a start takes, and of what."""
    need = plan.need
    parts = []
    for index, room in enumerate(plan.devices):
        amount = need.device_total(index)
        of = "" if room.total_mib is None else f" of {room.total_mib}"
        parts.append(f"{_up_to(amount.low_mib, amount.high_mib)}{of} MiB on {quote_text(room.name, 60)}")

    host = need.host_total()
    if not parts:
        of = "" if plan.host.total_mib is None else f" of {plan.host.total_mib}"
        filled = sum(amount.high_bytes for name, amount in need.host.items() if name in ("prompt_cache", "checkpoints"))
        high = host.high_mib - filled / MIB
        return f"{_up_to(host.low_mib, high)}{of} MiB of host memory"

    if plan.judgement.verdict == "fits_with_offload":
        parts.append("the rest in host memory")

    return ", ".join(parts)


def profile_name(title: str) -> str:
    """Return a name that a profile may have, from a model's or a repository's."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", title).lower().removesuffix("-gguf")
    return re.sub(r"\.{2,}", ".", plain).strip("._-")[:60].strip("._-") or "model"


def free_name(wanted: str, quant: str, taken: Container[str]) -> str:
    """Return a name for a new profile: the one wanted; where it is taken, with the quantisation or a number behind."""
    if wanted not in taken:
        return wanted

    with_quant = profile_name(f"{wanted}-{quant}") if quant else wanted
    if with_quant not in taken:
        return with_quant

    return next(name for number in count(2) if (name := f"{wanted}-{number}") not in taken)


def profile_text(head: Sequence[str], first: Sequence[tuple[str, object]], settings: Sequence[Reasoned]) -> str:
    """Return the text of a profile, with a comment above each setting that says why it is so.

    :param head: comments in front of everything
    :param first: keys outside of tables
    """
    lines = [each for text in head for each in _comment(text)]
    lines += [f"schema = {SCHEMA_VERSION}", *(f"{key} = {_toml(value)}" for key, value in first)]
    tables = dict.fromkeys(each.key.partition(".")[0] for each in settings)
    for table in tables:
        lines += ["", f"[{table}]"]
        for each in settings:
            if each.key.partition(".")[0] == table:
                lines += [*_comment(each.why), f"{each.key.partition('.')[2]} = {_toml(each.value)}"]

    return "\n".join(lines) + "\n"


def _halves(tokens: int) -> Iterator[int]:
    yield tokens
    size = 1 << max(tokens - 1, 1).bit_length() - 1
    while size >= LEAST_CONTEXT:
        if size < tokens:
            yield size

        size //= 2


def _up_to(low: float, high: float) -> str:
    """Return an amount in MiB; one figure where its bounds are as good as one."""
    return f"{round(high)}" if high <= 1.02 * low else f"{round(low)} to {round(high)}"


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in quote_text(text, 2000).split():
        if len(line) + len(word) > _WIDTH and line != "#":
            yield line
            line = "#"

        line += f" {word}"

    yield line


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"

    if isinstance(value, str):
        # Both languages escape alike but for the one character that TOML wants escaped and JSON does not.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    return json.dumps(value)
