"""Hundreds of demands for four models of which two may be loaded, with loads, unloads, pins, kills and failing starts.

One daemon, two fake engines of each dialect, `[residency] max = 2`. Clients name a model each and some leave; meanwhile
models are loaded, unloaded and pinned, engines are killed, and starts run out of memory or crash. Every decision comes
from the seed, and is printed as it is carried out (stderr).

Every request has to end as one of: complete, to the byte, from the model that it named; an error that says so; the
client left. Every fiftieth demand all is still, and then no more than two models are loaded, the engines' processes are
those that the daemon speaks of, nothing is held, and what the daemon holds is compared.

    python -m benchmarks.soak_fleet
    python -m benchmarks.soak_fleet --demands 100 --seed 7
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from benchmarks import soak_plan, soak_samples
from benchmarks.soak_clients import Clients, Violation
from benchmarks.soak_plan import FAKES, FAULTS, Start
from benchmarks.soak_run import CONFIG, PROFILE, READY_S, evidence
from orchestrator.api import client
from orchestrator.core.errors import OrchError
from tests.faults.invariants import Watch, check_state_file
from tests.faults.lab import Lab, make_workshop, new_lab
from tests.support import until

MOST = 2
CLIENTS = 6
LOOK_EVERY = 50
GATEWAY = "switch_min_stay_s = 0.2\nswitch_patience_s = 1.0\n"
RESIDENCY = f"\n[residency]\nmax = {MOST}\n"

Deed = Literal["none", "load", "unload", "pin", "unpin", "kill", "segv"]
_DEEDS: dict[Deed, float] = {"none": 60, "load": 8, "unload": 10, "pin": 4, "unpin": 6, "kill": 7, "segv": 5}
_STARTS: dict[Start, float] = {"well": 90, "oom": 4, "crash": 3, "refuse": 3}
KINDS = ("starting", "ready", "evicted", "unloaded", "refused", "backoff", "failed")


@dataclass(frozen=True, slots=True)
class Demand:
    """One request, and what is done before it.

    :param model: that it names
    :param deed: done to `subject`, a model
    :param start: how the model that is named starts from now on
    """

    number: int
    model: str
    deed: Deed
    subject: str
    start: Start

    def __str__(self) -> str:
        parts = [f"demand {self.number}: {self.model}"]
        parts += [f"{self.deed} {self.subject}"] if self.deed != "none" else []
        return ", ".join([*parts, f"starts with {self.start}"] if self.start != "well" else parts)


@dataclass
class FleetReport:
    """What was done and seen.

    :ivar deeds: those that were carried out, and those that were refused
    :ivar events: how often each kind was told
    """

    deeds: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    samples: list[soak_samples.Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sent: int = 0
    slowest_s: float = 0.0
    took_s: float = 0.0


def demand(seed: int, number: int) -> Demand:
    """:param number: from 1"""
    dice = random.Random(f"{seed}/demand/{number}")
    # A client stays with its model for a few requests, as people do.
    turn = random.Random(f"{seed}/turn/{number // 4}")
    model = turn.choice(FAKES) if dice.random() < 0.7 else dice.choice(FAKES)
    deed = dice.choices(list(_DEEDS), list(_DEEDS.values()))[0]
    start = dice.choices(list(_STARTS), list(_STARTS.values()))[0]
    return Demand(number, model, deed, dice.choice(FAKES), start)


def prepare(lab: Lab) -> None:
    """The profiles and the configuration; before the daemon starts."""
    lab.configure(CONFIG.replace("[gateway]\n", f"[gateway]\n{GATEWAY}") + RESIDENCY)
    for name in FAKES:
        lab.model(name, engine=f"fake-{name.partition('-')[0]}", more=PROFILE)


class FleetSoak:
    """One run in a prepared lab.

    :param say: told of each decision as it is carried out, and of each violation
    """

    def __init__(self, lab: Lab, seed: int, demands: int, say: Callable[[str], None]) -> None:
        self.report = FleetReport()
        self._lab = lab
        self._seed = seed
        self._demands = demands
        self._say = say
        self._pinned: set[str] = set()
        self._faulty: set[str] = set()
        self._began = time.monotonic()

    def run(self, limit_s: float = float("inf")) -> FleetReport:
        lab, report = self._lab, self.report
        lab.serve()
        clients = Clients(urlsplit(lab.url).netloc, CLIENTS)
        for number in range(1, self._demands + 1):
            if time.monotonic() - self._began > limit_s or len(report.problems) > 10:
                break

            try:
                self._carry_out(demand(self._seed, number), clients)
                if number % LOOK_EVERY == 0 or number == self._demands:
                    self._look(number, clients)
            except (AssertionError, OrchError) as error:
                report.problems.append(f"demand {number}: {error}")
                self._say(f"VIOLATION {report.problems[-1]}\n{evidence(lab)}")

        clients.wait_for_at_most(0)
        clients.end()
        self._settle(clients)
        report.took_s = time.monotonic() - self._began
        return report

    def _carry_out(self, plan: Demand, clients: Clients) -> None:
        lab = self._lab
        self._say(str(plan))
        if plan.start != "well":
            lab.faults(plan.model, FAULTS[plan.start])
            self._faulty.add(plan.model)
        elif plan.number % 5 == 0:
            for name in self._faulty:
                lab.faults(name, {})

            self._faulty.clear()

        self._do(plan)
        ask = replace(soak_plan.ask(self._seed, plan.number), model=plan.model)
        self.report.sent += 1
        clients.send(ask)
        clients.wait_for_at_most(CLIENTS)

    def _do(self, plan: Demand) -> None:
        lab, subject = self._lab, plan.subject
        words: dict[Deed, tuple[str, dict[str, object]]] = {
            "load": ("/v1/load", {"profile": subject}),
            "unload": ("/v1/unload", {"profile": subject}),
            "pin": ("/v1/pin", {"profile": subject, "pinned": True}),
            "unpin": ("/v1/pin", {"profile": subject, "pinned": False}),
        }
        try:
            if plan.deed in words:
                # With all that may be loaded pinned, nobody else could ever be answered.
                if plan.deed == "pin" and self._pinned - {subject}:
                    return

                lab.control(*words[plan.deed])
                self._pinned = (self._pinned | {subject}) if plan.deed == "pin" else self._pinned
                self._pinned -= {subject} if plan.deed == "unpin" else set()
            elif plan.deed != "none":
                self._kill(subject, signal.SIGKILL if plan.deed == "kill" else signal.SIGSEGV)

            self.report.deeds[plan.deed] += plan.deed != "none"
        except (OrchError, LookupError, ProcessLookupError) as error:  # it may have ended by itself just now
            self.report.deeds[f"{plan.deed}, refused"] += 1
            self._say(f"{plan.deed} {subject}: {error}")

    def _kill(self, profile: str, number: int) -> None:
        """:raises LookupError: when no engine of this profile runs"""
        pid = processes(self._lab).get(profile)
        if pid is None:
            raise LookupError("nothing runs")

        handle = os.pidfd_open(pid)  # one that can never mean another process
        try:
            if pid in self._lab.tagged():
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)

    def _look(self, number: int, clients: Clients) -> None:
        """All is still: what runs is what the daemon speaks of."""
        lab = self._lab
        clients.wait_for_at_most(0)
        for name in self._faulty:
            lab.faults(name, {})

        self._faulty.clear()

        def still() -> bool:
            status = lab.status()
            states = {each["state"] for each in status["instances"]}
            waits = states & {"preparing", "starting", "draining", "stopping", "backoff"}
            return not waits and set(lab.tagged()) == set(processes(lab).values())

        until(still, f"what runs is the table: {processes(lab)}, {lab.tagged()}, {lab.status()['instances']}", READY_S)
        loaded = processes(lab)
        if len(loaded) > MOST:
            raise Violation(f"{loaded} are loaded, and {MOST} may be")

        gateway = lab.status()["gateway"]
        if gateway["queued"] or gateway["in_flight"]:
            raise Violation(f"nobody asks, and the gateway says {gateway}")

        # What is compared is a daemon that runs nothing.
        lab.control("/v1/down", {})
        until(lambda: not lab.tagged(), f"no process is left: {lab.tagged()}", READY_S)
        keys = os.path.join(lab.root, "run", "keys")
        until(lambda: not os.path.exists(keys) or not os.listdir(keys), "no engine's key is left", READY_S)
        self.report.samples.append(soak_samples.take(lab, number, time.monotonic() - self._began))
        check_state_file(lab)

    def _settle(self, clients: Clients) -> None:
        report, lab = self.report, self._lab
        report.problems += [f"request {problem}" for problem in clients.problems]
        report.outcomes, report.codes, report.slowest_s = clients.tally(), clients.codes(), clients.slowest_s
        if sum(report.outcomes.values()) + len(clients.problems) != report.sent:
            report.problems.append(f"{report.sent} requests were sent, these have ended: {dict(report.outcomes)}")

        for request, outcome in clients.outcomes.items():
            named = demand(self._seed, int(request.partition("-")[2])).model
            if outcome.kind == "complete" and outcome.instance.rpartition("-")[0] != named:
                report.problems.append(f"{request} named {named}, and {outcome.instance} answered")

        accepted = Counter(row["id"] for name in FAKES for row in lab.requests(name, "accepted") if row.get("id"))
        lab.replayed.update(request for request, count in accepted.items() if count == 2)
        report.problems += [f"{request} was accepted {count} times" for request, count in accepted.items() if count > 2]
        report.problems += soak_samples.problems(report.samples[1:], lab.baseline_threads)
        told = list(map(json.loads, client.stream(lab.control_socket, "/v1/events?lines=100000&follow=0")))
        report.events = Counter(str(event["kind"]) for event in told if event["kind"] in KINDS)
        for event in told:
            if event["kind"] in ("refused", "failed"):
                self._say(f"{event['time']} {event['kind']}: {event['message']}")


def processes(lab: Lab) -> dict[str, int]:
    """Profile to pid of the engines that the daemon speaks of."""
    return {each["profile"]: each["pid"] for each in lab.status()["instances"] if each["pid"]}


def written(report: FleetReport, seed: int, demands: int) -> str:
    """Return the part of `docs/soak.md`."""
    verdict = "**No violation.**" if not report.problems else f"**{len(report.problems)} violations:**"
    summary = f"{verdict} {report.sent} demands in {report.took_s / 60:.1f} minutes; two of four models may be loaded."
    lines = [
        "## Several models",
        "",
        "```",
        f"python -m benchmarks.soak_fleet --demands {demands} --seed {seed}",
        "```",
        "",
        f"{summary} The slowest request took {report.slowest_s:.1f} s.",
        *(f"- {problem}" for problem in report.problems),
        "",
        f"Requests: {_counts(report.outcomes)}. Errors: {_counts(report.codes) or 'none'}.",
        "",
        f"Done meanwhile: {_counts(report.deeds)}.",
        "",
        f"Told: {_counts(report.events)}.",
    ]
    return "\n".join(lines) + "\n"


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in found.most_common())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demands", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="all decisions come from it (default 1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orch-w-") as workshop, new_lab(make_workshop(workshop)) as lab:
        prepare(lab)
        watch = Watch(lab)
        report = FleetSoak(lab, args.seed, args.demands, _say).run()
        try:
            watch.check()
        except AssertionError as error:
            report.problems.append(f"after the last demand: {error}")

    sys.stdout.write(written(report, args.seed, args.demands))
    return 1 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
