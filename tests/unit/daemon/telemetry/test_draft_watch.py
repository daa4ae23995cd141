"""What is said of MTP that does not pay, and that nothing is said of MTP that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import anyio
import pytest

from orchestrator.adapters.store.mtp_benches import MtpStart, measured_mtp
from orchestrator.core.bench.mtp_gain import MtpMeasurement
from orchestrator.core.engine_log.activity import EngineActivity
from orchestrator.core.profile.settings import Value
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry import draft_watch
from orchestrator.daemon.telemetry.draft_watch import DraftWatch
from orchestrator.gateway.contract import Finished
from tests.unit.adapters.store.test_mtp_benches import BUILD, MODEL, SETTINGS, keep_pair
from tests.unit.daemon.telemetry.idle_parts import run_on

pytestmark = pytest.mark.anyio


def drafting_run(**more: Value) -> EngineRun:
    run = run_on(1, "a.1")
    profile = replace(run.launch.profile, settings={**SETTINGS, **more})
    key = replace(run.launch.margin_key, build=BUILD, model=MODEL)
    run.launch = replace(run.launch, profile=profile, written=profile, margin_key=key)
    return run


class Watched:
    """A watch over one instance that drafts with MTP, with the events and the changes of its notice."""

    def __init__(self, bench_file: str, run: EngineRun) -> None:
        self.run = run
        self.events: list[tuple[str, str]] = []
        self.changes = 0
        runs = EngineRuns()
        runs.add(run)
        self.watch = DraftWatch(
            cast(Owner, None), runs, bench_file, lambda kind, text: self.events.append((kind, text)), self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    @property
    def notice(self) -> str:
        return self.watch.notice("a.1") or ""

    def answers(self, count: int, share: float | None, drafts: int | None = 300) -> None:
        for _ in range(count):
            right = round((drafts or 0) * (share or 0))
            self.watch.finished(
                Finished(
                    route="/completion", outcome="complete", held_s=0.0, first_token_s=None, total_s=1.0,
                    instance="a.1", status=200, output_tokens=(drafts or 900) // 3 + right + 1, output_ms=5000.0,
                    draft_tokens=drafts if share is not None else None,
                    draft_accepted=right if share is not None else None,
                )
            )  # fmt: skip


@pytest.fixture
def bench_file(tmp_path: Path) -> str:
    return str(tmp_path / "bench.sqlite3")


async def read_benches(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, looks: int = 1, serving: Mapping[str, EngineRun] | None = None
) -> None:
    """Let it look at the benches, once or more often."""
    monkeypatch.setattr(draft_watch, "serving_runs", lambda owner, runs: serving or {"a.1": watched.run})
    looked = anyio.Event()
    left = looks

    async def tick(_: float) -> None:
        nonlocal left
        if not left:
            looked.set()
            await anyio.sleep_forever()

        left -= 1

    monkeypatch.setattr(draft_watch, "sleep_until_tick", tick)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched.watch.run)
        with anyio.fail_after(10):
            await looked.wait()

        tasks.cancel_scope.cancel()


async def test_mtp_that_pays_is_no_notice(bench_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bench_file, drafting_run())
    keep_pair(bench_file, 150.0)
    await read_benches(watched, monkeypatch)
    watched.answers(30, 0.75)
    assert (watched.events, watched.notice, watched.changes) == ([], "", 0)


async def test_drafts_that_are_mostly_wrong_are_said_and_that_their_cost_is_unknown(bench_file: str) -> None:
    watched = Watched(bench_file, drafting_run(**{"sampling.temperature": 1.0}))
    watched.answers(30, 0.4)
    assert watched.kinds == ["drafts_wrong"] and watched.changes == 1
    assert "40 % of the last 2400 drafts" in watched.notice and "unknown" in watched.notice
    assert "temperature, 1, under 50 %" in watched.notice
    watched.answers(30, 0.7)
    assert watched.kinds == ["drafts_wrong", "drafts_right"] and watched.notice == ""


async def test_a_build_that_counts_drafts_in_its_log_alone_is_judged_by_that(bench_file: str) -> None:
    watched = Watched(bench_file, drafting_run())
    for number in range(1, 31):
        watched.run.log_cursor.activity = EngineActivity(drafts=300 * number, drafts_accepted=100 * number)
        watched.answers(1, None)

    assert watched.kinds == ["drafts_wrong"] and "33 % of the last 2400" in watched.notice


async def test_a_chain_is_judged_only_where_its_cost_was_measured(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain: dict[str, Value] = {"speculative.type": ("ngram-mod", "mtp")}
    watched = Watched(bench_file, drafting_run(**chain))
    watched.answers(30, 0.2)
    assert not watched.events  # n-grams guess long, and cheaply
    keep_pair(bench_file, 110.0, settings={**SETTINGS, **chain}, right=0.5)
    await read_benches(watched, monkeypatch)
    watched.answers(30, 0.05)
    assert watched.kinds == ["drafts_wrong"] and "that loses" in watched.notice and "(by bench 1)" in watched.notice


async def test_drafts_that_were_called_wrong_are_judged_anew_once_their_cost_is_known(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bench_file, drafting_run())
    watched.answers(30, 0.4)
    keep_pair(bench_file, 140.0, right=0.5)  # a draft costs next to nothing
    await read_benches(watched, monkeypatch)
    assert watched.changes == 2 and watched.notice == ""
    watched.answers(30, 0.4)
    assert watched.kinds == ["drafts_wrong"] and watched.changes == 2 and watched.notice == ""


async def test_a_steady_bad_state_is_told_once_however_often_benches_are_kept_and_read(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bench_file, drafting_run())
    keep_pair(bench_file, 110.0, right=0.5)
    for _ in range(3):
        await read_benches(watched, monkeypatch, looks=2)
        watched.answers(30, 0.05)
        keep_pair(bench_file, 80.0, settings={**SETTINGS, "context.size": 8192})  # which is of another start

    assert watched.kinds == ["drafts_wrong"] and watched.changes == 1 and "(by bench 1)" in watched.notice


async def test_benches_are_read_once_for_all_instances_and_again_once_one_was_kept(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def measured(path: str, starts: Sequence[MtpStart]) -> list[MtpMeasurement | None]:
        asked.append(len(starts))
        return measured_mtp(path, starts)

    monkeypatch.setattr(draft_watch, "measured_mtp", measured)
    watched = Watched(bench_file, drafting_run())
    serving = {"a.1": watched.run, "b.1": drafting_run()}
    keep_pair(bench_file, 110.0, right=0.5)
    await read_benches(watched, monkeypatch, looks=3, serving=serving)
    assert asked == [2]
    keep_pair(bench_file, 110.0, right=0.5)
    await read_benches(watched, monkeypatch, looks=3, serving=serving)
    assert asked == [2, 2]


async def test_the_profile_of_a_bench_is_told_nothing(bench_file: str) -> None:
    run = drafting_run()
    run.launch = replace(run.launch, target=replace(run.launch.target, profile="bench-0123456789ab"))
    watched = Watched(bench_file, run)
    watched.answers(30, 0.2)
    assert watched.notice == "" and not watched.events


async def test_drafts_that_stop_are_said(bench_file: str) -> None:
    watched = Watched(bench_file, drafting_run())
    watched.answers(3, 0.7)
    watched.answers(4, None, drafts=None)
    assert watched.kinds == ["drafts_stopped"] and "without a single draft" in watched.notice
    watched.answers(1, 0.7)
    assert watched.kinds == ["drafts_stopped", "drafts_resumed"] and watched.notice == ""


async def test_mtp_that_a_bench_measured_to_be_slower_is_said_with_the_command(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bench_file, drafting_run())
    watched.answers(30, 0.4)
    keep_pair(bench_file, 80.0, right=0.5)
    await read_benches(watched, monkeypatch)
    watched.answers(30, 0.4)  # that they cost too much is said already
    name = watched.run.launch.target.profile
    assert watched.kinds == ["drafts_wrong", "mtp_slower"] and "unknown" not in watched.notice
    assert "MTP is slower than none on this machine" in watched.notice and "bench 1" in watched.notice
    assert f"`orch profile set {name} speculative.type=none`" in watched.notice


async def test_what_was_measured_of_other_settings_is_not_said(
    bench_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(bench_file, drafting_run(**{"speculative.draft_max": 1}))
    keep_pair(bench_file, 80.0)
    await read_benches(watched, monkeypatch)
    assert watched.notice == "" and not watched.events


async def test_benches_that_cannot_be_read_are_no_notice(bench_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(bench_file, drafting_run())
    await anyio.Path(bench_file).write_bytes(b"x" * 4096)
    await read_benches(watched, monkeypatch)
    assert watched.notice == "" and not watched.events
