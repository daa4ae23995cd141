"""What the gateway knows of the daemon, and asks of it: the seam between the data path and the one owner of state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ready instance answers.

    :param instance: id of the instance; requests are counted under it until they end
    :param api_key: the key that the engine wants; clients never see it
    :param build: which build of the engine it is
    """

    instance: str
    profile: str
    engine: str
    host: str
    port: int
    api_key: str | None
    build: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One profile as `/v1/models` shows it."""

    name: str
    aliases: tuple[str, ...]
    description: str
    status: str
    created: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is ready and nothing is expected: what a client is told.

    :param profile: the profile that it is about; clients that name another one may still be helped
    """

    message: str
    code: str
    retry_after_s: int | None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the gateway goes by, replaced whole at each change.

    Exactly one of three: `serving` is set (route there), or `refusal` is set (answer it at once), or both are None
    (something is on its way: hold).

    :param generation: grows by one with each change
    :param progress: what a held client is told, `loading demo`
    :param on_request: clients that name a profile which does not serve wait until it does
    :param unavailable: profiles that did not start a moment ago, and why
    :param fallen: the newest instances that ended by a failure of their own, not because somebody wanted them gone
    """

    generation: int
    serving: Endpoint | None
    refusal: Refusal | None
    progress: str
    models: tuple[Model, ...]
    on_request: bool = False
    unavailable: Mapping[str, Refusal] = field(default_factory=dict)
    fallen: tuple[str, ...] = ()

    def serves(self, profile: str | None) -> bool:
        """Whether a request for this profile can be sent now; None takes what serves."""
        return self.serving is not None and profile in (None, self.serving.profile)

    def refuses(self, profile: str | None) -> Refusal | None:
        """Why a request for this profile need not wait, if so."""
        if profile is None or not self.on_request:
            return self.refusal

        if profile in self.unavailable:
            return self.unavailable[profile]

        # Nothing runs, or something else failed: what the client asks for can be started for it.
        helped = (
            self.refusal is None or self.refusal.code == "not_running" or self.refusal.profile not in (None, profile)
        )
        return None if helped else self.refusal

    def decided(self, profile: str | None) -> bool:
        """Whether a request for this profile has nothing to wait for: it can be sent, or it is refused."""
        if self.serves(profile) or self.refuses(profile) is not None:
            return True

        return self.serving is not None and not self.on_request


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
    """The daemon as the gateway sees it.

    `view` never blocks; `changed` returns the first view newer than `generation`.
    """

    def view(self) -> View: ...

    async def changed(self, generation: int) -> View: ...

    def finished(self, record: Finished) -> None: ...

    async def metrics(self) -> bytes:
        """The page of `GET /metrics`, Prometheus' text format 0.0.4."""
        ...

    def demanded(self) -> None:
        """A request has begun to wait for a profile that does not serve (`Gateway.demand`)."""
        ...


class Traffic(Protocol):
    """The gateway's counters of what clients do, as the daemon reads them (`gateway/server.py`)."""

    @property
    def active(self) -> int:
        """The number of requests that have not ended, those in the queue included."""
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
