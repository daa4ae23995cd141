"""The seam between the data path and the one owner of state: what each tells the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from orchestrator.core.fleet.model_figures import Model
from orchestrator.core.fleet.routing_states import Endpoint, Refusal, RoutingView
from orchestrator.gateway.timings import EngineFigures

__all__ = [
    "Endpoint",
    "Finished",
    "Ledger",
    "Model",
    "EngineProgress",
    "Refusal",
    "RequestFacts",
    "RequestState",
    "Supervisor",
    "Traffic",
    "Underway",
    "RoutingView",
]

RequestState = Literal["receiving", "held", "sent", "answering", "recovering"]
"""Its body arrives; it waits for an instance; an instance has it and has said nothing; an answer is on its way to the
client; its instance failed, and what that means is found out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts(EngineFigures):
    """One request, as far as it has come. Nothing of its text is in it.

    The one description of a request: the history's row (`core/measure/request_stats.RequestRecord`) and the dashboard's
    (`api/top_frames.RequestRow`) are made from the fields of the same name.

    :param id: counts the requests of this daemon
    :param outcome: `held` in the queue or `running`; at its end `complete`, `error`, `client_gone` or `cancelled`
    :param started: when it arrived (monotonic)
    :param held_s: time in the queue
    :param first_token_s: from the request's arrival to the first token of a stream; None for a whole answer
    :param total_s: from its arrival to its end, or until now
    :param instance: the last one that it was sent to; None for a request that never got to one
    :param profile: what answered, else what the client asked for; `engine` and `build` are those of the instance
    :param client: the name of the key that it came with; None for a key without a name, or no key
    :param request_id: its `X-Request-Id`
    """

    id: int = 0
    route: str
    outcome: str
    started: float = 0.0
    held_s: float
    first_token_s: float | None
    total_s: float
    instance: str | None
    profile: str | None = None
    engine: str | None = None
    build: str | None = None
    client: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway(RequestFacts):
    """One request that has not ended. The engine has counted nothing yet.

    :param model: the name that the client asked for
    :param since: when it entered its state (monotonic)
    """

    model: str | None = None
    state: RequestState = "sent"
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineProgress:
    """What is known of the engine's work for one request; None where the engine does not tell.

    :param prompt_done: the share of its prompt that was read, 0 to 1
    """

    prompt_done: float | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(RequestFacts):
    """One request that ended, for the speed figures, the metrics and the history.

    :param status: that the client was given; 499 where it left before
    :param error_status: that the engine named in a stream which had begun with a 200
    :param replays: how often it was sent again because an engine died
    """

    status: int
    error_status: int | None = None
    replays: int = 0

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
        tokens, ms = self.output_tokens, self.output_ms
        return (tokens - 1) * 1000 / ms if tokens and tokens > 1 and ms else None


class Supervisor(Protocol):
    """The routing view, as the daemon publishes it (`daemon/fleet/router.py`)."""

    def view(self) -> RoutingView:
        """Return the view of this moment; never blocks."""
        ...

    async def changed(self, generation: int) -> RoutingView:
        """Wait for the first view that is newer than this generation."""
        ...


class Ledger(Protocol):
    """The book of requests that ended (`daemon/telemetry/ledger.py`)."""

    def finished(self, record: Finished) -> None:
        """Enter a request that has ended."""
        ...

    def refused(self, code: str) -> None:
        """Count a request that got no further than the guard: `invalid_api_key` or `too_many_requests`."""
        ...


class Traffic(Protocol):
    """The gateway's counters of what clients do, as the daemon reads them (`gateway/dispatch.py`)."""

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
