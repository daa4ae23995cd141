"""Several real models at once, on both engines: loaded beside each other, used interleaved, switched one by one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api import client
from orchestrator.engines.registry import Engine
from tests.engines.real_models import fetch
from tests.support import Home, new_home, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

REQUESTS = 1000
CLIENTS = 6
PROFILE = """\
schema = 1
model = "{model}"
engine = "{engine}"

[context]
size = {context}
parallel = {slots}

[cpu]
threads = 1
threads_batch = 1
"""
# With several slots the fork of spring 2026 computes wrong tokens on a CPU, or ends in an assertion (docs/engines.md).
EMBEDDING = "[server]\nembeddings = true\npooling = 'mean'\n"
MODES = """
[[variants]]
name = "{name}:thinking"
template_kwargs = {{ enable_thinking = true }}

[[variants]]
name = "{name}:fast"
template_kwargs = {{ enable_thinking = false }}
"""


@pytest.fixture
def home(upstream: Engine, fork: Engine) -> Iterator[Home]:
    """Gemma and SmolLM2 that answer and SmolLM2 that embeds, the latter on the fork; nothing is loaded."""
    found = {name: fetch(name) for name in ("smollm2", "gemma3")}
    for path in found.values():
        if isinstance(path, str):
            pytest.skip(path)

    with new_home() as home:
        home.env |= {"ORCH_ENGINE_UPSTREAM": upstream.path, "ORCH_ENGINE_IK_FORK": fork.path}
        text = PROFILE.format(model=found["smollm2"], engine="upstream", slots=2, context=4096)
        home.profile("chat", text + MODES.format(name="chat"))
        home.profile("gemma", PROFILE.format(model=found["gemma3"], engine="upstream", slots=2, context=4096))
        home.profile(
            "embed", PROFILE.format(model=found["smollm2"], engine="ik-fork", slots=1, context=512) + EMBEDDING
        )
        home.serve()
        yield home


def chat(home: Home, model: str, text: str, tokens: int = 4, **more: object) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}
    status, _, answer = home.request("POST", "/v1/chat/completions", {**body, **more}, url=home.url)
    assert status == 200, answer[:500]
    return json.loads(answer)


def embed(home: Home, text: str) -> list[float]:
    status, _, answer = home.request("POST", "/v1/embeddings", {"model": "embed", "input": text}, url=home.url)
    assert status == 200, answer[:500]
    vector: list[float] = json.loads(answer)["data"][0]["embedding"]
    return vector


def kinds(home: Home) -> list[str]:
    """The kind of each event, the oldest first."""
    lines = client.stream(home.control_socket, "/v1/events?lines=10000&follow=0")
    return [str(json.loads(line)["kind"]) for line in lines]


def loads(home: Home) -> int:
    return kinds(home).count("ready")


def test_a_thousand_interleaved_requests_to_three_models_load_each_once(home: Home) -> None:
    wrong: list[object] = []
    first = [chat(home, name, "Hello")["model"] for name in ("chat", "gemma")], embed(home, "Hello")
    assert len(first[1]) == 576
    assert loads(home) == 3

    def ask(number: int) -> None:
        try:
            match number % 3:
                case 0:
                    assert chat(home, "chat", f"Number {number}")["choices"][0]["finish_reason"]
                case 1:
                    assert chat(home, "gemma", f"Number {number}")["choices"][0]["finish_reason"]
                case _:
                    assert len(embed(home, f"Number {number}")) == 576
        except (AssertionError, OSError, KeyError, ValueError) as error:
            wrong.append((number, error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(REQUESTS)))

    assert wrong == []
    assert loads(home) == 3, "something was loaded again"
    assert not {"evicted", "unloaded", "switched", "refused"} & set(kinds(home))


def test_one_client_that_embeds_and_then_answers_loads_each_model_once(home: Home) -> None:
    for number in range(3):
        embed(home, f"Question {number}: which city is the capital of France?")
        chat(home, "chat", f"Question {number}: which city is the capital of France?", 16)

    assert loads(home) == 2
    assert not {"evicted", "unloaded", "switched"} & set(kinds(home))


def test_thinking_and_not_thinking_are_one_loaded_model_whose_prompt_cache_stays(home: Home) -> None:
    long = "The river runs through the old town and under seven bridges. " * 20
    cached = []
    for number in range(6):
        name = ("chat:thinking", "chat:fast")[number % 2]
        answer = chat(home, name, f"{long} Which river? {number}", 4, cache_prompt=True)
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert loads(home) == 1
    assert min(cached[1:]) > 100, cached


def test_a_switch_of_one_model_leaves_those_that_serve_streams_alone(home: Home) -> None:
    home.orch("up", "embed")
    for name in ("chat", "gemma"):
        chat(home, name, "Hello")

    before = pids(home)
    assert set(before) == {"chat", "gemma", "embed"}
    stop = threading.Event()
    wrong: list[object] = []
    streams: list[int] = []

    def stream(model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 60,
                "stream": True, "temperature": 0}  # fmt: skip
        while not stop.is_set():
            status, _, answer = home.request("POST", "/v1/chat/completions", body, url=home.url)
            if status != 200 or b"data: [DONE]" not in answer or b'"error"' in answer:
                wrong.append((model, status, answer[-300:]))

            streams.append(status)

    workers = [threading.Thread(target=stream, args=(name,)) for name in ("chat", "gemma") for _ in range(2)]
    for worker in workers:
        worker.start()

    try:
        until(lambda: len(streams) >= 4, "streams run")
        for engine in ("upstream", "ik-fork"):
            result = home.orch_json("switch", engine)
            assert result["ok"], result
            assert len(embed(home, "Hello")) == 576
    finally:
        stop.set()
        for worker in workers:
            worker.join()

    assert wrong == []
    after = pids(home)
    assert {name: after[name] for name in ("chat", "gemma")} == {name: before[name] for name in ("chat", "gemma")}
    assert after["embed"] != before["embed"]


def pids(home: Home) -> dict[str, int]:
    """Profile to pid, of the engines that run."""
    found = {}
    for pid in home.tagged():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        alias = next((words[at + 1] for at, word in enumerate(words) if word == b"--alias"), None)
        if alias is not None:
            found[alias.decode().split(",")[0]] = pid

    return found
