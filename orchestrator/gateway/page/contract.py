"""What the page shows, and what it asks of the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict

from orchestrator.api.top_frames import GpuFigures, HostFigures, Rates, RequestRow


class PageModel(TypedDict):
    """One model: what `/v1/models` says of it, and what `orch status` says where it is loaded or was.

    `state` is that of its engine, `unloaded` where it has none; `ui` is true where the engine has a page of its own.
    """

    name: str
    description: str
    names: list[str]
    context_tokens: int | None
    size_bytes: int | None
    state: str
    engine: str | None
    focus: bool
    pinned: bool
    idle_s: float | None
    in_flight: int
    queued: int
    device_mib: int | None
    host_mib: int | None
    waits: str | None
    cause: str | None
    hint: str | None
    progress: str
    ui: bool


class PageFrame(TypedDict):
    """What the page shows at one moment; the fields mean what they mean in `orch status` and in the dashboard's frame.

    Never holds what was asked or answered.
    """

    state: str
    profile: str | None
    engine: str | None
    build: str | None
    progress: str
    cause: str | None
    hint: str | None
    notice: str | None
    switching: bool
    queued: int
    in_flight: int
    rates: Rates
    gpus: list[GpuFigures]
    host: HostFigures
    models: list[PageModel]
    requests: list[RequestRow]


class PagePoint(TypedDict):
    """One point of the plot of speeds; `at_s` is Unix time."""

    at_s: float
    decode_tok_s: float | None


class PageHost(Protocol):
    """The daemon, as the page knows it (`daemon/control/page_frames.py`)."""

    async def frame(self) -> PageFrame:
        """Return what is to be seen now. Whoever asks looks: figures are taken each second for a while."""
        ...

    def points(self) -> list[PagePoint]:
        """Return the plot of the last minutes, oldest first."""
        ...

    def log_lines(self, after: int | None) -> tuple[int, Sequence[str]]:
        """Return the engine's log after a line's number, or its end; and the number of the newest line."""
        ...

    async def switch(self, profile: str) -> None:
        """Begin to replace the model in focus by another one.

        :raises GatewayError: when it cannot be, or clients may not
        """
        ...
