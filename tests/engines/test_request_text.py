"""What real builds print of requests: none of it is in the log that orch keeps."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from orchestrator.core.engine_log.request_text import LEFT_OUT
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.support import Home, new_home, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROFILE = (
    'schema = 1\nmodel = "{model}"\nengine = "{engine}"\n[context]\nsize = 2048\nparallel = 1\n[cpu]\nthreads = 1\n'
)
SECRET = "Zebrafish77"
SHARED = "The same beginning of a story about a boat on the sea. " * 2


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def test_no_text_of_a_request_is_in_the_log(home: Home, engine: Engine) -> None:
    home.env["ORCH_ENGINE_" + engine.id.upper().replace("-", "_")] = engine.path
    path = os.path.join(home.root, "known.gguf")
    write_known_model(path, "llama")
    home.profile("known", PROFILE.format(model=path, engine=engine.id))
    home.serve("known")
    until(lambda: home.status()["state"] == "ready", f"{engine.id} is ready")
    said = [{"role": "system", "content": f"be {SECRET}"}, {"role": "user", "content": f"hello {SECRET}\n{SECRET}"}]
    bodies: list[tuple[str, dict[str, object]]] = [
        # Two prompts that part after some tokens: the fork prints where.
        ("/completion", {"prompt": f"{SHARED}{SECRET} went home and slept for many hours. {SECRET}" * 2}),
        ("/completion", {"prompt": f"{SHARED}and {SECRET}\nsays something else"}),
        ("/v1/chat/completions", {"messages": said}),
        ("/v1/messages", {"messages": said[1:], "system": f"x-anthropic-billing-header: cch=00000 {SECRET}"}),
        # A grammar that cannot be read, and a request that the fork cannot start.
        ("/completion", {"prompt": "a", "grammar": f"root ::= [a-z] {SECRET} (\nb ::= \"{SECRET}\""}),
        ("/completion", {"prompt": SECRET, "samplers": [SECRET], "dry_sequence_breakers": []}),
        ("/v1/chat/completions", {"messages": said, "stop": [SECRET], "logit_bias": {SECRET: 1}}),
    ]  # fmt: skip
    for route, body in bodies:
        send(home, route, {"max_tokens": 2, "n_predict": 2, **body})

    log = os.path.join(home.root, "state", "logs", "engine.log")
    until(lambda: LEFT_OUT in read(log), "something was left out")
    assert SECRET not in read(log)
    assert SECRET not in home.orch("logs", "-n", "5000").stdout


def send(home: Home, route: str, body: dict[str, object]) -> None:
    data = json.dumps(body).encode()
    request = urllib.request.Request(home.url + route, data=data, headers={"content-type": "application/json"})
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=60).close()


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
