"""Runs a bench: block after block, each told as an event, until the plan is over or somebody breaks it off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

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
from orchestrator.core.bench.workloads import WARM_UP, WARM_UP_TOKENS, Workload, request_body
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

MOST_FAILURES = 3
"""Times in a row that a pair is begun again because a request of ours failed."""


class BenchTargetFailed(OrchError):
    """Raised when one of the two targets does not start, or does not answer.

    :ivar side: which of them
    :ivar error: what is wrong with it, as the daemon told it
    """

    def __init__(self, side: Side, error: OrchError) -> None:
        super().__init__(error.message, details=error.details, hint=error.hint)
        self.side = side
        self.error = error


class PairSpoilt(Exception):
    """A block that cannot count: what it measured was not the target alone."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


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
        head = (
            f"block {len(progress.measured) + len(_half(progress, step.pair)) + 1}, {step.side.upper()} ({target.text})"
        )
        began = time.monotonic()
        self._link.wait_idle(self._client.prefix)
        self._say(f"{head}: starting{self._time_left(progress)}")
        try:
            self._link.switch(target.switch_text)
        except (LeaseEndedError, NotRunningError, TimedOutError):
            raise
        except OrchError as error:
            self._link.check_lease()  # somebody else has switched: that is no fault of the target
            raise BenchTargetFailed(step.side, error) from error

        self._on_start(step.side, self._link.argv())
        pid = self._link.status()["pid"]
        self._link.wait_idle(self._client.prefix)
        started_s = time.time()
        answers = []
        try:
            self._client.ask(WARM_UP.name, request_body(target.profile, WARM_UP, WARM_UP_TOKENS))
            before = self._link.frame()
            looks = [before]
            for number, index in enumerate(step.order, 1):
                self._refuse_strangers(self._link.strangers(self._client.prefix))
                self._say(f"{head}: prompt {number} of {len(step.order)}{self._time_left(progress)}")
                prompt = self._workload.prompts[index]
                answers.append(self._client.ask(prompt.name, request_body(target.profile, prompt, self._tokens)))
                if before["gpus"]:
                    looks.append(self._link.frame())
        except BenchRequestFailed as error:
            raise PairSpoilt("unusable", "; ".join((error.message, *error.details))) from error

        looks.append(self._link.frame())
        self._refuse_strangers(self._link.strangers_since(looks[-1], started_s, self._client.prefix))
        if self._link.status()["pid"] != pid:
            raise PairSpoilt("changed", "another engine was started while a block was measured")

        block = MeasuredBlock(
            pair=step.pair,
            attempt=step.attempt,
            side=step.side,
            started_s=started_s,
            took_s=time.monotonic() - began,
            answers=tuple(answers),
            devices=tuple(device_looks(looks)),
            rss_mib=looks[-1]["host"]["engine_rss_mib"],
        )
        if (lacking := lacks_figure(block, self._plan)) is not None:
            raise PairSpoilt("unusable", lacking)

        self._block_s.append(block.took_s)
        return block

    def _refuse_strangers(self, count: int) -> None:
        """:raises PairSpoilt: when there are some"""
        if count:
            raise PairSpoilt("clients", f"{count} request{'s' if count > 1 else ''} of clients ran meanwhile")

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
    first = {gpu["index"]: gpu for gpu in frames[0]["gpus"]} if frames else {}
    for frame in frames:
        for gpu in frame["gpus"]:
            old = found.get(gpu["index"])
            found[gpu["index"]] = _worse(old, gpu, first.get(gpu["index"]))

    return list(found.values())


def _worse(old: BenchDevice | None, gpu: GpuFigures, first: GpuFigures | None) -> BenchDevice:
    start_j = first["energy_j"] if first is not None else None
    used_j = gpu["energy_j"] - start_j if gpu["energy_j"] is not None and start_j is not None else None
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
        energy_j=used_j,
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
