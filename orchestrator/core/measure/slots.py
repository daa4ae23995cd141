"""The slots of an engine, as its answer to `GET /slots` tells them. Pure.

Upstream tells `is_processing`, the prompt's counts and a list `next_token`; the fork `state` (1 is at work), `n_past`
and an object `next_token`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_TELLS_WORK = frozenset({"is_processing", "state", "id_task"})
"""Each engine's slots have at least one of these; an object without any is no slot."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot; None where the engine does not tell.

    :param task: the request that it works on, or has worked on last
    :param decoded: tokens generated for it so far
    :param prompt_read: tokens of its prompt that were computed, without those from the cache
    :param prompt: tokens of its prompt or, in upstream since autumn 2026, all that the slot holds
    :param told: the share of the prompt that was read, 0 to 1, where the engine's log tells it
    :param past: tokens that the slot holds, in the fork and in older builds of upstream
    """

    id: int
    busy: bool
    context: int
    task: int | None = None
    decoded: int | None = None
    prompt_read: int | None = None
    prompt: int | None = None
    told: float | None = None
    past: int | None = None

    @property
    def reading(self) -> bool:
        """True while it reads its prompt."""
        return self.busy and not self.decoded

    @property
    def prompt_done(self) -> float | None:
        """The share of the prompt that was read, 0 to 1; None where the engine does not tell."""
        if not self.busy:
            return None

        return self.told if self.reading else 1.0

    @property
    def counters(self) -> tuple[int | None, ...]:
        """The figures that move with its work, and only then."""
        return self.task, self.busy, self.decoded, self.prompt_read, self.prompt, self.past


def read_slots(answer: object) -> tuple[Slot, ...] | None:
    """Read an answer to `GET /slots`, of either engine; None when it is no list."""
    if not isinstance(answer, list):
        return None

    found = (each for each in answer if isinstance(each, dict) and _TELLS_WORK & each.keys())
    return tuple(_slot(each) for each in found if _whole(each, "id") is not None)


def _slot(found: dict[str, object]) -> Slot:
    next_token = found.get("next_token")
    nested = next_token[0] if isinstance(next_token, list) and next_token else next_token
    both = {**nested, **found} if isinstance(nested, dict) else found
    processing = found.get("is_processing")
    return Slot(
        id=_whole(found, "id") or 0,
        busy=processing if isinstance(processing, bool) else found.get("state") == 1,
        context=_whole(found, "n_ctx") or 0,
        task=_whole(found, "id_task"),
        decoded=_whole(both, "n_decoded"),
        prompt_read=_whole(found, "n_prompt_tokens_processed"),
        prompt=_whole(found, "n_prompt_tokens"),
        past=_whole(both, "n_past"),
    )


def _whole(found: Mapping[str, object], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
