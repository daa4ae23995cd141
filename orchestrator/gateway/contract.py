"""What the gateway knows of the daemon, and asks of it: the seam between the data path and the one owner of state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.fleet.routing import Endpoint, Model, Refusal, RoutingView

View = RoutingView

__all__ = ["Endpoint", "Finished", "Ledger", "Model", "Refusal", "Supervisor", "Traffic", "Underway", "View"]


@dataclass(frozen=True, slots=True)
class Finished:
    """One request that ended, for the speed figures, the metrics and the history. Nothing of its text is in it.

    Counts are None where the engine did not say. `outcome` is one of `complete`, `error`, `client_gone`.

    :param instance: the last one that it was sent to; None for a request that never got to one
    :param held_s: time in the queue
    :param first_token_s: from the request's arrival to the first token of a stream; None for a whole answer
    :param replays: how often it was sent again because an engine died
    :param started: when it arrived (monotonic)
    :param id: counts the requests of this daemon
    :param profile: what answered, else what the client asked for; `engine` and `build` are those of the instance
    :param depth_tokens: of context at the end, those that were in the engine's cache included
    """

    instance: str | None
    route: str
    status: int
    outcome: str
    held_s: float
    first_token_s: float | None
    total_s: float
    prompt_tokens: int | None = None
    prompt_ms: float | None = None
    predicted_tokens: int | None = None
    predicted_ms: float | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None
    replays: int = 0
    started: float = 0.0
    id: int = 0
    profile: str | None = None
    engine: str | None = None
    build: str | None = None
    depth_tokens: int | None = None

    @property
    def prompt_tok_s(self) -> float | None:
        """Tokens of the prompt that were computed, a second."""
        return self.prompt_tokens * 1000 / self.prompt_ms if self.prompt_tokens and self.prompt_ms else None

    @property
    def decode_tok_s(self) -> float | None:
        """Tokens of the answer, a second.

        The engines define their own `predicted_per_second` differently (upstream over n - 1 steps, the fork over n).
        Here n tokens need n - 1 steps after the prompt, because the prompt's last step yields the first one.
        """
        tokens, ms = self.predicted_tokens, self.predicted_ms
        return (tokens - 1) * 1000 / ms if tokens and tokens > 1 and ms else None


@dataclass(frozen=True, slots=True)
class Underway:
    """One request that has not ended; fields as of `Finished`.

    :param waits: it is in the queue
    :param instance: the engine that it was sent to, or None
    """

    id: int
    route: str
    waits: bool
    held_s: float
    first_token_s: float | None
    started: float
    profile: str | None
    engine: str | None
    build: str | None
    instance: str | None


class Supervisor(Protocol):
    """Where requests go, as the daemon publishes it (`daemon/fleet/router.py`)."""

    def view(self) -> View:
        """Return the view of this moment; never blocks."""
        ...

    async def changed(self, generation: int) -> View:
        """Wait for the first view that is newer than this generation."""
        ...


class Ledger(Protocol):
    """Where requests that ended are entered (`daemon/telemetry/ledger.py`)."""

    def finished(self, record: Finished) -> None: ...


class Traffic(Protocol):
    """The gateway's counters of what clients do, as the daemon reads them (`gateway/server.py`)."""

    @property
    def active(self) -> int:
        """The number of requests that have not ended, those in the queue included."""
        ...

    @property
    def queued(self) -> int:
        """The number of requests that wait for an instance."""
        ...

    def in_flight(self, instance: str) -> int:
        """Return the number of requests that an instance is working on."""
        ...

    def relayed(self, instance: str) -> int:
        """Return the bytes of answers that an instance has given."""
        ...

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        """Return the streams that had tokens and now have none: request id to seconds of silence, `stall_s` or more."""
        ...
