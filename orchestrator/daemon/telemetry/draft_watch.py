"""Notices MTP that does not pay: drafts that stop, drafts that are mostly wrong, and what benches here have measured.

`core/health/drafting.py`, `core/health/acceptance.py` and `core/bench/mtp_gain.py` decide; what they find is said here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from orchestrator.adapters.abandonable import run_abandonable
from orchestrator.adapters.config.trial_profiles import is_trial_profile
from orchestrator.adapters.file_stamps import Stamp
from orchestrator.adapters.store.mtp_benches import MtpStart, benches_stamp, measured_mtp
from orchestrator.core.bench.mtp_gain import MtpMeasurement, gain_at, mtp_findings
from orchestrator.core.errors import OrchError
from orchestrator.core.health.acceptance import (
    ENGINES_TEMPERATURE,
    AcceptanceHistory,
    DraftedAnswer,
    Gain,
    add_drafted,
    describe_low,
)
from orchestrator.core.health.drafting import DraftHistory, add_answer
from orchestrator.core.profile.speculation import speculation_types
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.serving_runs import serving_runs
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.gateway.contract import Finished

_log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks whether a bench has been kept."""


@dataclass(slots=True)
class DraftedInstance:
    """What is known of the drafts of one instance.

    :ivar logged: drafts, and right ones, that its log had counted at the end of the last answer
    :ivar measured: what a bench measured for its settings, build and model; None where none did
    """

    drafting: DraftHistory = field(default_factory=DraftHistory)
    acceptance: AcceptanceHistory = field(default_factory=AcceptanceHistory)
    logged: tuple[int, int] = (0, 0)
    measured: MtpMeasurement | None = None

    @property
    def gain(self) -> Gain | None:
        """What the share of right drafts makes of the speed; None where no bench told the cost of a draft."""
        cost = self.measured.draft_cost if self.measured is not None else None
        return partial(gain_at, cost) if cost is not None else None


class DraftWatch:
    """Watches the instances that draft with MTP, and says when that does not pay.

    :param bench_file: of `orch bench`
    :param record: notes an event for people: its kind, and a sentence
    :param on_notice: called when what `notice` says has changed
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        bench_file: str,
        record: Callable[[str, str], None],
        on_notice: Callable[[], None],
        look_s: float = LOOK_S,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._bench_file = bench_file
        self._record = record
        self._on_notice = on_notice
        self._look_s = look_s
        self._subjects: dict[str, DraftedInstance] = {}
        self._seen: tuple[set[str], tuple[Stamp, Stamp]] | None = None

    async def run(self) -> None:
        """Read what benches have measured of the instances that serve, whenever some was kept, for ever."""
        while True:
            await sleep_until_tick(self._look_s)
            serving = {name: run for name, run in serving_runs(self._owner, self._runs).items() if run.launch.mtp}
            for instance in self._subjects.keys() - serving.keys():
                del self._subjects[instance]

            asked = {name: run for name, run in serving.items() if not is_trial_profile(run.launch.target.profile)}
            if asked:
                await self._read_benches(asked)

    def finished(self, record: Finished) -> None:
        """Judge the drafts of a request that has ended."""
        instance = record.instance
        run = self._runs.get(instance) if instance is not None else None
        if instance is None or run is None or not run.launch.mtp or not record.output_tokens:
            return

        subject = self._subjects.setdefault(instance, DraftedInstance())
        drafts, accepted = _drafts_of(run, subject, record)
        before = (subject.drafting.lost, subject.acceptance.low)
        subject.drafting, news = add_answer(subject.drafting, record.output_tokens, drafted=drafts > 0)
        if news == "lost":
            self._record("drafts_stopped", f"{run.launch.target}: {_no_drafts(subject.drafting)}")
        elif news == "back":
            self._record("drafts_resumed", f"{run.launch.target}: drafts are counted again")

        if drafts and accepted is not None and record.output_ms and _can_be_judged(run, subject):
            answer = DraftedAnswer(drafts, accepted, record.output_tokens, record.output_ms)
            subject.acceptance, change = add_drafted(subject.acceptance, answer, subject.gain)
            if change == "low":
                self._record("drafts_wrong", f"{run.launch.target}: {_low(run, subject)}")
            elif change == "well":
                self._record("drafts_right", f"{run.launch.target}: enough drafts are right again")

        if (subject.drafting.lost, subject.acceptance.low) != before:
            self._on_notice()

    def notice(self, instance: str | None) -> str | None:
        """Return a sentence for people on MTP that does not pay; None when it does, as far as that is known."""
        run, subject = self._runs.get(instance), self._subjects.get(instance or "")
        if run is None or subject is None:
            return None

        parts = _slower(run, subject.measured)
        if subject.drafting.lost:
            parts.append(_no_drafts(subject.drafting))

        if subject.acceptance.low and _can_be_judged(run, subject):
            parts.append(_low(run, subject))

        return "; ".join(parts) or None

    async def _read_benches(self, serving: Mapping[str, EngineRun]) -> None:
        """Take over what was measured of the instances, where something was kept since, or others serve."""
        try:
            found = await run_abandonable(lambda: self._measured(serving))
        except (OSError, RuntimeError, OrchError) as error:  # RuntimeError: no thread can be started
            _log.warning("what benches measured of MTP is not known: %s", error)
            return

        for instance, measured in found.items():
            run, subject = serving[instance], self._subjects.setdefault(instance, DraftedInstance())
            if measured != subject.measured:
                self._take_over(run, subject, measured)

    def _measured(self, serving: Mapping[str, EngineRun]) -> dict[str, MtpMeasurement | None]:
        """Return what was measured of each instance; nothing where that has been read already. Blocks."""
        seen = set(serving), benches_stamp(self._bench_file)
        if seen == self._seen:
            return {}

        self._seen = seen  # also where it cannot be read: not again until it has changed
        launches = [run.launch for run in serving.values()]
        starts = [MtpStart(each.margin_key.build, each.margin_key.model, each.written.settings) for each in launches]
        return dict(zip(serving, measured_mtp(self._bench_file, starts), strict=True))

    def _take_over(self, run: EngineRun, subject: DraftedInstance, measured: MtpMeasurement | None) -> None:
        before, after = _slower(run, subject.measured), _slower(run, measured)
        was_low = subject.acceptance.low
        subject.measured = measured
        subject.acceptance = replace(subject.acceptance, low=False)  # the next answer is judged by what is known now
        if after != before:
            for each in after:
                self._record("mtp_slower", f"{run.launch.target}: {each}")

        if was_low or after != before:
            self._on_notice()


def _slower(run: EngineRun, measured: MtpMeasurement | None) -> list[str]:
    """Return that MTP was measured to be slower than none; empty where it was not."""
    found = mtp_findings(measured, run.launch.target.profile) if measured is not None else ()
    return [f"{each.message}; {each.hint} turns it off" for each in found if each.kind == "mtp_slower"]


def _can_be_judged(run: EngineRun, subject: DraftedInstance) -> bool:
    """Return whether the share of right drafts tells more than what a bench tells, or has told already.

    Without one all drafts have to be MTP's: engines count those of n-grams with them, which cost next to nothing.
    """
    if is_trial_profile(run.launch.target.profile):
        return False

    if subject.gain is None:
        return speculation_types(run.launch.profile.settings) == ("mtp",)

    return not _slower(run, subject.measured)


def _drafts_of(run: EngineRun, subject: DraftedInstance, record: Finished) -> tuple[int, int | None]:
    """Return how many tokens were drafted for an answer, and how many of them were right; None where nothing says."""
    # Builds that do not count drafts in their answers print a line for each.
    run.log_cursor.catch_up_now()
    activity, before = run.log_cursor.activity, subject.logged
    subject.logged = (activity.drafts, activity.drafts_accepted)
    if record.draft_tokens is not None:
        return record.draft_tokens, record.draft_accepted

    return activity.drafts - before[0], activity.drafts_accepted - before[1]


def _no_drafts(drafting: DraftHistory) -> str:
    return (
        f"the profile asks for MTP, and the last {drafting.requests} answers ({drafting.tokens} tokens) were made"
        " without a single draft: the engine has stopped drafting, or the clients turned it off"
    )


def _low(run: EngineRun, subject: DraftedInstance) -> str:
    settings = run.launch.profile.settings
    temperature = settings.get("sampling.temperature", ENGINES_TEMPERATURE)
    assert isinstance(temperature, int | float)
    source = subject.measured.source if subject.measured is not None else ""
    return describe_low(subject.acceptance, temperature, subject.gain, source, run.launch.target.profile)
