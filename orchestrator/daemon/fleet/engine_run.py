"""One engine process and what belongs to it: its launch, its lines, its port, and a way to ask it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.process import linux
from orchestrator.adapters.process.child import Child
from orchestrator.adapters.process.ports import owned_by
from orchestrator.adapters.process.tree import Activity
from orchestrator.core.engine_log.marks import without_marks
from orchestrator.core.engine_log.request_text import RequestTextRemover
from orchestrator.core.failure.while_serving import memory_ran_out_before_serving
from orchestrator.core.fleet.failures import diagnosed_failure
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.model_figures import ModelFigures
from orchestrator.core.fleet.readiness import LoadingLook, missing_device, no_drafts, work_done
from orchestrator.core.fleet.routing_states import Endpoint
from orchestrator.core.health.degradations import OF_SPECULATION, Degradation, degradations_of, describe_degradations
from orchestrator.core.starts.readback import MemoryRow, memory_rows
from orchestrator.core.terminal import neutralise
from orchestrator.daemon.fleet.log_cursor import LogCursor
from orchestrator.daemon.fleet.preparing import HOST, Launch
from orchestrator.engines.read_back import ReadBack

KEPT_LINES = 2000
"""The end of a process's log that its failure is read from."""

SHOWN_LINES = 1000
"""Of a process's log as people read it, for those who ask for one model's."""

LAST_LINE_CHARS = 160


@dataclass(slots=True)
class EngineRun:
    """One process and what belongs to it.

    :ivar log: this process's lines alone; `log_cursor` reads them
    :ivar decided: set once it is known whether there is a process
    :ivar checks: loading and canary; cancelled as soon as the process is to end
    :ivar shown_log: its log without what clients ask, for people
    :ivar requested: the owner asked for the process; a launch that it no longer wanted is forgotten
    :ivar drain: the wait for the last request; a later one takes its place
    :ivar alone: no other engine ran when it was started
    :ivar runs: differs once something else runs: another text of the profile, rung, model file or program
    :ivar figures: what the engine says of its model; None until it is loaded
    :ivar unreleased_mib: device memory that a dead engine still held when this one began; None until it is known
    :ivar failing: that its answers fail, for people; empty while they do not
    :ivar read_back: its plan and what it took; None until it serves, or where it said nothing
    :ivar memory: what it was planned to take and, once it serves, took
    :ivar degradations: what it goes on without, as it said while it loaded
    """

    launch: Launch
    log: InstanceLog = field(default_factory=lambda: InstanceLog(max_lines=KEPT_LINES))
    shown_log: InstanceLog = field(default_factory=lambda: InstanceLog(max_lines=SHOWN_LINES))
    child: Child | None = None
    decided: anyio.Event = field(default_factory=anyio.Event)
    checks: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    requested: bool = False
    drain: anyio.CancelScope | None = None
    alone: bool = False
    unreleased_mib: int | None = None
    figures: ModelFigures | None = None
    failing: str = ""
    degradations: tuple[Degradation, ...] = ()
    read_back: ReadBack | None = None
    memory: tuple[MemoryRow, ...] = ()
    log_cursor: LogCursor = field(init=False)
    runs: str = field(init=False)

    def __post_init__(self) -> None:
        self.log_cursor = LogCursor(self.log)
        if self.launch.plan is not None:
            self.memory = memory_rows(self.launch.plan.need, None)

        said = (self.launch.profile, self.launch.rung, self.launch.margin_key)
        self.runs = hashlib.sha256(repr(said).encode("utf-8", "replace")).hexdigest()[:16]

    def owns(self, port: int) -> bool | None:
        return owned_by(port, self._processes()) if self.child is not None else None

    def _processes(self) -> Iterator[int]:
        """Look for the processes only when somebody asks for the first of them: that reads all of /proc."""
        if self.child is not None:
            yield from self.child.tree()

    def missing_device(self, loaded: bool) -> Failure | None:
        """Return why it must not serve: it found no device, and the profile requires one; None when it may.

        :param loaded: /health is good, so that all that it says before it serves is said
        """
        self.log_cursor.catch_up_now()
        settings = self.launch.profile.settings
        # Upstream fits unless it is told not to, the fork only when it is told to.
        fits = self.launch.capabilities.kind == "upstream"
        return missing_device(self.log_cursor.activity, settings, fits=fits, loaded=loaded)

    def note_degradations(self) -> tuple[Degradation, ...]:
        """Keep what the engine has said so far that it goes on without, and return it."""
        self.log_cursor.catch_up_now()
        self.degradations = degradations_of(self.log_cursor.activity, self.launch.profile.settings)
        return self.degradations

    def drafts_in_log(self) -> int:
        """Return how many drafts its log has counted so far."""
        self.log_cursor.catch_up_now()
        return self.log_cursor.activity.drafts

    def undrafted(self, answers: int) -> Failure:
        """Return why it drafts nothing though MTP is asked for, as its log tells it.

        :param answers: that were made without a draft
        """
        found = memory_ran_out_before_serving(self.log_cursor.records)
        if found is not None:
            return diagnosed_failure(found)

        told = self.log_cursor.activity.degraded
        why = next((told[kind] for kind in OF_SPECULATION if kind in told), None)
        return no_drafts(self.launch.target.profile, answers, why)

    def stopped(self) -> bool:
        """Return whether the process is stopped by a signal or a debugger."""
        stat = linux.stat_of(self.child.pid) if self.child is not None else None
        return stat is not None and stat.state in "Tt"

    def last_line(self) -> str:
        """Return the newest of what it has printed, for people; empty when that is nothing."""
        lines = self.log.tail(1)
        return neutralise(lines[0].text)[:LAST_LINE_CHARS] if lines else ""

    def look(self, listens: bool | None, healthy: bool) -> LoadingLook:
        """Return how far its loading is: bytes read, memory filled, lines printed, CPU time."""
        activity = self.child.activity() if self.child is not None else Activity()
        work = work_done(activity.read_bytes or 0, activity.rss_bytes, self.log.next_seq)
        return LoadingLook(listens, healthy, work, activity.cpu_s, activity.blocked)


class EngineRuns:
    """The live processes by instance. The effect runner adds and removes them, everybody else reads."""

    def __init__(self) -> None:
        self._runs: dict[str, EngineRun] = {}

    def __getitem__(self, instance: str) -> EngineRun:
        return self._runs[instance]

    def __iter__(self) -> Iterator[EngineRun]:
        return iter(tuple(self._runs.values()))

    def add(self, run: EngineRun) -> None:
        self._runs[run.launch.instance] = run

    def remove(self, run: EngineRun) -> None:
        self._runs.pop(run.launch.instance, None)

    def get(self, instance: str | None) -> EngineRun | None:
        """Return the run of an instance; None when there is none, or no instance."""
        return self._runs.get(instance or "")

    def children(self) -> list[Child]:
        """Return the engines' processes."""
        return [run.child for run in self._runs.values() if run.child is not None]

    def endpoint(self, instance: str) -> Endpoint:
        """Return where the gateway reaches an instance.

        :raises KeyError: when there is no such instance
        """
        launch = self._runs[instance].launch
        target, build = launch.target, launch.rendered.build
        runs = self._runs[instance].runs
        return Endpoint(instance, target.profile, target.engine, HOST, launch.port, launch.api_key, build, runs)

    def launch(self, instance: str | None) -> Launch | None:
        run = self.get(instance)
        return run.launch if run else None

    def notice(self, instance: str | None) -> str | None:
        """Return what is wrong with an instance that runs, in one line for people; None when that is nothing."""
        run = self.get(instance)
        if run is None:
            return None

        return "; ".join(filter(None, (run.failing, describe_degradations(run.degradations)))) or None

    def build(self, instance: str | None) -> str | None:
        """Return the label of the build that an instance runs."""
        launch = self.launch(instance)
        return launch.rendered.build if launch else None

    def figures(self, instance: str) -> ModelFigures | None:
        """Return what an instance says of its model; None where it was not asked."""
        run = self.get(instance)
        return run.figures if run else None

    def memory(self, instance: str | None) -> tuple[MemoryRow, ...]:
        """Return what an instance was planned to take and took, by place and component."""
        run = self.get(instance)
        return run.memory if run else ()

    def loading(self, instance: str | None) -> str:
        """Return how far an engine has loaded as far as its reads tell; empty when they do not (a cached file is not
        read).
        """
        run = self.get(instance)
        read = run.child.read_bytes() if run and run.child else None
        if run is None or not read or not run.launch.model_bytes:
            return ""

        return f"{min(read * 100 // run.launch.model_bytes, 99)} % read"


class Tee:
    """Writes a process's lines to its own log, which failures are read from, and without what clients ask to those that
    people read.
    """

    def __init__(self, own: InstanceLog, *shown: InstanceLog) -> None:
        self._own = own
        self._shown = shown
        self._remover = RequestTextRemover()

    def write(self, lines: Sequence[str]) -> None:
        unmarked = without_marks(lines)
        self._own.write(unmarked)
        lines = self._remover.shown(unmarked)
        for log in self._shown:
            log.write(lines)


@asynccontextmanager
async def engine_probe(launch: Launch) -> AsyncIterator[EngineProbe]:
    probe = EngineProbe(HOST, launch.port, launch.api_key)
    try:
        yield probe
    finally:
        with anyio.CancelScope(shield=True):
            await probe.aclose()
