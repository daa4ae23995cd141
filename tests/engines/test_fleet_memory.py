"""Several engines on one virtual device that has no room for all: who is loaded, who goes, and that nothing is lost."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from orchestrator.api import client
from orchestrator.core.fleet.admission import LoadedBeside, Use, cheapest_set, cost
from orchestrator.daemon.residency.usage import RECENT_S
from orchestrator.engines.known.model import known_model, write_known_model
from orchestrator.engines.registry import Engine
from tests.support import Home, new_home
from tests.virtual_gpu.cards import Card, virtual_gpu
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.relay import Relay
from tests.virtual_gpu.server import RpcBuild, rpc_build

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

DEMANDS = 200
LIMIT_S = 180.0
SURE = 1.5
"""Costs that differ by less are not told apart: the daemon's clock is not this one's."""

TWO_OF_THREE = Card(36, 36, [1, 2, 4, 8])
"""Each model takes 16.63 MiB."""

BELIEVED = Card(60, 36, [1, 2, 4, 8])
"""It tells of room for all three, and has it for two."""

PROFILE = """\
schema = 1
model = "{model}"
engine = "upstream"

[context]
size = 8192
parallel = 1

[batch]
ubatch = 64

[cpu]
threads = 1

[memory]
fit = true
rpc = ["{address}"]

[speculative]
type = "mtp"
draft_max = 3
draft_p_min = 0.0

[recovery]
margins = {margins}

[residency]
priority = {priority}
pinned = {pinned}
"""
QUICK = """\
[gateway]
switch_min_stay_s = 0.5
switch_patience_s = 5.0
"""


@pytest.fixture(scope="module")
def build(real_builds: dict[str, Engine]) -> RpcBuild:
    mine = real_builds.get("upstream")
    found = rpc_build(mine.path, mine.capabilities) if mine is not None else "upstream is not built"
    if isinstance(found, str):
        pytest.skip(found)

    return found


@contextmanager
def fleet(
    build: RpcBuild, card: Card, priorities: Mapping[str, float], pinned: str = ""
) -> Iterator[tuple[Home, Relay]]:
    """A daemon with these profiles, and the device that they share."""
    with virtual_gpu(build, card, clients=len(priorities) + 2) as relay, new_home() as home:
        home.env["ORCH_ENGINE_UPSTREAM"] = build.llama_server
        home.write("config/orch.toml", QUICK)
        for name, priority in priorities.items():
            model = os.path.join(home.root, f"{name}.gguf")
            write_known_model(model)
            home.profile(
                name,
                PROFILE.format(
                    model=model,
                    address=relay.address,
                    margins=card.margins,
                    priority=float(priority),
                    pinned=str(name == pinned).lower(),
                ),
            )

        home.serve()
        yield home, relay


def ask(home: Home, profile: str, tokens: int = 8) -> None:
    body = {"model": profile, "prompt": "A supervisor", "n_predict": tokens, "temperature": 0}
    status, _, answer = home.request("POST", "/completion", body, url=home.url)
    assert status == 200, (profile, answer[:500])
    assert json.loads(answer)["content"] == known_model().greedy_text("A supervisor", tokens)


def events(home: Home, *kinds: str) -> list[Any]:
    lines = map(json.loads, client.stream(home.control_socket, "/v1/events?lines=10000&follow=0"))
    return [event for event in lines if event["kind"] in kinds or not kinds]


def when(event: Any) -> float:
    return datetime.fromisoformat(str(event["time"])).timestamp()


@dataclass
class Ledger:
    """What a client knows of the fleet: what is loaded, since when, how long that took, and how it was used."""

    priorities: dict[str, float]
    ready: dict[str, float] = field(default_factory=dict)
    load_s: dict[str, float] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    recent: dict[str, float] = field(default_factory=dict)
    seen: int = 0

    def used(self, profile: str) -> None:
        now = time.time()
        self.recent[profile] = self._recent_at(profile, now) + 1.0
        self.ends[profile] = now

    def _recent_at(self, profile: str, now: float) -> float:
        since_s = now - self.ends.get(profile, now)
        return self.recent.get(profile, 0.0) * float(0.5 ** (since_s / RECENT_S))

    def follow(self, home: Home) -> list[tuple[str, dict[str, float]]]:
        """Take what has happened since, and return who was evicted each time, with what each would have cost."""
        found = []
        began: dict[str, float] = {}
        happened = events(home)
        for event in happened[self.seen :]:
            at, text = when(event), str(event["message"])
            name = text.partition("@")[0]
            match event["kind"]:
                case "starting":
                    began.setdefault(name, at)
                case "ready":
                    self.ready[name] = at
                    self.load_s[name] = at - began.pop(name, at)
                case "evicted":
                    gone = text.partition(" is unloaded")[0]
                    found.append((gone, {each: cost(self._beside(each, at)) for each in self.ready}))
                    assert cheapest_set([self._beside(gone, at)], set(), 1, {}, {}) == (gone,)
                    for each in gone.split(", "):
                        self.ready.pop(each)
                case _:
                    pass

        self.seen = len(happened)
        return found

    def _beside(self, name: str, at: float) -> LoadedBeside:
        last = max(self.ends.get(name, 0.0), self.ready[name])
        use = Use(0, at - last, self._recent_at(name, at))
        return LoadedBeside(name, name, True, False, False, 0.0, self.load_s[name], self.priorities[name], use)


def test_random_demands_for_three_models_of_which_two_fit_evict_the_cheapest_and_lose_nothing(
    build: RpcBuild,
) -> None:
    priorities = {"a": 1.0, "b": 3.0, "c": 9.0}
    chance = random.Random(15)
    ledger = Ledger(priorities)
    judged = done = 0
    with fleet(build, TWO_OF_THREE, priorities) as (home, relay):
        deadline = time.monotonic() + LIMIT_S
        profile = "a"
        while done < DEMANDS and time.monotonic() < deadline:
            if chance.random() < 0.5:
                profile = chance.choice("abc")

            ask(home, profile, chance.randint(1, 12))
            done += 1
            for gone, costs in ledger.follow(home):
                sure = sorted(costs.values())
                if gone in costs and len(sure) > 1 and sure[1] > SURE * sure[0]:
                    judged += 1
                    assert costs[gone] == sure[0], (gone, costs)

            ledger.used(profile)
            assert relay.memory.used_bytes() <= TWO_OF_THREE.granted * MIB

        sys.stdout.write(f"{done} demands, {len(events(home, 'ready'))} loads, {judged} evictions judged\n")
        assert done >= 50 and judged >= 5
        assert len(events(home, "evicted")) >= judged
        assert not events(home, "refused", "backoff", "failed")
        assert relay.memory.peak_bytes() <= TWO_OF_THREE.granted * MIB
        assert relay.memory.refused_bytes() == [], "something ran out of memory"


def test_clients_that_ask_at_the_same_time_for_more_than_fits_are_all_answered_and_a_pinned_model_stays(
    build: RpcBuild,
) -> None:
    wrong: list[object] = []
    with fleet(build, TWO_OF_THREE, dict.fromkeys("abc", 1.0), pinned="a") as (home, relay):
        ask(home, "a")
        before = home.status()["pid"]
        deadline = time.monotonic() + LIMIT_S / 3
        counts: dict[int, int] = {}

        def work(seed: int) -> None:
            chance = random.Random(seed)
            while time.monotonic() < deadline and counts.get(seed, 0) < DEMANDS // 4:
                try:
                    ask(home, chance.choice("abc"), chance.randint(1, 12))
                except (AssertionError, OSError) as error:
                    wrong.append((seed, error))

                counts[seed] = counts.get(seed, 0) + 1

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for worker in workers:
            worker.start()

        for worker in workers:
            worker.join()

        sys.stdout.write(f"{sum(counts.values())} demands, {len(events(home, 'ready'))} loads\n")
        assert wrong == [], wrong[:3]
        assert min(counts.values()) >= 2
        assert home.status()["pid"] == before and home.status()["profile"] == "a"
        assert len([each for each in events(home, "ready") if each["message"].startswith("a@")]) == 1
        assert not [each for each in events(home, "evicted") if each["message"].startswith("a")]
        assert relay.memory.peak_bytes() <= TWO_OF_THREE.granted * MIB
        assert relay.memory.refused_bytes() == []


def test_a_start_that_runs_out_of_memory_beside_others_has_one_go_and_is_tried_the_same_again(build: RpcBuild) -> None:
    with fleet(build, BELIEVED, {"a": 1.0, "b": 9.0, "c": 9.0}) as (home, relay):
        for name in ("a", "b"):
            ask(home, name)

        assert relay.memory.refused_bytes() == []
        ask(home, "c")
        assert len(relay.memory.refused_bytes()) == 1
        tried = [each["message"] for each in events(home, "starting") if each["message"].startswith("c@")]
        assert len(tried) == 2 and tried[0].partition(", ")[2] == tried[1].partition(", ")[2], tried
        gone = [each["message"] for each in events(home, "evicted")]
        assert len(gone) == 1 and gone[0].startswith("a is unloaded"), gone
        assert not os.path.exists(os.path.join(home.root, "state", "margins.json")), "a margin was learned"
        for name in ("b", "c"):
            ask(home, name)

        assert len(events(home, "ready")) == 3
