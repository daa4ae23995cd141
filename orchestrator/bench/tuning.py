"""`orch tune` as it runs: start after start, the proposal against a full context, and the bench that confirms it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.adapters.hardware.machine import driver_version
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import TUNE, BenchStore, KeptRun, as_kept
from orchestrator.bench.asking import BenchRequestFailed, GatewayClient
from orchestrator.bench.daemon_link import DaemonLink
from orchestrator.bench.running import (
    MOST_FAILURES,
    MeasuredStay,
    PairSpoilt,
    StartFailedError,
    measure_residency,
    start_target,
)
from orchestrator.bench.session import BenchShell, begin_pair, report_of, resume_pair
from orchestrator.bench.targets import BenchTarget, bench_profiles, describe_target
from orchestrator.bench.tune_forecast import TunePlanner
from orchestrator.bench.tune_subject import look_at, requests_of
from orchestrator.bench.verification import verification_of
from orchestrator.core.bench.blocks import BenchPlan
from orchestrator.core.bench.figures import log_rate
from orchestrator.core.bench.workloads import BenchPrompt, filling, request_body
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.profile.speculation import speculation_types
from orchestrator.core.tune.axes import TuneFacts, space_of
from orchestrator.core.tune.records import (
    TuneProgress,
    TuneSpec,
    add_event,
    progress_of,
    spec_from_json,
    spec_to_json,
    trial_to_json,
)
from orchestrator.core.tune.report import tune_report, what_changed
from orchestrator.core.tune.search import TuneFound, TuneStart, TuneTrial, next_start
from orchestrator.core.tune.space import Point
from orchestrator.core.tune.use import TuneUse, sized, turns_of, use_of
from orchestrator.engines.plan import measure_devices

HISTORY_S = 30 * 86400.0
"""Of the user's requests, from which the shape of a turn is taken."""

CONFIRM_SHARE = 0.5
"""Of the budget that is kept for the confirmation: 6 to 16 blocks cost as much as so many starts."""

ONE_ATTEMPT = ("recovery.max_attempts", "1")
"""A start that runs out of memory is a result: with a larger margin it would be another one's."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the user asked for."""

    use: str = "chat"
    budget_s: float = 900.0
    allowed: tuple[str, ...] = ()
    most_starts: int = 20
    seed: int = 42


def begin_tuning(shell: BenchShell, text: str, options: TuneOptions, command: Sequence[str]) -> dict[str, Any]:
    """Tune a profile on an engine, and return the report.

    :raises UsageError: when there is nothing to choose
    """
    [target] = shell.parse([text])
    if target.settings:
        raise UsageError(f"`{text}`: a profile is tuned as it is", hint=f"`orch tune {target.base}@{target.engine}`")

    planner, facts = look_at(shell, target)
    spec = _specified(shell, target, options, command, planner, facts)
    run = shell.store.begin(time.time(), TUNE, text, spec_to_json(spec))
    return _go_on(shell, run, spec, TuneProgress(), planner)


def resume_tuning(shell: BenchShell, run: int | None) -> dict[str, Any]:
    """Go on with a tuning that was broken off; by default the newest.

    :raises UsageError: when it is over, or what it tunes has changed since
    """
    kept = find_tuning(shell.store, run)
    if kept is None or kept.state == "done":
        raise UsageError("there is no tuning to go on with", hint="`orch tune list` shows them")

    with as_kept(kept):
        spec, progress = spec_from_json(kept.spec), progress_of(shell.store.events(kept.id))

    target = BenchTarget(kept.title, spec.profile, spec.engine)
    now = describe_target(shell.paths, target, None)
    was = tuple(spec.side[key] for key in ("build", "sha256", "model_bytes"))
    if was != (now.build, now.sha256, now.model_bytes):
        raise UsageError(
            f"tuning {kept.id} cannot be gone on with: {spec.profile}@{spec.engine} is not what it was",
            details=(f"then {was[0]}, sha256 {was[1][:12]}", f"now  {now.build}, sha256 {now.sha256[:12]}"),
            hint="begin a new one",
        )

    return _go_on(shell, kept.id, spec, progress, look_at(shell, target)[0])


def find_tuning(store: BenchStore, run: int | None) -> KeptRun | None:
    """Return a tuning; the newest when none is named."""
    return next((each for each in store.tunings() if run in (None, each.id)), None)


def bench_winners(
    shell: BenchShell, reports: Sequence[dict[str, Any]], options: TuneOptions, command: Sequence[str]
) -> dict[str, Any]:
    """Bench what two tunings have confirmed against each other, and return that bench's report."""
    first, second = (_winner(report) for report in reports)
    use = TuneUse(**reports[0]["use"])
    workload = turns_of(use, fresh=True)
    plan = BenchPlan(options.seed, "turn", tuple(each.name for each in workload.prompts), 16)
    found = begin_pair(shell, (first, second), plan, workload, use.measured_tokens, command)
    return {**found, "kind": "pair"}


def _winner(report: dict[str, Any]) -> str:
    name = f"{report['profile']}@{report['engine']}"
    return _with_settings(name, report["proposal"]) if report["confirmed"] else name


def _with_settings(name: str, settings: Mapping[str, str]) -> str:
    return f"{name}+{','.join(f'{key}={value}' for key, value in settings.items())}"


def tuning_report(paths: Paths, store: BenchStore, kept: KeptRun, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a tuning as it was kept, or of what there is of one that was broken off.

    `stale` has what is another one since: build, model, devices, driver.

    :param machine: as it is now (`machine_now`)
    """
    report = kept.result
    if report is None:
        with as_kept(kept):
            spec, progress = spec_from_json(kept.spec), progress_of(store.events(kept.id))

        report = {"id": kept.id, "kind": "tune", "state": kept.state, **tune_report(spec, progress, None, None)}

    target = BenchTarget("", report["profile"], report["engine"])
    try:
        stale = what_changed(report, asdict(describe_target(paths, target, None)), machine)
    except OrchError as error:
        stale = [f"it cannot be started now: {error.message}"]

    return {**report, "stale": stale}


def machine_now() -> dict[str, Any]:
    """Return the devices and the driver of this machine; looks for up to a second."""
    devices = [f"{room.name}, {room.total_mib} MiB" for room in measure_devices()]
    return {"devices": devices, "driver": driver_version()}


def _specified(
    shell: BenchShell,
    target: BenchTarget,
    options: TuneOptions,
    command: Sequence[str],
    planner: TunePlanner,
    facts: TuneFacts,
) -> TuneSpec:
    space = space_of(facts, options.allowed).within(lambda choice: planner.says(dict(choice.settings)))
    if not space.axes:
        raise UsageError(f"{target.text}: there is nothing to choose on this machine, with this build")

    requests = requests_of(shell.paths, target.base, time.time() - HISTORY_S)
    return TuneSpec(
        profile=target.base,
        engine=target.engine,
        use=use_of(options.use, requests, facts.context_tokens),
        space=space,
        budget_s=options.budget_s,
        most_starts=options.most_starts,
        seed=options.seed,
        devices=facts.devices > 0,
        context_tokens=facts.context_tokens,
        side=asdict(describe_target(shell.paths, target, verification_of(shell.paths, target))),
        command=tuple(command),
        machine=shell.machine(),
    )


def _go_on(shell: BenchShell, run: int, spec: TuneSpec, progress: TuneProgress, planner: TunePlanner) -> dict[str, Any]:
    resume = f"orch tune resume {run}"
    tuning = _Tuning(replace(shell, resume=resume), run, spec, progress, planner)
    state, result = "interrupted", None
    try:
        with shell.staged([], f"tuning {run}", resume):
            found = tuning.search() if tuning.progress.confirmation is None else tuning.found()
            confirmed = tuning.confirm(found)

        state = "done"
        result = {
            "id": run,
            "kind": "tune",
            "state": state,
            **tune_report(tuning.spec, tuning.progress, found, confirmed),
        }
    finally:
        shell.store.end(run, state, result)

    return result


class _Tuning:
    """One tuning, or the rest of one."""

    def __init__(
        self, shell: BenchShell, run: int, spec: TuneSpec, progress: TuneProgress, planner: TunePlanner
    ) -> None:
        self._shell = shell
        self._run = run
        self.spec = spec
        self.progress = progress
        self._planner = planner
        self._forecasts: dict[Point, float | None] = {}

    def search(self) -> TuneFound:
        """Start and measure until the search is over."""
        client = self._shell.client(self._run)
        if not self.progress.trials:
            self._size(client)

        while True:
            step, spec = self._next(), self.spec
            if isinstance(step, TuneStart):
                self._keep(trial_to_json(self._tried(client, step)))
            elif not spec.devices or step.point == spec.space.current or step.point in self.progress.survived:
                return step
            else:
                self._keep(self._full_context(client, step.point))

    def _size(self, client: GatewayClient) -> None:
        """See how fast the settings as they are read and write, and measure as much of a turn as there is time for."""
        spec, shell = self.spec, self._shell
        target = self._target(spec.space.current)
        shell.say(f"{spec.profile}@{spec.engine}: seeing how fast it is")
        with bench_profiles(shell.paths, [target]):
            shell.link.wait_idle(client.prefix)
            began = time.monotonic()
            start_target(shell.link, target)
            start_s = time.monotonic() - began
            prompt = BenchPrompt("look", filling(200, salt=9))
            client.ask("warm-up", request_body(target.profile, prompt, 8))
            answer = client.ask("look", request_body(target.profile, prompt, 48))

        reads, writes = answer.prompt_tok_s or 100.0, answer.decode_tok_s or 10.0
        self.spec = replace(spec, use=sized(spec.use, spec.budget_s, start_s, reads, writes))
        shell.store.replace_spec(self._run, spec_to_json(self.spec))

    def found(self) -> TuneFound:
        """Return the end of a search that is over."""
        step = next_start(
            self.spec.space, self.progress.trials, self._forecast, len(self.progress.trials), self.progress.barred
        )
        assert isinstance(step, TuneFound)
        return step

    def confirm(self, found: TuneFound) -> dict[str, Any] | None:
        """Bench the proposal against the settings as they are, on prompts that the search has not seen."""
        spec, shell = self.spec, self._shell
        if found.point == spec.space.current or found.claimed is None:  # nothing to compare, or nothing to compare with
            return None

        begun = next((each for each in shell.store.runs() if each.id == self.progress.confirmation), None)
        if begun is not None:
            return report_of(shell.store, begun) if begun.state == "done" else resume_pair(shell, begun.id)

        workload = turns_of(spec.use, fresh=True)
        plan = BenchPlan(spec.seed, "turn", tuple(each.name for each in workload.prompts), self._blocks())
        name = f"{spec.profile}@{spec.engine}"
        proposed = _with_settings(name, spec.space.settings(found.point))
        began = max((each.id for each in shell.store.runs()), default=0) + 1
        self._keep({"event": "confirmation", "run": began})
        return begin_pair(shell, (name, proposed), plan, workload, spec.use.measured_tokens, spec.command)

    def _next(self) -> TuneStart | TuneFound:
        spec, progress = self.spec, self.progress
        spent = progress.took_s > spec.budget_s * (1 - CONFIRM_SHARE)
        most = len(progress.trials) if spent else spec.most_starts
        return next_start(spec.space, progress.trials, self._forecast, most, progress.barred)

    def _forecast(self, point: Point) -> float | None:
        if point not in self._forecasts:
            self._forecasts[point] = self._planner.log_rate(self.spec.space.settings(point), self.spec.use)

        return self._forecasts[point]

    def _blocks(self) -> int:
        """Return how many blocks of the confirmation the rest of the budget has room for."""
        measured = [trial.took_s for trial in self.progress.trials if trial.outcome == "measured"]
        block_s = sum(measured) / len(measured)
        left_s = self.spec.budget_s - self.progress.took_s
        return max((count for count in (6, 10, 16) if count * block_s <= left_s), default=6)

    def _keep(self, event: dict[str, Any]) -> None:
        self._shell.store.add(self._run, event)
        self.progress = add_event(self.progress, event)

    def _target(self, point: Point) -> BenchTarget:
        spec = self.spec
        settings = (*spec.space.settings(point).items(), ONE_ATTEMPT)
        return BenchTarget(spec.space.label(point), spec.profile, spec.engine, settings)

    def _tried(self, client: GatewayClient, step: TuneStart) -> TuneTrial:
        """Start a point and measure it; again where clients came, as long as it takes."""
        spec, shell = self.spec, self._shell
        number, label = len(self.progress.trials) + 1, spec.space.label(step.point)
        workload = turns_of(spec.use, fresh=False)
        target = self._target(step.point)
        began, failures = time.monotonic(), 0

        def say(what: str) -> None:
            shell.say(f"start {number} of at most {spec.most_starts}, {label} ({step.why}): {what}")

        with bench_profiles(shell.paths, [target]):
            while True:
                try:
                    found = measure_residency(
                        shell.link, client, target, workload, spec.use.measured_tokens, say, lambda argv: None
                    )
                    return _judged(step.point, found, time.monotonic() - began, self._drafts(step.point))
                except PairSpoilt as spoilt:
                    if spoilt.kind != "unusable":
                        continue

                    if not _serves(shell.link, target):
                        return TuneTrial(step.point, "died", (), spoilt.reason, time.monotonic() - began)

                    failures += 1
                    if failures >= MOST_FAILURES:
                        return TuneTrial(step.point, "unfit", (), spoilt.reason, time.monotonic() - began)
                except StartFailedError as failed:
                    return TuneTrial(step.point, "died", (), _cause(failed), time.monotonic() - began)

    def _drafts(self, point: Point) -> bool:
        """Whether a point is started to draft."""
        settings = self._planner.settings(self.spec.space.settings(point))
        return speculation_types(settings) != ("none",)

    def _full_context(self, client: GatewayClient, point: Point) -> dict[str, Any]:
        """Fill the context of the proposal: growth that kills it later is found here."""
        spec, shell = self.spec, self._shell
        target = self._target(point)
        shell.say(f"{target.text}: a prompt that fills the context of {spec.context_tokens} tokens")
        reason = ""
        with bench_profiles(shell.paths, [target]):
            try:
                shell.link.wait_idle(client.prefix)
                start_target(shell.link, target)
                probe = client.ask("probe", request_body(target.profile, BenchPrompt("probe", filling(200, salt=7)), 1))
                rate = max((probe.prompt_tokens + probe.cached_tokens) / 200, 0.5)
                words = int((spec.context_tokens - 96) / rate * 0.97)
                prompt = BenchPrompt("full", filling(words, salt=8))
                client.ask("full", request_body(target.profile, prompt, 32))
            except (BenchRequestFailed, StartFailedError) as error:
                reason = _cause(error)

            survived = not reason or _serves(shell.link, target)
        return {"event": "full_context", "point": point, "survived": survived, "reason": reason}


def _judged(point: Point, found: MeasuredStay, took_s: float, drafts: bool) -> TuneTrial:
    logs = tuple(value for answer in found.answers if (value := log_rate(answer, "turn")) is not None)
    if len(logs) < len(found.answers):
        return TuneTrial(point, "unfit", (), "a prompt gave no figure", took_s)

    if drafts and not sum(answer.draft_tokens for answer in found.answers):
        return TuneTrial(point, "unfit", (), "nothing was drafted", took_s)

    return TuneTrial(point, "measured", logs, "", took_s)


def _serves(link: DaemonLink, target: BenchTarget) -> bool:
    status = link.status()
    return (status["state"], status["profile"]) == ("ready", target.profile)


def _cause(error: OrchError) -> str:
    """Return what is wrong, without the name of the trial's own profile, which nobody knows, and without that the trial
    before it was not started again: its profile is gone on purpose.
    """
    message = error.message.partition("; and what ran before")[0]
    return "; ".join((message.partition(" did not start: ")[2] or message, *error.details))
