"""The buffers that an engine says it made while it loaded, by device and by what is in them. Pure.

Each context (the model's, then a drafter's) prints its buffers after a line that begins it. A context may reserve its
compute buffers again, and the last ones count; its caches may be several, which add up. Weights that are read once a
context is there are a drafter's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.engine_log.events import BufferKind
from orchestrator.core.quantities import MIB

_HOST = re.compile(r"CPU|\w+_Host|BLAS|AMX|Host")
_SUFFIX = re.compile(r"(?:_Mapped|_Private|_REPACK)$|\[.*\]$")

HOST = "host"


@dataclass(frozen=True, slots=True)
class _Context:
    """The buffers of one context, MiB, by the engine's name of the buffer and by kind."""

    sizes: Mapping[tuple[str, BufferKind], float] = field(default_factory=dict)
    attention_mib: float | None = None

    def state_share(self) -> float:
        """Return how much of each KV buffer is recurrent state, 0 to 1."""
        cache = sum(mib for (_, kind), mib in self.sizes.items() if kind == "kv")
        if self.attention_mib is None or not cache:
            return 0.0

        share = 1 - self.attention_mib / cache
        return share if share > 0.0005 else 0.0  # two figures that were rounded


@dataclass(frozen=True, slots=True)
class LoadedMemory:
    """What was printed so far."""

    weights: Mapping[str, float] = field(default_factory=dict)
    draft_weights: Mapping[str, float] = field(default_factory=dict)
    contexts: tuple[_Context, ...] = ()

    def with_buffer(self, buffer: str, kind: BufferKind, mib: float) -> LoadedMemory:
        """Return the memory with one buffer more."""
        if kind == "weights":
            if any(context.sizes for context in self.contexts):
                return replace(self, draft_weights=_added(self.draft_weights, buffer, mib))

            return replace(self, weights=_added(self.weights, buffer, mib))

        context = self.contexts[-1] if self.contexts else _Context()
        before = context.sizes.get((buffer, kind), 0.0) if kind in ("kv", "state") else 0.0
        changed = replace(context, sizes={**context.sizes, (buffer, kind): before + mib})
        return replace(self, contexts=(*self.contexts[:-1], changed))

    def with_attention_cache(self, mib: float) -> LoadedMemory:
        """Return the memory with the part of the newest context's KV buffers that is no recurrent state."""
        if not self.contexts:
            return self

        return replace(self, contexts=(*self.contexts[:-1], replace(self.contexts[-1], attention_mib=mib)))

    def with_context(self) -> LoadedMemory:
        """Return the memory after the beginning of a context, which several lines tell."""
        if self.contexts and not self.contexts[-1].sizes:
            return self

        return replace(self, contexts=(*self.contexts, _Context()))

    def by_place(self) -> dict[str, dict[str, int]]:
        """Return bytes by place and component (`core/plan`): `host`, or a device as the engine names it.

        A drafter's output buffer is added to the model's.
        """
        found: dict[str, dict[str, float]] = {}
        for name, sizes in (("weights", self.weights), ("draft_weights", self.draft_weights)):
            for buffer, mib in sizes.items():
                _put(found, buffer, name, mib)

        for number, context in enumerate(self.contexts):
            state = context.state_share()
            for (buffer, kind), mib in context.sizes.items():
                if number and kind in ("kv", "state"):
                    _put(found, buffer, "draft_kv", mib)
                elif number and kind == "compute":
                    _put(found, buffer, "draft_compute", mib)
                elif kind == "kv" and state:
                    _put(found, buffer, "kv", mib * (1 - state))
                    _put(found, buffer, "state", mib * state)
                else:
                    _put(found, buffer, kind, mib)

        return {place: {name: round(mib * MIB) for name, mib in row.items()} for place, row in found.items()}


def place_of(buffer: str) -> str:
    """Return where a buffer is: `host`, or the device's name without an address."""
    name = _SUFFIX.sub("", buffer)
    return HOST if _HOST.fullmatch(name) else name


def _added(sizes: Mapping[str, float], buffer: str, mib: float) -> dict[str, float]:
    return {**sizes, buffer: sizes.get(buffer, 0.0) + mib}


def _put(found: dict[str, dict[str, float]], buffer: str, component: str, mib: float) -> None:
    row = found.setdefault(place_of(buffer), {})
    row[component] = row.get(component, 0.0) + mib
