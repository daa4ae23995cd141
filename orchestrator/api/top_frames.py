"""The frame that a dashboard shows at one moment: the answer of `GET /v1/frame`.

As in `types`, fields may be added, not renamed. None stands for "not known": no driver tells it, or nothing was
measured yet. It never stands for zero.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from orchestrator.api.types import AttemptStatus, Event, Status


class ShareFigures(TypedDict):
    """What one profile holds of a device."""

    profile: str
    mib: int


class GpuFigures(TypedDict):
    """One device.

    `used_mib` is what the driver says is taken, by anybody; `engine_mib` what orch's engines hold of it, `others_mib`
    what other processes hold. `utilization` is 0 to 1. `throttle` are reasons such as `power_cap`, `thermal`.
    `shares` divides `engine_mib` among the profiles, as far as that is known, the one in focus first.
    """

    index: int
    uuid: str
    name: str
    vendor: Literal["nvidia", "amd"]
    total_mib: int
    used_mib: int
    engine_mib: int | None
    others_mib: int | None
    utilization: float | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle: list[str]
    pcie_rx_mib_s: float | None
    pcie_tx_mib_s: float | None
    energy_j: float | None
    shares: NotRequired[list[ShareFigures]]


class HostFigures(TypedDict):
    """`pressure_some` and `pressure_full` are the kernel's 10 s averages of memory stalls (PSI), 0 to 1.

    `model_mib` is what the engine reads of the model's files from host memory, as `page_cache` of the status, and
    `model_resident_mib` how much of that lies in the page cache; both are None where the model is not mapped.
    """

    memory_total_mib: int
    memory_available_mib: int
    swap_used_mib: int
    pressure_some: float | None
    pressure_full: float | None
    model_mib: int | None
    model_resident_mib: int | None
    engine_rss_mib: int | None


class SlotFigures(TypedDict):
    """One slot of the engine: `used_tokens` of `context_tokens` are filled."""

    id: int
    busy: bool
    used_tokens: int | None
    context_tokens: int
    decoded_tokens: int | None
    prompt_done: float | None


class RequestRow(TypedDict):
    """One request. `outcome` is `held` or `running` for one that has not ended, else `complete`, `error`,
    `client_gone` or `cancelled`. `id` is the number, `request_id` the `X-Request-Id`, `client` the name of the key.
    `energy_j` is told a second or two after the request's end. Never holds what was asked or answered."""

    id: int
    started: str
    profile: str | None
    engine: str | None
    build: str | None
    route: str
    outcome: str
    status: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    first_token_s: float | None
    prompt_tok_s: float | None
    decode_tok_s: float | None
    draft_tokens: int | None
    draft_accepted: int | None
    held_s: float
    total_s: float
    request_id: str | None
    client: str | None
    energy_j: NotRequired[float | None]


class Rates(TypedDict):
    """The engine's present rates, from how its raw counts moved between two samples; `kv_used` is 0 to 1."""

    decode_tok_s: float | None
    prompt_tok_s: float | None
    draft_acceptance: float | None
    processing: int | None
    deferred: int | None
    kv_used: float | None


class Point(TypedDict):
    """One point of the plots: `at_s` is Unix time, the rest as in `Rates`; `used_mib` one value a device."""

    at_s: float
    decode_tok_s: float | None
    prompt_tok_s: float | None
    used_mib: list[int]


class TopFrame(TypedDict):
    """:ivar taken: when the figures were taken, RFC 3339; `stale_s` how old the devices' figures are
    :ivar margin_origin: how the margin was found: `profile`, `learned`, `ladder`, or None without one
    :ivar points: oldest first
    """

    version: Literal[1]
    taken: str
    status: Status
    margin_origin: Literal["profile", "learned", "ladder"] | None
    rates: Rates
    gpus: list[GpuFigures]
    gpus_stale_s: float | None
    host: HostFigures
    slots: list[SlotFigures]
    requests: list[RequestRow]
    attempts: list[AttemptStatus]
    events: list[Event]
    points: list[Point]
