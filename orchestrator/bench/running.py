"""Runs a bench: block after block, each told as an event, until the plan is over or somebody breaks it off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.adapters.hardware.run_queue import cpus_of, read_threads, waited_ms
from orchestrator.api.top_frames import GpuFigures, TopFrame
from orchestrator.bench.asking import BenchRequestFailed, GatewayClient
from orchestrator.bench.daemon_link import DaemonLink, Say
from orchestrator.bench.lease import LeaseEndedError
from orchestrator.bench.targets import BenchTarget
from orchestrator.core.bench.blocks import (
    BenchDevice,
    BenchEvent,
    BenchOver,
    BenchPlan,
    BenchProgress,
    Measure,
    MeasuredBlock,
    Throw,
    ThrownPair,
    add_event,
    lacks_figure,
    next_step,
)
from orchestrator.core.bench.estimator import Side
from orchestrator.core.bench.figures import BenchAnswer
from orchestrator.core.bench.workloads import WARM_UP, WARM_UP_TOKENS, Workload, workload_body
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

SETTLE_S = 0.5
SETTLE_LOOKS = 5
"""The daemon tells a request's energy with its next sample: a second after the request's end, or a little more."""

MOST_FAILURES = 3
"""Times in a row that a pair is begun again because a request of ours failed."""


class StartFailedError(OrchError):
    """Raised when a target does not start.

    :ivar error: what is wrong with it, as the daemon told it
    """

    def __init__(self, error: OrchError) -> None:
        super().__init__(error.message, details=error.details, hint=error.hint)
        self.error = error


class BenchTargetFailed(StartFailedError):
    """Raised when one of the two targets of a bench does not start.

    :ivar side: which of them
    """

    def __init__(self, side: Side, error: OrchError) -> None:
        super().__init__(error)
        self.side = side


class PairSpoilt(Exception):
    """A block that cannot count: what it measured was not the target alone."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class MeasuredStay:
    """One start of a target, and what was measured while it served nobody else.

    :param answers: in the order of the workload
    :param looks: frames from after the warm-up to the end
    :param took_s: with the start
    :param energy_j: of the requests that were measured; None where the daemon does not know it of each
    """

    answers: tuple[BenchAnswer, ...]
    looks: tuple[TopFrame, ...]
    energy_j: float | None
    started_s: float
    took_s: float


def measure_residency(
    link: DaemonLink,
    client: GatewayClient,
    target: BenchTarget,
    workload: Workload,
    tokens: int,
    say: Say,
    on_start: Callable[[tuple[str, ...]], None],
) -> MeasuredStay:
    """Start a target anew once no client is there, and ask it a workload.

    :param say: told what is going on
    :raises PairSpoilt: when a client came, another engine was started, or a prompt was not answered
    :raises StartFailedError: when the target did not start
    :raises OrchError: when the daemon does not answer
    """
    began = time.monotonic()
    link.wait_idle(client.prefix)
    say("starting")
    start_target(link, target)
    on_start(link.argv())
    pid = link.status()["pid"]
    link.wait_idle(client.prefix)
    started_s = time.time()
    cpus = cpus_of(pid) if pid is not None else 0
    answers = []
    try:
        client.ask(WARM_UP.name, workload_body(target.profile, workload, WARM_UP, WARM_UP_TOKENS))
        looks = [link.frame()]
        for number, prompt in enumerate(workload.prompts, 1):
            _refuse_strangers(link.strangers(client.prefix))
            say(f"prompt {number} of {len(workload.prompts)}")
            before = read_threads(pid) if pid is not None else {}
            answer = client.ask(prompt.name, workload_body(target.profile, workload, prompt, tokens))
            after = read_threads(pid) if pid is not None else {}
            answers.append(replace(answer, waited_ms=waited_ms(before, after, cpus)))
            if looks[0]["gpus"]:
                looks.append(link.frame())
    except BenchRequestFailed as error:
        raise PairSpoilt("unusable", "; ".join((error.message, *error.details))) from error

    looks.append(settled_frame(link, client.prefix))
    _refuse_strangers(link.strangers_since(looks[-1], started_s, client.prefix))
    if link.status()["pid"] != pid:
        raise PairSpoilt("changed", "another engine was started while a block was measured")

    energy_j = requests_energy(looks[-1], client.prefix, len(answers))
    return MeasuredStay(tuple(answers), tuple(looks), energy_j, started_s, time.monotonic() - began)


def settled_frame(link: DaemonLink, prefix: str) -> TopFrame:
    """Return a frame in which the energy of our newest request is told, if that of any is.

    :param prefix: that the ids of our requests begin with
    """
    frame = link.frame()
    for _ in range(SETTLE_LOOKS):
        joules = _request_energies(frame, prefix)
        if not joules or joules[0] is not None or not any(each is not None for each in joules):
            break

        time.sleep(SETTLE_S)
        frame = link.frame()

    return frame


def requests_energy(frame: TopFrame, prefix: str, count: int) -> float | None:
    """Return the energy of our newest requests together, J; None unless each one's is known."""
    joules = [each for each in _request_energies(frame, prefix)[:count] if each is not None]
    return sum(joules) if len(joules) == count else None


def _request_energies(frame: TopFrame, prefix: str) -> list[float | None]:
    """Return the energy of each of our requests, the newest first."""
    return [each.get("energy_j") for each in frame["requests"] if (each["request_id"] or "").startswith(prefix)]


def start_target(link: DaemonLink, target: BenchTarget) -> None:
    """Start a target in the place of what runs.

    :raises StartFailedError: when it did not start
    :raises OrchError: when the daemon does not answer, or a person has started something else
    """
    try:
        link.switch(target.switch_text)
    except (LeaseEndedError, NotRunningError, TimedOutError):
        raise
    except OrchError as error:
        raise StartFailedError(error) from error


def _refuse_strangers(count: int) -> None:
    """:raises PairSpoilt: when there are some"""
    if count:
        raise PairSpoilt("clients", f"{count} request{'s' if count > 1 else ''} of clients ran meanwhile")


class BenchRun:
    """One run, or the rest of one.

    :param targets: what A and B are
    :param on_event: told of each event at once, to keep it
    :param on_start: told once of each target's command line
    """

    def __init__(
        self,
        plan: BenchPlan,
        workload: Workload,
        tokens: int,
        targets: Mapping[Side, BenchTarget],
        link: DaemonLink,
        client: GatewayClient,
        say: Say,
        on_event: Callable[[BenchEvent], None],
        on_start: Callable[[Side, tuple[str, ...]], None],
    ) -> None:
        self._plan = plan
        self._workload = workload
        self._tokens = tokens
        self._targets = targets
        self._link = link
        self._client = client
        self._say = say
        self._on_event = on_event
        self._on_start = on_start
        self._block_s: list[float] = []

    def run(self, progress: BenchProgress) -> BenchProgress:
        """Measure until the plan is over.

        :param progress: what was measured before; half a pair does not count, as its halves are to be neighbours
        :raises BenchTargetFailed: when a target does not start, or does not answer
        :raises OrchError: when the daemon does not answer
        """
        for pair, blocks in enumerate(progress.pairs):
            if len(blocks) == 1:
                progress = self._keep(progress, ThrownPair(pair, "interrupted", "the bench was interrupted"))

        failures = 0
        while not isinstance(step := next_step(self._plan, progress), BenchOver):
            if isinstance(step, Throw):
                progress = self._keep(progress, step.thrown)
                continue

            try:
                block = self._measure(step, progress)
            except PairSpoilt as spoilt:
                failures = failures + 1 if spoilt.kind == "unusable" else 0
                if failures >= MOST_FAILURES:
                    error = OrchError(f"the bench is given up: {spoilt.reason}", hint="look at `orch logs`")
                    raise BenchTargetFailed(step.side, error) from spoilt

                progress = self._keep(progress, ThrownPair(step.pair, spoilt.kind, spoilt.reason))
                continue

            failures = 0
            progress = self._keep(progress, block)

        return progress

    def _keep(self, progress: BenchProgress, event: BenchEvent) -> BenchProgress:
        self._on_event(event)
        return add_event(progress, event)

    def _measure(self, step: Measure, progress: BenchProgress) -> MeasuredBlock:
        """:raises PairSpoilt: when it cannot count"""
        target = self._targets[step.side]
        number = len(progress.measured) + len(_half(progress, step.pair)) + 1
        left = self._time_left(progress)
        try:
            found = measure_residency(
                self._link,
                self._client,
                target,
                replace(self._workload, prompts=tuple(self._workload.prompts[index] for index in step.order)),
                self._tokens,
                lambda what: self._say(f"block {number}, {step.side.upper()} ({target.text}): {what}{left}"),
                lambda argv: self._on_start(step.side, argv),
            )
        except StartFailedError as failed:
            raise BenchTargetFailed(step.side, failed.error) from failed

        block = MeasuredBlock(
            pair=step.pair,
            attempt=step.attempt,
            side=step.side,
            started_s=found.started_s,
            took_s=found.took_s,
            answers=found.answers,
            devices=tuple(device_looks(list(found.looks))),
            rss_mib=found.looks[-1]["host"]["engine_rss_mib"],
            energy_j=found.energy_j,
        )
        if (lacking := lacks_figure(block, self._plan)) is not None:
            raise PairSpoilt("unusable", lacking)

        self._block_s.append(block.took_s)
        return block

    def _time_left(self, progress: BenchProgress) -> str:
        seconds = self._block_s or [block.took_s for block in progress.measured]
        if not seconds:
            return ""

        left = self._plan.most_blocks - len(progress.measured)
        return f"; at most {left * sum(seconds) / len(seconds) / 60:.0f} min left"


def _half(progress: BenchProgress, pair: int) -> tuple[MeasuredBlock, ...]:
    return progress.pairs[pair] if pair < len(progress.pairs) else ()


def device_looks(frames: list[TopFrame]) -> list[BenchDevice]:
    """Return each device at its worst moment."""
    found: dict[int, BenchDevice] = {}
    for frame in frames:
        for gpu in frame["gpus"]:
            found[gpu["index"]] = _worse(found.get(gpu["index"]), gpu)

    return list(found.values())


def _worse(old: BenchDevice | None, gpu: GpuFigures) -> BenchDevice:
    new = BenchDevice(
        index=gpu["index"],
        name=gpu["name"],
        used_mib=gpu["used_mib"],
        engine_mib=gpu["engine_mib"],
        others_mib=gpu["others_mib"],
        throttle=tuple(gpu["throttle"]),
        temperature_c=gpu["temperature_c"],
        sm_clock_mhz=gpu["sm_clock_mhz"],
        memory_clock_mhz=gpu["memory_clock_mhz"],
        power_w=gpu["power_w"],
    )
    if old is None:
        return new

    return replace(
        new,
        used_mib=max(old.used_mib, new.used_mib),
        engine_mib=_largest(old.engine_mib, new.engine_mib),
        others_mib=_largest(old.others_mib, new.others_mib),
        throttle=tuple(dict.fromkeys((*old.throttle, *new.throttle))),
    )


def _largest(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)
