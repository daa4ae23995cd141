"""A bench from beginning to end: what it needs is set up, kept, and put back as it was, however it ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator import __version__
from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.key_file import read_keys
from orchestrator.adapters.hardware.machine import driver_version, kernel_release, processor_name
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import BenchStore, KeptRun, as_kept
from orchestrator.adapters.store.state_file import load_state
from orchestrator.bench.asking import GatewayClient
from orchestrator.bench.daemon_link import DaemonLink, Say
from orchestrator.bench.running import BenchRun
from orchestrator.bench.targets import BenchTarget, bench_profiles, describe_target, parse_target
from orchestrator.bench.verification import verification_of
from orchestrator.core.bench.blocks import BenchEvent, BenchPlan, BenchProgress, ThrownPair, add_event, progress_of
from orchestrator.core.bench.estimator import Side
from orchestrator.core.bench.records import BenchSpec, event_from_json, event_to_json, spec_from_json, spec_to_json
from orchestrator.core.bench.report import bench_report, verdict_text
from orchestrator.core.bench.workloads import Workload
from orchestrator.core.errors import UsageError

KEY_CREDENTIALS = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class BenchShell:
    """What all kinds of benches need.

    :param say: shows one line of progress; `note` tells what is worth keeping
    :param resume: the command that goes on with a bench that was broken off; empty for `orch bench resume`
    """

    paths: Paths
    link: DaemonLink
    store: BenchStore
    say: Say
    note: Callable[[str], None]
    resume: str = ""

    def running(self) -> tuple[str, str] | None:
        """Return the profile and engine that run, or are on their way; those that serve again in a moment first."""
        status = self.link.status()
        lease = status.get("lease")
        if lease is not None and lease["state"] in ("held", "restoring"):
            return (lease["serves"]["profile"], lease["serves"]["engine"]) if lease["serves"] is not None else None

        if status["state"] in ("stopped", "failed") or not status["profile"] or not status["engine"]:
            return None

        return status["profile"], status["engine"]

    def running_or_last(self) -> tuple[str, str] | None:
        """Return what runs, else what ran last: what an engine alone stands for."""
        running = self.running()
        if running is not None:
            return running

        last = load_state(self.paths.state_file)[0].get("last")
        if isinstance(last, dict) and last.get("profile") and last.get("engine"):
            return str(last["profile"]), str(last["engine"])

        return None

    def parse(self, texts: Sequence[str]) -> list[BenchTarget]:
        running = self.running_or_last()
        return [parse_target(self.paths, text, running) for text in texts]

    def client(self, run: int) -> GatewayClient:
        config = load_config(self.paths)
        keys = read_keys(config.gateway.api_key_file, os.environ.get(KEY_CREDENTIALS))
        return GatewayClient(
            self.link.status()["gateway"]["url"],
            keys[0].key if keys else None,
            f"bench-{run}-{os.getpid()}-",
            self.link.check,
        )

    @contextlib.contextmanager
    def staged(self, targets: Sequence[BenchTarget], title: str, resume: str = "") -> Iterator[None]:
        """Have the targets' profiles there, and hold the lease; at the end, what ran before runs again."""
        with bench_profiles(self.paths, targets), self.link.lease(title, resume):
            yield

    def machine(self) -> dict[str, Any]:
        """Return what the figures were made on."""
        frame = self.link.frame()
        return {
            "orch": __version__,
            "system": kernel_release(),
            "processor": processor_name(),
            "cpus": os.cpu_count(),
            "memory_mib": frame["host"]["memory_total_mib"],
            "devices": [f"{gpu['name']}, {gpu['total_mib']} MiB" for gpu in frame["gpus"]],
            "driver": driver_version(),
        }


def begin_pair(
    shell: BenchShell, texts: tuple[str, str], plan: BenchPlan, workload: Workload, tokens: int, command: Sequence[str]
) -> dict[str, Any]:
    """Run a bench of two targets, and return its report."""
    targets = shell.parse(texts)
    with bench_profiles(shell.paths, targets):  # a wrong setting is told before anything is kept or started
        sides = _described(shell, dict(zip(_SIDES, targets, strict=True)))

    spec = BenchSpec(plan, workload, tokens, sides, tuple(command), shell.machine())
    run = shell.store.begin(time.time(), "pair", " ".join(texts), spec_to_json(spec))
    return _go_on(shell, run, spec, BenchProgress())


def resume_pair(shell: BenchShell, run: int | None) -> dict[str, Any]:
    """Go on with a bench that was broken off, with the blocks that it has; by default the newest.

    :raises UsageError: when it is over, or what it compares has changed since
    """
    kept = shell.store.find(run)
    if kept.kind != "pair" or kept.state == "done":
        raise UsageError(f"bench {kept.id} is over", hint=f"`orch bench show {kept.id}` shows it")

    spec, progress = read_pair(shell.store, kept)
    targets = _targets(shell, spec)
    with bench_profiles(shell.paths, list(targets.values())):
        sides = _described(shell, targets)

    for side in _SIDES:
        old, new = spec.sides[side], sides[side]
        was, now = (
            f"{each.build}, sha256 {each.sha256[:12]}, model of {each.model_bytes} bytes" for each in (old, new)
        )
        if was != now:
            text = f"bench {kept.id} cannot be gone on with: {old.name} is not what it was"
            raise UsageError(text, details=(f"then {was}", f"now  {now}"), hint="begin a new one")

    return _go_on(shell, kept.id, spec, progress)


def read_pair(store: BenchStore, kept: KeptRun) -> tuple[BenchSpec, BenchProgress]:
    """:raises UnreadableRunError: when it is kept in a form that this orch does not know"""
    with as_kept(kept):
        events = [event_from_json(each) for each in store.events(kept.id)]
        return spec_from_json(kept.spec), progress_of(events)


def report_of(store: BenchStore, kept: KeptRun) -> dict[str, Any]:
    """Return the report of a bench of two targets, computed from its blocks."""
    spec, progress = read_pair(store, kept)
    report = bench_report(spec.sides, spec.plan, progress, spec.tokens)
    return {
        **report,
        "workload": spec.workload.name,
        "workload_digest": spec.workload.digest,
        "id": kept.id,
        "state": kept.state,
        "started": kept.started_s,
        "command": list(spec.command),
        "machine": dict(spec.machine),
    }


def _go_on(shell: BenchShell, run: int, spec: BenchSpec, progress: BenchProgress) -> dict[str, Any]:
    targets = _targets(shell, spec)
    argvs: dict[Side, tuple[str, ...]] = {}

    def keep(event: BenchEvent) -> None:
        nonlocal progress
        progress = add_event(progress, event)
        shell.store.add(run, event_to_json(event))
        if isinstance(event, ThrownPair):
            shell.note(f"a pair of blocks is thrown away: {event.reason}")

    def started(side: Side, argv: tuple[str, ...]) -> None:
        nonlocal spec
        if side not in argvs:
            argvs[side] = argv
            spec = replace(spec, sides={**spec.sides, side: replace(spec.sides[side], argv=argv)})
            shell.store.replace_spec(run, spec_to_json(spec))

    state = "interrupted"
    try:
        with shell.staged(list(targets.values()), f"bench {run}", shell.resume or f"orch bench resume {run}"):
            client = shell.client(run)
            bench = BenchRun(
                spec.plan, spec.workload, spec.tokens, targets, shell.link, client, shell.say, keep, started
            )
            bench.run(progress)
            state = "done"
    finally:
        shell.store.end(run, state, bench_report(spec.sides, spec.plan, progress, spec.tokens))

    return report_of(shell.store, shell.store.find(run))


_SIDES: tuple[Side, Side] = ("a", "b")


def _targets(shell: BenchShell, spec: BenchSpec) -> dict[Side, BenchTarget]:
    """Return the targets as they were, whatever runs by now."""
    return {
        side: BenchTarget(each.name, each.profile, each.engine, tuple(each.settings.items()))
        for side, each in spec.sides.items()
    }


def _described(shell: BenchShell, targets: Mapping[Side, BenchTarget]) -> dict[Side, Any]:
    return {
        side: describe_target(shell.paths, target, verification_of(shell.paths, target))
        for side, target in targets.items()
    }


def run_row(kept: KeptRun) -> dict[str, Any]:
    """Return a bench as `orch bench list` shows it."""
    started = datetime.fromtimestamp(kept.started_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    result = kept.result or {}
    return {
        "id": kept.id,
        "started": started,
        "kind": kept.kind,
        "what": kept.title,
        "state": kept.state,
        "result": verdict_text(result) if kept.kind == "pair" and result else "",
    }
