"""The soak itself: cycles of switches and troubles, clients beside them, and looks at the daemon in between."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks import soak_plan, soak_samples
from benchmarks.soak_clients import REAL, Clients, Violation
from benchmarks.soak_plan import EMBEDDED, EMBEDDED_BROKEN, ENDS_WELL, FAKES, FAULTS, LADDER, Cycle
from orchestrator.core.errors import OrchError
from tests.faults.invariants import check_state_file
from tests.faults.lab import Lab
from tests.support import alive, until

CONFIG = """\
[daemon]
stop_grace_s = 1.0
drain_s = 5.0
load_stall_s = 5.0
probe_s = 0.25
stall_s = 3.0

[gateway]
hold_timeout_s = 30.0

[restart]
first_delay_s = 0.05
max_delay_s = 0.5
stable_s = 5.0
intensity = 1000
"""
"""Times short enough for hundreds of cycles, and no rest after many crashes: they are what this is about."""

CLIENTS = 6
WARM_UP = 50
SAMPLE_EVERY = 10
SWITCH_S = 60.0
READY_S = 60.0
MAX_PROBLEMS = 20

PROFILE = f"""\
[context]
parallel = 4
[memory]
fit = true
fit_margin = {LADDER[0]}
[recovery]
margins = [{", ".join(map(str, LADDER))}]
"""
REAL_PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
[context]
size = 4096
parallel = 4
[cpu]
threads = 1
threads_batch = 1
"""


@dataclass
class Report:
    """The counts of a soak: what was done, and what was seen.

    :ivar results: of the switches, as the control API gives them, with `start` and `clean` beside
    :ivar cut: why the soak ended before its last cycle; empty when it did not
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    samples: list[soak_samples.Sample] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    by_engine: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    replayed: int = 0
    slowest_s: float = 0.0
    took_s: float = 0.0
    cut: str = ""
    warm_up: int = WARM_UP

    @property
    def counted(self) -> list[soak_samples.Sample]:
        return [sample for sample in self.samples if sample.cycle >= self.warm_up]


def prepare(lab: Lab) -> None:
    """The profiles, and the configuration; before the daemon starts."""
    lab.configure(CONFIG)
    for name in FAKES:
        lab.model(name, engine=f"fake-{name.partition('-')[0]}", more=PROFILE)

    lab.profile(EMBEDDED, REAL_PROFILE)
    lab.profile(EMBEDDED_BROKEN, REAL_PROFILE + '[chat]\ntemplate_file = "gone.jinja"\n')
    lab.env["TMPDIR"] = os.path.join(lab.root, "tmp")
    os.makedirs(lab.env["TMPDIR"])


class Soak:
    """One run of it in a prepared lab.

    :param say: told of each decision as it is carried out, and of each violation
    """

    def __init__(self, lab: Lab, seed: int, cycles: int, requests: int, say: Callable[[str], None]) -> None:
        self.report = Report(warm_up=min(WARM_UP, cycles // 3))
        self._lab = lab
        self._seed = seed
        self._cycles = cycles
        self._requests = requests
        self._say = say
        self._began = time.monotonic()
        self._sent = 0
        self._told = 0
        self._every = min(SAMPLE_EVERY, max(cycles // 5, 1))

    def run(self, limit_s: float) -> Report:
        report, lab = self.report, self._lab
        lab.serve(FAKES[0])
        lab.ready(FAKES[0], READY_S)
        clients = Clients(urlsplit(lab.url).netloc, CLIENTS)
        for number in range(1, self._cycles + 1):
            if time.monotonic() - self._began > limit_s:
                report.cut = f"The limit of {limit_s / 60:g} minutes was reached before cycle {number}."
                break

            with self._noting(f"cycle {number}"):
                self._cycle(number, clients)

            if number % self._every == 0 or number == self._cycles:
                with self._noting(f"after cycle {number}"):
                    self._look(number, clients)

            self._tell_problems(clients)
            if not self._lives():
                report.cut = f"The daemon ended in cycle {number}."
                break

            if len(report.problems) >= MAX_PROBLEMS:
                report.cut = f"Too many violations up to cycle {number}."
                break

        with self._noting("at the end"):
            clients.wait_for_at_most(0)

        clients.end()
        self._settle_accounts(clients)
        report.took_s = time.monotonic() - self._began
        return report

    def _lives(self) -> bool:
        return self._lab.daemon is not None and self._lab.daemon.poll() is None

    @contextlib.contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        try:
            yield
        except (AssertionError, OrchError) as error:
            self._wrong(f"{place}: {error}")

    def _wrong(self, *problems: str) -> None:
        self.report.problems.extend(problems)
        self._say("\n".join([*(f"VIOLATION {problem}" for problem in problems), evidence(self._lab)]))

    def _tell_problems(self, clients: Clients) -> None:
        found = [f"request {problem}" for problem in clients.problems[self._told :]]
        self._told += len(found)
        if found:
            self._wrong(*found)

    # One cycle.

    def _cycle(self, number: int, clients: Clients) -> None:
        lab, plan = self._lab, soak_plan.cycle(self._seed, number)
        if plan.patient:
            lab.state("ready", READY_S)

        due = self._requests * number // self._cycles
        before = lab.status()
        target = plan.target if before["profile"] != plan.target else plan.other
        fake = target in FAKES
        self._say(f"{plan}; {due - self._sent} requests, from {self._sent + 1}; {before['profile']} {before['state']}")
        if plan.start.startswith("oom"):
            lab.orch("margins", "forget", "--all")

        if fake:
            lab.faults(target, FAULTS[plan.start])

        while self._sent < due:
            self._sent += 1
            clients.send(soak_plan.ask(self._seed, self._sent))

        result = self._switch(plan, target, before)
        if fake:
            lab.faults(target, {})

        clean = before["state"] == "ready" and (plan.trouble == "none" or not plan.during)
        self._judge(plan, target, result, clean, before)
        self.report.results.append({**result, "start": plan.start, "clean": clean})
        if not result["ok"] and not result["rolled_back"]:
            self._say(f"neither done nor rolled back: {result}")

        if plan.trouble != "none" and not plan.during:
            lab.state("ready", READY_S)
            time.sleep(plan.after_s)
            with self._engine(lab.status()["pid"]) as pidfd:
                self._hurt(plan, pidfd)

        clients.wait_for_at_most(CLIENTS)

    def _switch(self, plan: Cycle, target: str, before: Any) -> Any:
        """Begin the switch, do what is to happen during it, and wait for its end."""
        lab = self._lab
        operation = lab.control("/v1/switch", {"target": target, "strategy": plan.strategy})["operation"]
        if plan.trouble != "none" and plan.during:
            time.sleep(plan.after_s)
            old = before["pid"]
            new = [pid for pid in lab.tagged() if pid != old]
            with self._engine(new[-1] if plan.victim == "new" and new else old) as pidfd:
                self._hurt(plan, pidfd)

        def look() -> Any:
            return lab.control(f"/v1/switch?operation={operation}&wait_s=5")["result"]

        return until(look, f"the switch to {target} ends; it is {lab.status()}", SWITCH_S)

    def _judge(self, plan: Cycle, target: str, result: Any, clean: bool, before: Any) -> None:
        """A switch that nobody disturbed ends as its target starts; each other one tells how it ended."""
        ok = result["ok"]
        if ok == result["rolled_back"] and (clean or ok):
            raise Violation(f"neither done nor rolled back: {result}")

        if not ok and not result["cause"]:
            raise Violation(f"failed without a cause: {result}")

        if clean and ok != (plan.start in ENDS_WELL):
            raise Violation(f"{target} starts with {plan.start}, and the switch says {result}")

        expected = target if ok else before["profile"]
        if (ok or clean) and (status := self._lab.status())["profile"] != expected:
            raise Violation(f"{status['profile']} runs, not {expected}, after {result}")

    @contextlib.contextmanager
    def _engine(self, pid: int | None) -> Iterator[int | None]:
        """A handle that can never mean another process; None when this one is gone."""
        try:
            pidfd = os.pidfd_open(pid) if pid else None
        except ProcessLookupError:
            pidfd = None

        try:
            yield pidfd if pid in self._lab.tagged() else None
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _hurt(self, plan: Cycle, pidfd: int | None) -> None:
        numbers = {"kill": [signal.SIGKILL], "segv": [signal.SIGSEGV], "stop": [signal.SIGSTOP]}
        if pidfd is None:
            self.report.troubles["too late"] += 1
            return

        self.report.troubles[plan.trouble] += 1
        with contextlib.suppress(ProcessLookupError):
            for number in numbers.get(plan.trouble, [signal.SIGSTOP]):
                signal.pidfd_send_signal(pidfd, number)

            if plan.trouble == "pause":
                time.sleep(plan.pause_s)
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)

    # Between cycles.

    def _look(self, number: int, clients: Clients) -> None:
        """No client, then one engine that is the table's, then none: what is the daemon then?"""
        lab = self._lab
        clients.wait_for_at_most(0)
        status = lab.state("ready", READY_S)
        until(lambda: lab.tagged() == [lab.status()["pid"]], f"the processes are the table: {lab.tagged()}", 20)
        gateway = status["gateway"]
        if gateway["queued"] or gateway["in_flight"]:
            raise Violation(f"nobody asks, and the gateway says {gateway}")

        lab.control("/v1/down", {})
        lab.state("stopped", READY_S)
        until(lambda: not lab.tagged(), f"no process is left: {lab.tagged()}", 20)
        sample = soak_samples.take(lab, number, time.monotonic() - self._began)
        self.report.samples.append(sample)
        check_state_file(lab)
        lab.orch("margins", "list")
        if number < self._cycles:
            lab.up(status["profile"])
            lab.ready(status["profile"], READY_S)

    # At the end.

    def _settle_accounts(self, clients: Clients) -> None:
        """Clients, gateway and engines tell the same story."""
        report, lab = self.report, self._lab
        self._tell_problems(clients)
        report.slowest_s = clients.slowest_s
        report.outcomes, report.codes = clients.tally(), clients.codes()
        for code in report.codes:
            found = (
                (name, each) for name, each in clients.outcomes.items() if (each.kind, each.code) == ("error", code)
            )
            name, first = next(found)
            self._say(f"the first {code}: {name}, {first.detail}")

        if sum(report.outcomes.values()) + len(clients.problems) != self._sent:
            self._wrong(f"{self._sent} requests were sent, these have ended: {dict(report.outcomes)}")

        accepted, ends = Counter[str](), dict[tuple[str, str], str]()
        for row in (row for name in FAKES for row in lab.rows(name, "requests") if row.get("id")):
            accepted[row["id"]] += row["event"] == "accepted"
            ends[row["id"], row["instance"]] = row.get("outcome", "killed before it could say so")

        for request, outcome in clients.outcomes.items():
            if outcome.kind == "complete":
                fake = outcome.instance if outcome.instance != REAL else ""
                report.by_engine[fake.rpartition("-")[0] or REAL] += 1
                if fake and ends.get((request, fake), "never seen") in ("gone", "never seen"):
                    self._wrong(f"{request} is complete, and {fake} says {ends.get((request, fake))}")

        if self._lives():
            page = lab.request("GET", "/metrics", url=lab.url)[2]
            counted = re.search(rb"^orch_requests_replayed_total (\d+)\.0$", page, re.M)
            report.replayed = int(counted[1]) if counted else 0

        twice = [request for request, count in accepted.items() if count > 1]
        if len(twice) > report.replayed or any(accepted[request] > 2 for request in twice):
            self._wrong(f"{report.replayed} requests were sent again, and engines got twice or more: {twice}")

        lab.replayed.update(twice)
        for problem in soak_samples.problems(report.counted, lab.baseline_threads):
            self._wrong(problem)


def evidence(lab: Lab, lines: int = 20) -> str:
    """The last events, and the end of the daemon's log."""
    events = "it does not answer"
    if lab.daemon is not None and alive(lab.daemon.pid):
        done = lab.orch("events", "-n", str(lines), check=False)
        events = done.stdout + done.stderr

    return f"last events:\n{events}\ndaemon's log:\n" + "\n".join(lab.daemon_log().splitlines()[-2 * lines :])
