"""Four models of which two fit: how many requests are answered, how long that takes, and how often a model is loaded.

Clients send the same script, which the seed decides, to each gateway in turn: turns of a few requests to one model, or
to two alternately as from one that embeds and then answers. Each gateway starts the same program with the same words,
through a script that counts its starts.

- orch, with `[residency] max = 2`;
- llama-swap (`--llama-swap PROGRAM`), with a matrix of all pairs, and as it is by itself, one model at a time.

    python -m benchmarks.fleet_swap --engine llama-server
    python -m benchmarks.fleet_swap --engine llama-server --llama-swap ./llama-swap --requests 400 --seed 1
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from orchestrator.adapters.process.ports import free_port
from tests.engines.real_models import fetch
from tests.support import new_home, until

NAMES = ("chat", "embed", "code", "draft")
WEIGHTS = (4, 3, 2, 1)
PAIR_SHARE = 0.3
"""Of the turns: one client that asks two models alternately."""

TOKENS = 4
CLIENTS = 2
WORDS = ("-c", "2048", "-np", "1", "-t", "1", "-tb", "1", "-ngl", "0")
PROFILE = """\
schema = 1
model = "{model}"
engine = "upstream"
[context]
size = 2048
parallel = 1
[cpu]
threads = 1
threads_batch = 1
[memory]
gpu_layers = 0
"""


@dataclass
class Outcome:
    """What became of a script at one gateway."""

    name: str
    completed: int = 0
    failed: list[str] = field(default_factory=list)
    took_s: float = 0.0
    slowest_s: float = 0.0
    loads: int = 0

    def row(self) -> str:
        figures = (self.completed, len(self.failed), f"{self.took_s:.0f}", f"{self.slowest_s:.1f}", self.loads)
        return f"| {' | '.join((self.name, *map(str, figures)))} |"


def script(requests: int, seed: int) -> list[str]:
    """Return the models that one client asks, in order."""
    chance = random.Random(seed)
    found: list[str] = []
    while len(found) < requests:
        turn = chance.randint(3, 10)
        first = chance.choices(NAMES, WEIGHTS)[0]
        if chance.random() < PAIR_SHARE:
            other = chance.choice([name for name in NAMES if name != first])
            found += [(first, other)[number % 2] for number in range(turn)]
        else:
            found += [first] * turn

    return found[:requests]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, metavar="PROGRAM", help="upstream's llama-server")
    parser.add_argument("--llama-swap", metavar="PROGRAM", help="compare with this llama-swap")
    parser.add_argument("--model", metavar="FILE", help="GGUF of all four (default: SmolLM2 135M)")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = args.model or str(fetch("smollm2"))
    each = args.requests // CLIENTS
    scripts = [script(each, args.seed * CLIENTS + number) for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory(prefix="orch-b-") as directory:
        engine = Counting(os.path.abspath(args.engine), directory)
        outcomes = [run("orch, max = 2", scripts, orch(engine.path, model), engine)]
        if args.llama_swap:
            program = os.path.abspath(args.llama_swap)
            for name, pairs in (("llama-swap, all pairs", True), ("llama-swap, by itself", False)):
                gateway = llama_swap(program, engine.path, model, directory, pairs=pairs)
                outcomes.append(run(name, scripts, gateway, engine))

    sys.stdout.write("| gateway | completed | failed | seconds | slowest, s | loads |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- |\n")
    for outcome in outcomes:
        sys.stdout.write(outcome.row() + "\n")
        for failure in outcome.failed[:3]:
            sys.stderr.write(f"{outcome.name}: {failure}\n")

    return 1 if outcomes[0].failed else 0


class Counting:
    """A script that starts the engine, and counts: what is only asked for its help is no start."""

    def __init__(self, engine: str, directory: str) -> None:
        self._log = os.path.join(directory, "starts")
        self.path = os.path.join(directory, "llama-server")
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\ncase "$*" in *--port*) echo start >> {self._log};; esac\nexec {engine} "$@"\n')

        os.chmod(self.path, 0o755)

    def count(self) -> int:
        if not os.path.exists(self._log):
            return 0

        with open(self._log, encoding="utf-8") as file:
            return len(file.readlines())


def run(name: str, scripts: Sequence[Sequence[str]], gateway: Iterator[str], engine: Counting) -> Outcome:
    """Send the scripts to a gateway."""
    outcome = Outcome(name)
    with contextmanager(lambda: gateway)() as address:
        lock = threading.Lock()
        before, began = engine.count(), time.monotonic()

        def client(models: Sequence[str]) -> None:
            for number, model in enumerate(models):
                sent = time.monotonic()
                failure = ask(address, model, number)
                with lock:
                    outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - sent)
                    outcome.completed += failure is None
                    outcome.failed += [failure] if failure is not None else []

        workers = [threading.Thread(target=client, args=(models,)) for models in scripts]
        for worker in workers:
            worker.start()

        for worker in workers:
            worker.join()

        outcome.took_s = time.monotonic() - began
        outcome.loads = engine.count() - before

    return outcome


def ask(address: str, model: str, number: int) -> str | None:
    """Send one request; return what is wrong with its answer."""
    body = {"model": model, "prompt": f"Request {number}:", "max_tokens": TOKENS, "temperature": 0}
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            return f"{model}: {response.status} {text[:200]!r}"

        return None if json.loads(text)["usage"]["completion_tokens"] else f"{model}: no token"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"{model}: {error!r}"
    finally:
        connection.close()


def orch(engine: str, model: str) -> Iterator[str]:
    with new_home() as home:
        home.env["ORCH_ENGINE_UPSTREAM"] = engine
        home.write("config/orch.toml", "[residency]\nmax = 2\n")
        for name in NAMES:
            home.profile(name, PROFILE.format(model=model))

        home.serve()
        yield urlsplit(home.url).netloc


def llama_swap(program: str, engine: str, model: str, directory: str, *, pairs: bool) -> Iterator[str]:
    port = free_port()
    words = " ".join(WORDS)
    command = f"{engine} --host 127.0.0.1 --port ${{PORT}} -m {model} {words}"
    config: dict[str, object] = {"models": {name: {"cmd": command} for name in NAMES}}
    if pairs:
        sets = {f"pair{number}": f"{one} & {two}" for number, (one, two) in enumerate(itertools.combinations(NAMES, 2))}
        config["routing"] = {"router": {"use": "matrix", "settings": {"matrix": {"sets": sets}}}}

    path = os.path.join(directory, f"llama-swap-{pairs}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # JSON is YAML

    address = f"127.0.0.1:{port}"
    with open(os.path.join(directory, "llama-swap.log"), "ab") as log:
        process = subprocess.Popen([program, "--config", path, "--listen", address], stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or ask_models(address), "llama-swap answers")
            if process.poll() is not None:
                raise RuntimeError(f"llama-swap ended with {process.returncode}: {log.name}")

            yield address
        finally:
            process.terminate()
            process.wait()


def ask_models(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
