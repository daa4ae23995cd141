"""From a spawned process to an instance that is ready: what each look at it means. Pure.

A process that makes progress is never given up: the limit is on time without any. What computes in silence has a
longer one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.engine_log.activity import EngineActivity
from orchestrator.core.failure.advice import SILENT_LOAD_HINT
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.health.degradations import degradations_of
from orchestrator.core.profile.settings import Value

_SERVERS: dict[Kind, str] = {"upstream": "llama.cpp", "ik": "ik_llama.cpp"}
"""What each engine puts into its `Server` header."""

_BUILD_INFO = re.compile(r"b(\d+)-")

_PASSING = (401, 403, 408, 429)
"""Refusals that are not about what was asked."""

_TOO_SMALL = ("too large to process", "physical batch size")
"""Both engines answer so with 500: one batch has to hold the whole input."""

BUSY_SHARE = 0.25
"""A silent process that uses so much of one core, or is so often inside the kernel, is at work. Our own questions cost
it less than a hundredth."""

BUSY_TIMES = 15
"""One that is silent and at work has so many times `load_stall_s`: half an hour by default. Loads of 20 minutes were
seen, without a line, a byte or a page, while a driver compiled its kernels (llama.cpp issue 25423)."""

_READ_STEP_BYTES = 1 << 16
_FILLED_STEP_BYTES = 16 << 20
"""What a load has to read or to fill to have moved: a process that does nothing but hear our questions, and never ends
its answers, does a little of both."""

_UNKNOWN_NUMBERS = 1
"""0 and 1 are what builds say that do not know their number."""


@dataclass(frozen=True, slots=True)
class LoadingLook:
    """One look at a process that loads.

    :param listens: whether it listens on its port: False when somebody else does, None when nobody does
    :param healthy: whether /health was good, on the port that was its own before and after the question
    :param work: a number that grows while the process makes progress that can be seen from outside
    :param cpu_s: CPU time that it and its children have used since they began
    :param blocked: one of them waits inside the kernel, for a disk or a driver
    """

    listens: bool | None
    healthy: bool
    work: int
    cpu_s: float = 0.0
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class LoadingProgress:
    """What is kept from one look to the next.

    :param moved_at: when `work` was last seen to grow (monotonic)
    :param foreign: somebody else listened on the port at the look before
    :param cpu_s: CPU time at that moment
    :param looks: how often it was looked at since then
    :param blocked: how many of these found it inside the kernel
    """

    moved_at: float
    work: int = -1
    foreign: bool = False
    cpu_s: float = 0.0
    looks: int = 0
    blocked: int = 0


def work_done(read_bytes: int, filled_bytes: int, lines: int) -> int:
    """Return a number that grows while a load makes progress that can be seen from outside.

    :param filled_bytes: memory in use
    :param lines: how many it has printed
    """
    return read_bytes // _READ_STEP_BYTES + filled_bytes // _FILLED_STEP_BYTES + lines


def assess_loading(
    progress: LoadingProgress, look: LoadingLook, port: int, stall_s: float, now: float, last_line: str = ""
) -> tuple[LoadingProgress, Literal["waits", "moved", "busy", "loaded"] | Failure]:
    """Return what is kept for the next look, and what this one means.

    1. Somebody else has the port, twice in a row: a failure. 2. /health is good: loaded. 3. It moved. 4. It did not,
    for too long: a failure; one that computes all the while, or waits for a disk or a driver, is busy, and has
    `BUSY_TIMES` as long.

    :param stall_s: loading is given up after so long without any progress
    :param last_line: the newest of what the process has printed
    """
    foreign = look.listens is False
    # Once may be the moment in which our own process dies: its files are gone then, and its listener is not yet.
    if foreign and progress.foreign:
        message = f"another process listens on port {port}; the engine that was started does not"
        return progress, Failure("port_in_use", message, action="restart")

    if look.healthy:
        return progress, "loaded"

    if look.work != progress.work:
        return LoadingProgress(now, look.work, foreign, look.cpu_s), "moved"

    kept = replace(progress, foreign=foreign, looks=progress.looks + 1, blocked=progress.blocked + look.blocked)
    silent_s = now - progress.moved_at
    if silent_s <= stall_s:
        return kept, "waits"

    computes = look.cpu_s - progress.cpu_s >= BUSY_SHARE * silent_s
    at_work = computes or kept.blocked >= BUSY_SHARE * kept.looks
    if at_work and silent_s <= BUSY_TIMES * stall_s:
        return kept, "busy"

    return kept, stalled_load(silent_s, at_work, last_line)


def stalled_load(silent_s: float, at_work: bool, last_line: str) -> Failure:
    """Return the failure of a load that was silent for too long.

    :param at_work: it computed all the while, or waited inside the kernel
    """
    after = f'; the last line was "{last_line}"' if last_line else ""
    doing = ", though it was at work" if at_work else ""
    return Failure(
        "engine_bug",
        f"loading made no progress for {silent_s:.0f} s{doing}{after}",
        action="restart",
        phase="load",
        hint=SILENT_LOAD_HINT,
    )


def assess_identity(server: str | None, build_info: str | None, kind: Kind, build_number: int | None) -> Failure | None:
    """Return why the engine that answers is not the build that was started; None when nothing speaks against it.

    :param server: its `Server` header
    :param build_info: of its /props, `b11434-1234567`
    :param kind: the dialect that the build was started in
    :param build_number: None when the build does not know
    """
    expected = _SERVERS.get(kind)
    if server is not None and server in _SERVERS.values() and expected not in (None, server):
        message = f"the engine that answers says that it is `{server}`; `{expected}` was started"
    else:
        found = _BUILD_INFO.match(build_info or "")
        number = int(found.group(1)) if found else 0
        if number <= _UNKNOWN_NUMBERS or build_number is None or number == build_number:
            return None

        message = f"the engine that answers says that it is build {number}; build {build_number} was started"

    return Failure("engine_bug", message, action="give_up", hint="run `orch engines probe ID` for what it is")


def missing_device(
    activity: EngineActivity, settings: Mapping[str, Value], *, fits: bool, loaded: bool
) -> Failure | None:
    """Return the failure of an engine that has no device, where the profile requires one; None when it may serve.

    :param fits: the engine fits a model into device memory unless it is told otherwise
    :param loaded: it has told all that it tells before it serves; another back end may find a device until then
    """
    found = {each.kind: each for each in degradations_of(activity, settings)}
    lost = found.get("layers_ignored") or (found.get("no_device") if loaded else None)
    if lost is None or not requires_device(settings, fits=fits, has_backend="no_device" in activity.degraded):
        return None

    return Failure(
        "driver",
        "the engine found no device, and the profile wants layers on one",
        lost.evidence,
        action="restart",
        phase="load",
        hint="check the driver (`nvidia-smi`, `rocminfo`, `vulkaninfo`); `memory.require_device = false` serves on the "
        "processor",
    )


def requires_device(settings: Mapping[str, Value], *, fits: bool, has_backend: bool) -> bool:
    """Return whether a profile is to be served on a device only.

    :param has_backend: the build has a back end for devices: it said that this one found none
    """
    required = settings.get("memory.require_device")
    if isinstance(required, bool):
        return required

    layers = settings.get("memory.gpu_layers")
    if layers == "all" or (isinstance(layers, int) and layers > 0):
        return True

    fit = settings.get("memory.fit")
    return layers != 0 and has_backend and (fits if fit is None else fit is True)


def unanswered_canary(detail: str) -> Failure:
    """Return the failure of an engine whose /health is good and whose canary was not answered."""
    message = f"/health is good, but the canary was not answered: {detail}"
    return Failure("engine_bug", message, action="restart", phase="runtime")


def refused_canary(status: int | None, detail: str) -> Failure | None:
    """Return the failure of an engine that refuses its canary: the settings are wrong, and would be at each start.

    :param status: of its answer; None when it gave none
    :return: None when it did not refuse
    """
    refuses = status is not None and (400 <= status < 500 or status == 501) and status not in _PASSING
    too_small = any(words in detail for words in _TOO_SMALL)
    if not (refuses or too_small):
        return None

    hint = "see `orch profile show NAME`, and the engine's words above"
    if too_small:
        hint = "set `batch.ubatch` (and `batch.size`) to the longest input, or a smaller `context.size`"

    message = f"the engine refuses what its profile is for: {detail}"
    return Failure("bad_flag", message, action="give_up", phase="none", hint=hint)


def wrong_answers(at_once: str, in_pieces: str) -> Failure:
    """Return the failure of an engine that computes wrongly: one prompt had two answers, twice."""
    return Failure(
        "engine_bug",
        "the engine computes wrongly: at temperature 0 a prompt that is read at once goes on with"
        f" {at_once[:40]!r}, and one that is read in pieces with {in_pieces[:40]!r}",
        action="give_up",
        phase="none",
        hint="take another build (`orch engines rollback`, `orch engines update`) or the other engine: `orch switch`",
    )


def contradicts_itself(detail: str) -> Failure:
    """Return the failure of an engine whose probabilities depend on the shape of the batches that a text is read in."""
    return Failure(
        "engine_bug",
        f"the engine computes this model wrongly: a text read at once and in pieces goes on differently ({detail})",
        action="give_up",
        phase="none",
        hint="take the other engine, another build or another quantisation, and see `orch verify`;"
        " `--unverified` starts it all the same",
    )


def no_drafts(profile: str, answers: int, evidence: str | None = None) -> Failure:
    """Return the failure of an engine that was to draft with MTP and answered without a single draft.

    :param profile: that asks for it
    :param evidence: the line of its log that says why; None where none does
    """
    why = "" if evidence else "; its log does not say why: this build ignores the head"
    return Failure(
        "engine_bug",
        f"speculation with MTP was asked for, and {answers} answers were made without a single draft{why}",
        evidence,
        action="give_up",
        phase="none",
        hint="take a newer build (`orch engines update`) or the other engine, or"
        f" `orch profile set {profile} speculative.type=none`",
    )
