"""A run of blocks against a daemon in lines: what spoils a pair, what gives a bench up, and what devices showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from orchestrator.bench import running as module
from orchestrator.bench.asking import BenchRequestFailed, GatewayClient
from orchestrator.bench.daemon_link import DaemonLink
from orchestrator.bench.lease import LeaseEndedError
from orchestrator.bench.running import BenchRun, BenchTargetFailed, device_looks, requests_energy, settled_frame
from orchestrator.bench.targets import BenchTarget
from orchestrator.core.bench.blocks import BenchEvent, BenchPlan, BenchProgress, MeasuredBlock, ThrownPair
from orchestrator.core.bench.figures import BenchAnswer
from orchestrator.core.bench.workloads import WARM_UP, BenchPrompt, Workload
from orchestrator.core.errors import OrchError
from tests.unit.core.bench.benches import answer, block

WORKLOAD = Workload("three", tuple(BenchPrompt(name, name) for name in ("one", "two", "three")))
PLAN = BenchPlan(1, "decode", tuple(each.name for each in WORKLOAD.prompts), 6)
RATES = {"fast": 120.0, "slow": 100.0}


class DaemonInLines:
    """Serves what it was told to; `strangers` and `pids` say what a block meets, in turn."""

    def __init__(self) -> None:
        self.serves = ""
        self.switches: list[str] = []
        self.strangers_seen: list[int] = []
        self.pids: list[int] = []
        self.gpus: list[dict[str, Any]] = []
        self.refuses: str | None = None
        self.lease_ended = False

    def switch(self, target: str) -> None:
        self.switches.append(target)
        if self.lease_ended:
            raise LeaseEndedError("bench was broken off: `orch up`")

        if target.partition("@")[0] == self.refuses:
            raise OrchError(f"{target} did not start")

        self.serves = target.partition("@")[0]

    def argv(self) -> tuple[str, ...]:
        return ("llama-server", self.serves)

    def status(self) -> dict[str, Any]:
        return {"pid": self.pids.pop(0) if self.pids else 1}

    def frame(self) -> dict[str, Any]:
        return {"gpus": self.gpus, "host": {"engine_rss_mib": 100}, "requests": []}

    def wait_idle(self, prefix: str) -> None:
        pass

    def strangers(self, prefix: str) -> int:
        return self.strangers_seen.pop(0) if self.strangers_seen else 0

    def strangers_since(self, frame: object, unix_s: float, prefix: str) -> int:
        return 0


class ClientInLines:
    """Answers at the rate of what is served."""

    prefix = "bench-1-"

    def __init__(self, daemon: DaemonInLines) -> None:
        self._daemon = daemon
        self.asked: list[str] = []
        self.fails: Callable[[int], bool] = lambda number: False

    def ask(self, name: str, body: dict[str, object]) -> BenchAnswer:
        self.asked.append(name)
        if self.fails(len(self.asked)):
            raise BenchRequestFailed(f"prompt `{name}` was not answered", details=("502",))

        assert body["model"] == self._daemon.serves
        return answer(name, RATES[self._daemon.serves])


class Bench:
    def __init__(self) -> None:
        self.daemon = DaemonInLines()
        self.client = ClientInLines(self.daemon)
        self.events: list[BenchEvent] = []
        self.argvs: list[tuple[str, tuple[str, ...]]] = []

    def run(self, progress: BenchProgress | None = None) -> BenchProgress:
        targets = {"a": BenchTarget("slow", "slow", "e"), "b": BenchTarget("fast", "fast", "e")}
        return BenchRun(
            PLAN, WORKLOAD, 101, cast(Any, targets), cast(DaemonLink, self.daemon), cast(GatewayClient, self.client),
            lambda text: None, self.events.append, lambda side, argv: self.argvs.append((side, argv)),
        ).run(progress or BenchProgress())  # fmt: skip

    def thrown(self) -> list[str]:
        return [each.kind for each in self.events if isinstance(each, ThrownPair)]


def test_each_block_is_a_switch_a_discarded_request_and_all_prompts() -> None:
    bench = Bench()
    progress = bench.run()
    assert len(progress.measured) == 6
    assert len(bench.daemon.switches) == 6
    assert bench.daemon.switches.count("fast@e") == 3
    for start in range(0, 24, 4):
        assert bench.client.asked[start] == WARM_UP.name
        assert sorted(bench.client.asked[start + 1 : start + 4]) == ["one", "three", "two"]


def test_a_client_spoils_the_pair_and_it_is_measured_again() -> None:
    bench = Bench()
    bench.daemon.strangers_seen = [0, 0, 0, 0, 1]
    progress = bench.run()
    assert bench.thrown() == ["clients"]
    assert len(progress.measured) == 6
    assert {each.attempt for each in progress.measured if each.pair == 0} == {1}


def test_another_process_than_the_one_that_was_started_spoils_the_pair() -> None:
    bench = Bench()
    bench.daemon.pids = [1, 2]
    bench.run()
    assert bench.thrown() == ["changed"]


def test_a_request_that_fails_once_costs_a_pair_and_one_that_always_fails_the_bench() -> None:
    bench = Bench()
    bench.client.fails = lambda number: number == 3
    assert len(bench.run().measured) == 6
    assert bench.thrown() == ["unusable"]

    bench = Bench()
    bench.client.fails = lambda number: True
    with pytest.raises(OrchError, match="given up: prompt `warm-up` was not answered; 502"):
        bench.run()

    assert bench.thrown() == ["unusable"] * 2


@pytest.mark.parametrize(("refuses", "side"), [("slow", "a"), ("fast", "b")])
def test_which_target_does_not_start_is_known(refuses: str, side: str) -> None:
    bench = Bench()
    bench.daemon.refuses = refuses
    with pytest.raises(BenchTargetFailed, match=f"{refuses}@e did not start") as caught:
        bench.run()

    assert caught.value.side == side
    assert type(caught.value.error) is OrchError


def test_a_start_that_fails_because_somebody_else_switched_is_no_fault_of_the_target() -> None:
    bench = Bench()
    bench.daemon.lease_ended = True
    with pytest.raises(LeaseEndedError):
        bench.run()


def test_half_a_pair_of_an_earlier_run_does_not_count() -> None:
    bench = Bench()
    half = BenchProgress(pairs=((block(0, "a", 100.0),),))
    progress = bench.run(half)
    assert bench.thrown() == ["interrupted"]
    assert len([each for each in bench.events if isinstance(each, MeasuredBlock)]) == len(progress.measured) == 6


def gpu(used: int, *throttle: str) -> dict[str, Any]:
    return {
        "index": 0, "name": "card", "used_mib": used, "engine_mib": used - 10, "others_mib": 10, "throttle": throttle,
        "temperature_c": 60.0, "sm_clock_mhz": 1500, "memory_clock_mhz": 900, "power_w": 200.0,
    }  # fmt: skip


def test_a_device_is_shown_at_its_worst_moment() -> None:
    frames = [{"gpus": [gpu(100)]}, {"gpus": [gpu(900, "thermal")]}, {"gpus": [gpu(300, "power_cap")]}]
    [look] = device_looks(cast(Any, frames))
    assert (look.used_mib, look.engine_mib, look.throttle) == (900, 890, ("thermal", "power_cap"))
    assert device_looks([]) == []


def shown(*rows: tuple[str, float | None]) -> Any:
    """A frame with these requests, the newest first."""
    return {"requests": [{"request_id": name, "energy_j": joules} for name, joules in rows]}


def test_the_energy_of_a_block_is_that_of_its_own_requests() -> None:
    frame = shown(("bench-1-3", 20.0), ("other", 1000.0), ("bench-1-2", 22.5), ("bench-1-1", 7.0))
    assert requests_energy(frame, "bench-1-", 2) == 42.5
    assert requests_energy(frame, "bench-1-", 4) is None, "an older one has left the list"
    assert requests_energy(shown(("bench-1-2", None), ("bench-1-1", 7.0)), "bench-1-", 2) is None
    assert requests_energy(cast(Any, {"requests": [{"request_id": "bench-1-1"}]}), "bench-1-", 1) is None, (
        "an older orch"
    )


class Frames:
    """A daemon that shows these frames in turn, the last one for ever."""

    def __init__(self, *frames: Any) -> None:
        self.frames = list(frames)
        self.looks = 0

    def frame(self) -> Any:
        self.looks += 1
        return self.frames.pop(0) if len(self.frames) > 1 else self.frames[0]


@pytest.mark.parametrize(
    ("frames", "looks"),
    [
        (
            [shown(("b-2", None), ("b-1", 5.0)), shown(("b-2", None), ("b-1", 5.0)), shown(("b-2", 6.0), ("b-1", 5.0))],
            3,
        ),
        ([shown(("b-2", None), ("b-1", None))], 1),
        ([shown(("other", None))], 1),
        ([shown(("b-2", None), ("b-1", 5.0))], 1 + module.SETTLE_LOOKS),
    ],
    ids=["it is told a moment later", "nobody tells any", "none of ours", "it is never told"],
)
def test_a_bench_waits_for_energy_that_is_told_and_for_no_other(
    frames: list[Any], looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    daemon = Frames(*frames)
    assert settled_frame(cast(DaemonLink, daemon), "b-") == frames[-1]
    assert daemon.looks == looks
