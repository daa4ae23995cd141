from __future__ import annotations

import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.host_cpu import CpuTimes
from orchestrator.core.health.overlap import AnsweredRequest
from orchestrator.daemon.telemetry.step_times import PCIE_HELD_S, MachineSamples, request_of
from orchestrator.gateway.contract import Finished


def finished(**changes: object) -> Finished:
    values = {
        "instance": "s.1", "route": "/completion", "status": 200, "outcome": "complete", "held_s": 1.0,
        "first_token_s": None, "total_s": 8.0, "prompt_tokens": 100, "prompt_ms": 2000.0, "output_tokens": 101,
        "output_ms": 4000.0, "depth_tokens": 1101,
    }  # fmt: skip
    return Finished(**{**values, **changes})  # type: ignore[arg-type]


def test_a_request_is_cut_into_its_prompt_and_its_steps() -> None:
    request = request_of(finished(), 100.0, counts_drafts=True)
    assert (request.entered, request.prompt_from, request.decode_from, request.ended) == (93.0, 94.0, 96.0, 100.0)
    assert (request.steps, request.depth, request.width) == (100, 1050.5, 1.0)


def test_accepted_drafts_take_no_step_and_rejected_ones_make_steps_wider() -> None:
    request = request_of(finished(draft_tokens=120, draft_accepted=60), 100.0, counts_drafts=True)
    assert (request.steps, request.width) == (40, 4.0)


@pytest.mark.parametrize(
    ("changes", "counts_drafts"),
    [
        ({"output_ms": None}, True),
        ({"output_tokens": 1}, True),
        ({"output_tokens": 0}, True),
        ({"depth_tokens": None}, True),
        ({"replays": 1}, True),
        ({}, False),
        ({"draft_tokens": 200, "draft_accepted": 200}, True),
    ],
)
def test_what_is_not_known_is_not_judged(changes: dict[str, object], counts_drafts: bool) -> None:
    request = request_of(finished(**changes), 100.0, counts_drafts=counts_drafts)
    assert MachineSamples().sample(request, 1.0) is None


def reading(pcie: float | None, *, used: int = 100, throttle: tuple[str, ...] = (), **held: int) -> GpuReading:
    processes = {int(pid[1:]): mib for pid, mib in held.items()} if held else None
    return GpuReading(
        0, "card", used, 1000, processes=processes, throttle=throttle, pcie_rx_mib_s=pcie, pcie_tx_mib_s=None
    )


def request(begin: float, end: float) -> AnsweredRequest:
    return AnsweredRequest(begin, end, 0.0, (end - begin) * 1000, steps=100, depth=10.0)


def test_traffic_counts_where_it_was_measured_while_tokens_were_made() -> None:
    looks = MachineSamples()
    for taken, pcie in ((9.0, 9000.0), (10.5, 9000.0), (11.5, 50.0), (12.5, 50.0), (13.5, 60.0)):
        looks.at_devices(taken, (reading(pcie),), ())

    sample = looks.sample(request(10.0, 14.0), 1.0)
    assert sample is not None
    assert sample.looks[0].pcie_mib_s == 60.0  # 50 and 60; what was shown at 10.5 is the prompt's


def test_traffic_that_does_not_change_counts_once_it_must_have_been_measured_again() -> None:
    looks = MachineSamples()
    for second in range(20):
        looks.at_devices(second, (reading(70.0),), ())

    early, late = (looks.sample(request(1.0, end), 1.0) for end in (PCIE_HELD_S, PCIE_HELD_S + 3))
    assert early is not None and early.looks[0].pcie_mib_s is None
    assert late is not None and late.looks[0].pcie_mib_s == 70.0


def test_a_first_look_after_a_pause_does_not_tell_when_the_traffic_was() -> None:
    looks = MachineSamples()
    looks.at_devices(0.0, (reading(5.0),), ())
    looks.at_devices(60.0, (reading(9000.0),), ())
    sample = looks.sample(request(59.5, 61.0), 1.0)
    assert sample is not None and sample.looks[0].pcie_mib_s is None


def test_other_programs_memory_and_lasting_reasons_are_told() -> None:
    looks = MachineSamples()
    for second, throttle in enumerate((("thermal",), ("thermal",), ("power_cap",), ("thermal",))):
        looks.at_devices(second, (reading(1.0, used=100 + second, throttle=throttle, p7=400, p9=30, p11=3),), {7})

    sample = looks.sample(request(0.0, 5.0), 2.0)
    assert sample is not None and sample.streams == 2.0
    look = sample.looks[0]
    assert (look.used_mib, look.others_mib, look.throttle) == (103, 33, ("thermal",))


def test_the_cpus_that_others_took_are_told_without_the_engine_s_own() -> None:
    looks = MachineSamples()
    looks.at_cpu(1.0, CpuTimes(busy=1000, total=5000, engine=300))
    looks.at_cpu(9.0, CpuTimes(busy=1600, total=6000, engine=700))
    looks.at_cpu(11.0, CpuTimes(busy=9999, total=9999, engine=700))
    sample = looks.sample(request(2.0, 10.0), 1.0)
    assert sample is not None and sample.other_cpu == pytest.approx(0.2)


def test_without_a_look_nothing_is_told() -> None:
    sample = MachineSamples().sample(request(2.0, 10.0), 1.0)
    assert sample is not None and sample.other_cpu is None and sample.looks == ()
