"""What the gateway knows of the daemon, and asks of it: the seam between the data path and the one owner of state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a ready instance answers.

    :param instance: id of the instance; requests are counted under it until they end
    :param api_key: the key that the engine wants; clients never see it
    """

    instance: str
    profile: str
    engine: str
    host: str
    port: int
    api_key: str | None


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
    """Why nothing is ready and nothing is expected: what a client is told."""

    message: str
    code: str
    retry_after_s: int | None


@dataclass(frozen=True, slots=True)
class View:
    """What the gateway goes by, replaced whole at each change.

    Exactly one of three: `serving` is set (route there), or `refusal` is set (answer it at once), or both are None
    (something is on its way: hold).

    :param generation: grows by one with each change
    :param progress: what a held client is told, `loading demo`
    """

    generation: int
    serving: Endpoint | None
    refusal: Refusal | None
    progress: str
    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """One request that ended, for the speed figures and the history.

    Counts are None where the engine did not say. `outcome` is one of `complete`, `error`, `client_gone`.
    """

    instance: str | None
    route: str
    status: int
    outcome: str
    held_s: float
    first_byte_s: float | None
    total_s: float
    prompt_tokens: int | None = None
    prompt_ms: float | None = None
    predicted_tokens: int | None = None
    predicted_ms: float | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None


class Supervisor(Protocol):
    """The daemon as the gateway sees it.

    `view` never blocks; `changed` returns the first view newer than `generation`.
    """

    def view(self) -> View: ...

    async def changed(self, generation: int) -> View: ...

    def finished(self, record: Finished) -> None: ...

    def metrics(self) -> bytes: ...
