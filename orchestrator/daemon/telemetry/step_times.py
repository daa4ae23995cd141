"""From a request that ended, and from what was seen of the machine meanwhile, to what `core/health/slowdown.py` judges.

An answer's share of what was seen is what was seen while its tokens were made: its prompt moves weights over PCIe where
experts are kept in host memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.host_cpu import CpuTimes, others_share
from orchestrator.core.health.overlap import AnsweredRequest
from orchestrator.core.health.slowdown import DeviceLook, StepSample
from orchestrator.gateway.contract import Finished

KEPT_LOOKS = 600

PCIE_HELD_S = 6.0
"""A counter of PCIe traffic may be shown for so long before it is measured again (`gpu_nvml.SLOW_S`)."""

NEXT_S = 3.0
"""A look that follows later does not tell when a counter that has changed was measured."""


@dataclass(frozen=True, slots=True)
class MachineSample:
    """:param measured: indices of the devices whose PCIe traffic was measured since the look before"""

    taken: float
    devices: tuple[DeviceLook, ...]
    measured: frozenset[int]


class MachineSamples:
    """The CPU and device samples taken beside one instance in the last minutes. Times are monotonic."""

    def __init__(self) -> None:
        self._looks: deque[MachineSample] = deque(maxlen=KEPT_LOOKS)
        self._cpu: deque[tuple[float, CpuTimes]] = deque(maxlen=KEPT_LOOKS)

    def at_cpu(self, taken: float, times: CpuTimes) -> None:
        self._cpu.append((taken, times))

    def at_devices(self, taken: float, readings: Iterable[GpuReading], own: Collection[int]) -> None:
        """:param own: the instance's processes"""
        devices = tuple(_device(each, own) for each in readings)
        last = self._looks[-1] if self._looks and taken - self._looks[-1].taken <= NEXT_S else None
        before = {each.index: each.pcie_mib_s for each in last.devices} if last else {}
        measured = (each.index for each in devices if each.index in before and each.pcie_mib_s != before[each.index])
        self._looks.append(MachineSample(taken, devices, frozenset(measured)))

    def sample(self, request: AnsweredRequest, streams: float) -> StepSample | None:
        """Return the decoding steps of a request; None where it had none, or its context depth is unknown."""
        if not request.steps or request.decode_ms is None or request.depth is None:
            return None

        begin, end = request.decode_from, request.ended
        during = [each for each in self._looks if begin <= each.taken <= end]
        return StepSample(
            began=begin,
            steps=request.steps,
            step_ms=request.decode_ms / request.steps,
            depth=request.depth,
            width=request.width,
            streams=streams,
            looks=tuple(_summary(each, during, begin) for each in during[-1].devices) if during else (),
            other_cpu=self._other_cpu(begin, end),
            tokens_per_step=request.tokens_per_step,
            prompt_tokens=request.prompt_tokens,
            prompt_ms=request.prompt_ms,
        )

    def _other_cpu(self, begin: float, end: float) -> float | None:
        """Return the share of other processes' CPU time from the last sample before the request to the last within."""
        seen = [each for each in self._cpu if each[0] <= end]
        before = [times for taken, times in seen if taken <= begin]
        return others_share((before or [seen[0][1]])[-1], seen[-1][1]) if seen else None


def request_of(record: Finished, now: float, *, counts_drafts: bool) -> AnsweredRequest:
    """The times of a request that has just ended.

    :param counts_drafts: an answer without a count of drafts was made without drafts; else their number is not known
    """
    entered = now - record.total_s + record.held_s
    predicted, decode_ms = record.output_tokens, record.output_ms
    if not predicted or not decode_ms or record.replays:
        return AnsweredRequest(entered, now)

    # The first token is the prompt's; each step after that yields one, and the drafts that were right.
    steps = max(predicted - 1 - (record.draft_accepted or 0), 0)
    depth = record.depth_tokens
    return AnsweredRequest(
        entered=entered,
        ended=now,
        prompt_ms=record.prompt_ms or 0.0,
        decode_ms=decode_ms,
        steps=steps,
        depth=depth - predicted / 2 if depth is not None and counts_drafts else None,
        width=1 + (record.draft_tokens or 0) / steps if steps else 1.0,
        tokens_per_step=(predicted - 1) / steps if steps else 1.0,
        prompt_tokens=record.prompt_tokens or 0,
    )


def _device(reading: GpuReading, own: Collection[int]) -> DeviceLook:
    directions = [each for each in (reading.pcie_rx_mib_s, reading.pcie_tx_mib_s) if each is not None]
    others_mib = None
    if reading.processes is not None:
        others_mib = sum(mib for pid, mib in reading.processes.items() if pid not in own)

    return DeviceLook(
        index=reading.index,
        name=reading.name,
        used_mib=reading.used_mib,
        total_mib=reading.total_mib,
        pcie_mib_s=sum(directions) if directions else None,
        others_mib=others_mib,
        throttle=reading.throttle,
    )


def _summary(last: DeviceLook, looks: Iterable[MachineSample], begin: float) -> DeviceLook:
    """The last look at a device, with the median of the traffic that was measured since `begin`, and with the reasons
    for lower clocks that were there half of the time."""
    seen = [(look, each) for look in looks for each in look.devices if each.index == last.index]
    traffic = sorted(
        each.pcie_mib_s
        for look, each in seen
        if each.pcie_mib_s is not None and (last.index in look.measured or look.taken - begin > PCIE_HELD_S)
    )
    reasons = [reason for _, each in seen for reason in each.throttle]
    usual = (each for each in sorted(set(reasons)) if 2 * reasons.count(each) >= len(seen))
    return replace(last, pcie_mib_s=traffic[len(traffic) // 2] if traffic else None, throttle=tuple(usual))
