"""The book of energy over samples that a test gives it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.adapters.hardware.cpu_energy import PackageEnergy
from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.core.energy.intervals import EnergySample
from orchestrator.core.energy.sharing import IdleRecord, Pair
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.quantities import HOUR_S
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.residency import shares
from orchestrator.daemon.telemetry import ledger as ledger_module
from orchestrator.daemon.telemetry.energy import KEEP_EVERY_S, EnergyBook, EnergyLook, device_samples, loaded_on
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.daemon.telemetry.totals import MAX_PAIRS, OTHER, Totals
from orchestrator.gateway.contract import Finished, Underway

MODEL: Pair = ("demo", "upstream")
UNDERWAY = Underway(
    id=1, route="/completion", outcome="running", started=101.0, held_s=0.5, first_token_s=None, total_s=0.0,
    instance="a.1", profile="demo", engine="upstream",
)  # fmt: skip
FINISHED = Finished(
    id=1, route="/completion", outcome="complete", started=101.0, held_s=0.5, first_token_s=None, total_s=2.25,
    instance="a.1", profile="demo", engine="upstream", status=200,
)  # fmt: skip


@dataclass
class Booked:
    """A book, what it gave to the history, and the energies that it settled."""

    kept: list[IdleRecord] = field(default_factory=list)
    settled: list[float | None] = field(default_factory=list)
    now_s: float = 10 * HOUR_S + 5.0

    def __post_init__(self) -> None:
        self.book = EnergyBook(self.kept.append, lambda: self.now_s)

    def sampled(
        self,
        taken_s: float,
        counter_j: float | None,
        *underway: Underway,
        loaded: Mapping[Pair, Collection[str]] | None = None,
    ) -> None:
        devices = {} if counter_j is None else {"GPU-1": EnergySample(taken_s, taken_s, counter_j)}
        look = EnergyLook(taken_s, devices, {MODEL: ("GPU-1",)} if loaded is None else loaded)
        self.book.sampled(look, underway)

    def finished(self, record: Finished = FINISHED) -> None:
        self.book.finished(record, self.settled.append)


def test_a_request_is_settled_by_the_sample_after_its_end() -> None:
    book = Booked()
    book.sampled(90.0, 0.0)
    book.sampled(100.0, 200.0)
    book.sampled(102.0, 330.0, UNDERWAY)  # 1.5 s of 20 W, then work
    book.finished()
    assert (book.settled, book.book.waiting) == ([], True)
    book.sampled(103.0, 530.0)
    assert (book.settled, book.book.waiting) == ([], True), "it ended after that sample"
    book.sampled(104.0, 600.0)
    assert book.settled == [pytest.approx(100 + 200 + (70 - 0.75 * 20))]
    assert not book.book.waiting
    found = book.book.models[MODEL]
    assert [found.busy_j, found.idle_j, found.idle_s] == pytest.approx([355.0, 245.0, 12.25])


def test_a_request_that_began_and_ended_between_two_samples_is_known() -> None:
    book = Booked()
    book.sampled(90.0, 0.0)
    book.sampled(100.0, 200.0)
    book.finished()
    book.sampled(104.0, 600.0)
    assert book.settled == [pytest.approx(400 - 20 * 2.25)]


def test_what_began_before_the_first_sample_is_unknown() -> None:
    book = Booked()
    book.sampled(102.0, 0.0, UNDERWAY)
    book.finished()
    book.sampled(104.0, 300.0)
    assert book.settled == [None]


def test_a_request_whose_body_came_slowly_counts_from_when_an_engine_had_it() -> None:
    book = Booked()
    book.sampled(102.0, 0.0, replace(UNDERWAY, instance=None, engine=None))
    book.sampled(102.5, 10.0, UNDERWAY)
    book.finished()
    book.sampled(104.0, 210.0)
    assert book.settled[0] is not None and book.settled[0] > 100


def test_nothing_waits_where_nobody_tells() -> None:
    book = Booked()
    book.finished()
    book.sampled(100.0, None)
    book.finished()
    book.sampled(101.0, 0.0, loaded={MODEL: ()})
    book.finished()
    book.finished(replace(FINISHED, instance=None))
    assert book.settled == [None] * 4
    assert book.book.models == {}, "what nobody knows is no series of zeros"


def test_the_first_request_of_a_model_that_was_just_loaded_is_known() -> None:
    book = Booked()
    book.sampled(100.0, 0.0, loaded={})
    book.finished()
    assert book.settled == []
    book.sampled(104.0, 400.0)
    assert book.settled == [175.0]


def test_a_device_that_is_lost_leaves_the_request_unknown_and_the_next_one_is_known_again() -> None:
    book = Booked()
    book.sampled(100.0, 0.0)
    book.sampled(102.0, 50.0, UNDERWAY)
    book.sampled(103.0, None, UNDERWAY)
    book.sampled(103.1, 150.0, UNDERWAY)
    book.finished()
    book.sampled(104.0, 250.0)
    assert book.settled == [None]
    book.finished(replace(FINISHED, id=2, started=104.5))
    book.sampled(110.0, 900.0)
    assert book.settled[1] is not None


def test_a_sample_that_cannot_be_taken_and_the_daemons_end_keep_no_row() -> None:
    book = Booked()
    book.sampled(100.0, 0.0)
    book.finished()
    book.book.missed()
    assert (book.settled, book.book.waiting) == ([None], False)
    book.sampled(105.0, 0.0)
    book.finished(replace(FINISHED, id=2, started=106.0))
    book.book.close()
    assert book.settled == [None, None]


def test_idle_energy_is_kept_by_the_hour_each_minute_and_at_the_end() -> None:
    book = Booked()
    book.sampled(100.0, 0.0)
    book.sampled(110.0, 200.0)
    book.sampled(120.0, 400.0)
    assert book.kept == [IdleRecord(10 * HOUR_S, *MODEL, 200.0, 10.0, 0.0)]
    book.now_s += HOUR_S
    book.sampled(110.0 + KEEP_EVERY_S, 1000.0)
    assert book.kept[1:] == [IdleRecord(11 * HOUR_S, *MODEL, 800.0, KEEP_EVERY_S, 0.0)]
    book.sampled(180.0, None)
    book.book.close()
    assert book.kept[2:] == [IdleRecord(11 * HOUR_S, *MODEL, 0.0, 0.0, 10.0)], "unknown, and said to be"


def test_profiles_of_a_tuning_do_not_become_series_without_end() -> None:
    book = Booked()
    for number in range(MAX_PAIRS + 5):
        loaded: dict[Pair, tuple[str, ...]] = {(f"trial{number}", "upstream"): ("GPU-1",)}
        book.sampled(number * 20.0, 0.0, loaded=loaded)
        book.sampled(number * 20.0 + 10, 100.0, loaded=loaded)

    assert len(book.book.models) == MAX_PAIRS + 1
    assert book.book.models[OTHER].idle_j > 0


CARD = GpuReading(0, "card", 1000, 2000, "GPU-1", processes={}, power_w=20.0, energy_j=7.5)
PACKAGE = PackageEnergy("package-0", 3.0, 262143.0)


def test_devices_that_tell_something_become_samples() -> None:
    silent = GpuReading(1, "old", 1000, 2000)
    assert device_samples([CARD, silent], [PACKAGE], 5.0, 6.0) == {
        "GPU-1": EnergySample(5.0, 6.0, 7.5, 20.0),
        "package-0": EnergySample(5.0, 6.0, 3.0, wraps_at_j=262143.0),
    }


def run_with(pid: int, *devices: str) -> EngineRun:
    """A run of the model whose engine said to have memory on these devices."""
    launch = SimpleNamespace(target=SimpleNamespace(profile=MODEL[0], engine=MODEL[1]), profile=None)
    read_back = SimpleNamespace(start=SimpleNamespace(devices=devices))
    return cast(EngineRun, SimpleNamespace(launch=launch, child=SimpleNamespace(pid=pid), read_back=read_back))


def test_a_model_is_on_the_devices_that_it_has_memory_on_else_on_all_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "told_mib", lambda run, read: {})
    packages = ["package-0", "package-1"]
    first, second = replace(CARD, processes={7: 500}), replace(CARD, index=1, uuid="", processes={7: 400})
    other = replace(CARD, index=2, uuid="GPU-2", processes={8: 100})
    assert loaded_on([run_with(7, "CUDA0", "CUDA1")], [first, second, other], packages) == {MODEL: ("GPU-1", "gpu1")}
    assert loaded_on([run_with(7)], [other], packages) == {MODEL: ("package-0", "package-1")}
    assert loaded_on([run_with(7, "CUDA0")], [], packages) == {MODEL: ()}, (
        "its driver is gone, and it is on no processor"
    )


class Rows:
    """A history that shows its rows."""

    def __init__(self) -> None:
        self.rows: list[RequestRecord] = []

    def add_request(self, record: RequestRecord) -> None:
        self.rows.append(record)


def test_the_ledger_writes_a_row_with_its_energy_once_that_is_known_and_tells_it_of_recent_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_REQUESTS", 2)
    rows, booked = Rows(), Booked()
    ledger = RequestLedger(Totals(), cast(HistoryWriter, rows), booked.book)
    ledger.finished(replace(FINISHED, id=9))
    assert [each.energy_j for each in rows.rows] == [None], "nobody tells yet: it is not waited for"
    booked.sampled(100.0, 0.0)
    for number in (1, 2, 3):
        ledger.finished(replace(FINISHED, id=number))

    assert len(rows.rows) == 1
    booked.sampled(104.0, 400.0)
    assert [each.energy_j for each in rows.rows[1:]] == [58.333] * 3  # 1.75 of 4 s at 100 W
    assert [ledger.energy_j(number) for number in (9, 1, 2, 3)] == [None, None, 58.333, 58.333]
