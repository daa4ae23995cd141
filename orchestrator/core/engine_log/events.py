"""The events that lines of an engine's log stand for, and the record of one line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from orchestrator.core.engine_log.signatures import Phase, Signature


class Stage(IntEnum):
    """The stages of an engine, in order. BUSY and ANSWERED speak of the newest request."""

    WEIGHTS = 1
    KV_CACHE = 2
    COMPUTE_BUFFERS = 3
    LOADED = 4
    LISTENING = 5
    BUSY = 6
    ANSWERED = 7


@dataclass(frozen=True, slots=True)
class LinesLeftOut:
    """Lines are missing here: the log was cut."""


@dataclass(frozen=True, slots=True)
class ProcessBegan:
    """Among the first lines of a process: those before it are another's."""


@dataclass(frozen=True, slots=True)
class LoadBegan:
    """The weights are being read."""


@dataclass(frozen=True, slots=True)
class ContextBegan:
    """The context is being made: the KV cache comes next."""


@dataclass(frozen=True, slots=True)
class StageReached:
    """The engine has come so far."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class StoppedCleanly:
    """The engine ends because it was asked to."""


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """The engine found a device that it can use."""


@dataclass(frozen=True, slots=True)
class DeviceTotal:
    """The memory of a device, MiB."""

    index: str
    total_mib: int


@dataclass(frozen=True, slots=True)
class DeviceFree:
    """Memory of a device that was free before anything was loaded, MiB.

    :param index: among the devices of its back end; None in the fork's line, which may speak of a remote device
    """

    device: str
    free_mib: int
    index: str | None


BufferKind = Literal["weights", "kv", "state", "output", "compute"]
"""What a buffer of an engine holds. The fork's KV buffers hold the recurrent state, too."""


@dataclass(frozen=True, slots=True)
class BufferAllocated:
    """A buffer was made, MiB.

    :param buffer: as the engine names it: `CUDA0`, `CPU_Mapped`, `RPC0[host:port]`
    """

    buffer: str
    kind: BufferKind
    mib: float


@dataclass(frozen=True, slots=True)
class AttentionCacheTold:
    """How much of the KV buffers is keys and values, MiB: the rest is recurrent state. The fork alone tells it."""

    mib: float


@dataclass(frozen=True, slots=True)
class FitSawFree:
    """Device memory that upstream's fit took to be free while it probed, MiB, over all devices."""

    free_mib: int


@dataclass(frozen=True, slots=True)
class FitTried:
    """What upstream's fit tries to give one device.

    :param device: its number among those that the engine uses
    :param layers: how many it has; the output counts as one, and comes last
    :param partial: the last so many of them have tensors elsewhere
    :param part: what the first of these has elsewhere (`core/plan/memory/host_placement.py`), the others their experts
    """

    device: int
    layers: int
    partial: int
    part: int


@dataclass(frozen=True, slots=True)
class FitTook:
    """Upstream's fit goes on with what it has tried last."""


@dataclass(frozen=True, slots=True)
class LayersOffloaded:
    """Layers on devices: the last `count` of `of`; the output counts as one, and comes last."""

    count: int
    of: int


@dataclass(frozen=True, slots=True)
class LayerFitted:
    """The fork's fit has put a layer on a device; what it does not name is on the host."""

    layer: int


@dataclass(frozen=True, slots=True)
class ForkFitSum:
    """What the fork needs for everything on devices, or has there, MiB."""

    which: Literal["needed", "free"]
    mib: int


@dataclass(frozen=True, slots=True)
class CurrentDevice:
    """The device that a CUDA call failed on."""

    index: str


@dataclass(frozen=True, slots=True)
class BackendSeen:
    """The line names a back end."""

    backend: Literal["metal", "rocm"]


@dataclass(frozen=True, slots=True)
class PlacedByHand:
    """The profile placed the model itself, so that the engine fits nothing to the device."""


@dataclass(frozen=True, slots=True)
class PromptBatchRead:
    """A batch of a prompt was read; not printed when the engine is merely asked something."""


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """The share of a task's prompt that was read, 0 to 1."""

    task: int
    share: float


@dataclass(frozen=True, slots=True)
class DraftsCounted:
    """Draft tokens that were generated for one request, and how many of them were right."""

    generated: int
    accepted: int


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A request went well. The release of its slot does not say so: a failed request ends with that, too."""


DegradationKind = Literal[
    "no_device", "layers_ignored", "fit_given_up", "flash_attention_off", "mtp_off", "draft_vocab", "speculation_off",
    "mlock_failed", "context_capped", "projector_refused",
]  # fmt: skip
"""What an engine goes on without.

no_device: a back end of the build found nothing to use; layers_ignored: none did, and layers meant for a device stay on
the processor.
"""


@dataclass(frozen=True, slots=True)
class Degraded:
    """The engine goes on, and not as it was asked to. With `mended`, what an earlier line said holds no more."""

    kind: DegradationKind
    mended: bool = False


@dataclass(frozen=True, slots=True)
class StackFrame:
    """A frame of a stack trace, and the phase that its function belongs to."""

    phase: Phase | None


@dataclass(frozen=True, slots=True)
class ExitReported:
    """The end of the process, as a shell, systemd, a supervisor or the router printed it."""

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class FailureLine:
    """The line matched a failure's signature.

    :param device: as the engine names it (`CUDA0`), where the line does; `index` where it has a number alone
    :param requested_mib: size of the allocation that failed, MiB
    """

    signature: Signature
    device: str | None = None
    index: str | None = None
    requested_mib: float | None = None


@dataclass(frozen=True, slots=True)
class UnknownError:
    """The engine called the line an error, and no signature knows it: it may be the reason of a generic one later."""


LogEvent = (
    LinesLeftOut
    | UnknownError
    | ProcessBegan
    | LoadBegan
    | ContextBegan
    | StageReached
    | StoppedCleanly
    | DeviceSeen
    | DeviceTotal
    | DeviceFree
    | BufferAllocated
    | AttentionCacheTold
    | FitSawFree
    | FitTried
    | FitTook
    | LayersOffloaded
    | LayerFitted
    | ForkFitSum
    | CurrentDevice
    | BackendSeen
    | PlacedByHand
    | PromptBatchRead
    | PromptProgress
    | DraftsCounted
    | RequestAnswered
    | Degraded
    | StackFrame
    | ExitReported
    | FailureLine
)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of the engine's own.

    :param number: of the line in its log
    :param text: the line, without terminal sequences
    :param level: the engine's own level, I W E T or D, where it printed one
    """

    number: int
    text: str
    level: str | None
    events: tuple[LogEvent, ...]

    @property
    def failure(self) -> FailureLine | None:
        """The failure that the line tells of."""
        return next((event for event in self.events if isinstance(event, FailureLine)), None)

    @property
    def stage(self) -> Stage | None:
        """The stage that the line shows to be reached."""
        return next((event.stage for event in self.events if isinstance(event, StageReached)), None)
