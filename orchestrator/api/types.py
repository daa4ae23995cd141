"""The JSON that the control API speaks. Fields may be added, not renamed: other programs rely on them.

TypedDicts rather than classes: they cost nothing to import or to build, and `orch status` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from orchestrator.core.fleet.state_summary import StateName


class AttemptStatus(TypedDict):
    """One start of an engine.

    `margin_mib` is what was tried, `outcome` is `running`, `ready`, `stopped` or a failure class.
    """

    number: int
    started: str
    margin_mib: int | None
    steps: list[str]
    outcome: str
    cause: str | None
    evidence: str | None
    next: str | None


class GatewayStatus(TypedDict):
    """`abandoned` is how many slots of the engine go on working although their clients are gone."""

    url: str
    queued: int
    in_flight: int
    abandoned: int


class SpeedStatus(TypedDict):
    decode_tok_s: float | None
    prompt_tok_s: float | None
    draft_acceptance: float | None


class GpuStatus(TypedDict):
    index: int
    name: str
    used_mib: int
    total_mib: int


class MemoryStatus(TypedDict):
    """One component of an engine's memory, MiB: the bounds that were planned, how well they are known, what was read.

    `place` is `host`, or a device as the engine names it (`device 0` before it has loaded). `high` is null where there
    is no upper bound. `measured_mib` is null until it serves, and where nothing tells it.
    """

    place: str
    component: str
    planned_mib: dict[str, float | None]
    kind: str
    measured_mib: float | None


class PageCacheStatus(TypedDict):
    """How much of the model that an engine reads from host memory is in the page cache, MiB; of its experts likewise.

    `resident_mib` is null where the kernel does not tell. `where` says which layers that is. Where the engine placed
    them itself and does not say how, both figures of experts are null, and all that it has mapped counts.
    """

    part_mib: int
    resident_mib: int | None
    experts_mib: int | None
    experts_resident_mib: int | None
    where: str


class UnloadedStatus(TypedDict):
    """What was unloaded because nobody used it, and since when that is (RFC 3339)."""

    profile: str
    engine: str
    since: str


class InstanceStatus(TypedDict):
    """One profile that is loaded, starts, failed or was unloaded; the fields of `Status` mean the same for it.

    `focus` is true for the one that requests without a known model go to. `idle_s` is the time since its last request.
    `device_mib` and `host_mib` are what its process holds, null where nothing tells it. `unloaded_since` is null while
    it is not unloaded, `waits` says what its start waits for (memory, say), `progress` is a line for those who wait.
    """

    profile: str
    engine: str
    build: str | None
    state: StateName
    pid: int | None
    focus: bool
    pinned: bool
    idle_s: float | None
    in_flight: int
    queued: int
    memory: list[MemoryStatus]
    device_mib: int | None
    host_mib: int | None
    unloaded_since: str | None
    waits: str | None
    cause: str | None
    hint: str | None
    since: str
    progress: str


class LeaseStatus(TypedDict):
    """A client that tries other targets for a while (`orch bench`), after which what served before serves again.

    `serves` is what that was in focus; `resume` is the command that goes on with it, empty where there is none. `state`
    is `interrupted` once it was broken off, and `failed` where what served before could not be started again; `cause`
    says why.
    """

    title: str
    resume: str
    since: str
    state: Literal["held", "restoring", "interrupted", "failed"]
    serves: TargetName | None
    cause: str | None


class Status(TypedDict):
    version: Literal[1]
    state: StateName
    profile: str | None
    engine: str | None
    build: str | None
    pid: int | None
    margin_mib: int | None
    attempts: list[AttemptStatus]
    gateway: GatewayStatus
    speed: SpeedStatus
    gpus: list[GpuStatus]
    since: str
    cause: str | None
    hint: str | None
    stale: list[str]
    switching: bool
    progress: str
    daemon_pid: int
    generation: int
    notice: str | None
    memory: list[MemoryStatus]
    unloaded: UnloadedStatus | None
    instances: list[InstanceStatus]
    lease: LeaseStatus | None
    page_cache: PageCacheStatus | None


"""The answer of `orch status --json`.

`since` is when `state` was entered, RFC 3339; `stale` lists what the profile's text says differently by now; `notice`
is what is worth knowing of an engine that serves: that it has become slow, say. `page_cache` is null for a model that
is not mapped. All but `instances`, `gpus` and
`gateway` is about the one in focus; `instances` has all, the one in focus first.
"""


class Event(TypedDict):
    """One thing that happened: `kind` is a past-tense word such as `ready` or `exited`."""

    id: int
    time: str
    kind: str
    message: str


class TargetName(TypedDict):
    profile: str
    engine: str


SwitchResult = TypedDict(
    "SwitchResult",
    {
        "ok": bool,
        "from": TargetName | None,
        "to": TargetName,
        "rolled_back": bool,
        "held_requests": int,
        "gap_s": float,
        "total_s": float,
        "strategy": str,
        "cause": str | None,
    },
)
"""The answer of `orch switch --json`. `gap_s` is how long new requests had to wait, 0 when they did not."""
