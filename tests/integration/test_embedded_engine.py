"""The real embedded engine: upstream's server from the wheel, on models whose output is known."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.failure.diagnosis import diagnose
from orchestrator.engines.known.model import KnownModel, write_known_model
from tests.busy import in_time
from tests.known_answers import next_tokens
from tests.support import PATIENCE_S

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")

SERVER = (sys.executable, "-c", "import sys; from orchestrator.engines.embedded.main import main; sys.exit(main())")
KEY = "correct-horse"


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: object = None, key: str | None = KEY) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def complete(self, prompt: str, count: int, **more: object) -> Any:
        body = {"prompt": prompt, "n_predict": count, "temperature": 0, "cache_prompt": False, **more}
        status, answer = self.request("POST", "/completion", body)
        assert status == 200, answer
        return json.loads(answer)

    def wait_ready(self, limit_s: float = PATIENCE_S) -> list[int]:
        """Poll /health until it says 200.

        :return: every status on the way
        """
        seen: list[int] = []
        deadline = time.monotonic() + limit_s
        while seen[-1:] != [200]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            with contextlib.suppress(OSError):  # not listening yet
                seen.append(self.request("GET", "/health", key=None)[0])

            time.sleep(0.005)

        return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(directory: Path, *argv: str, port: int | None = None) -> Running:
    port = port or free_port()
    log = directory / f"server-{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*SERVER, "--host", "127.0.0.1", "--port", str(port), "--no-ui", "-t", "1", *argv],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return Running(process, port, log)


def stop(running: Running) -> int:
    running.process.terminate()
    try:
        return running.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()
        raise


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVER, *argv], capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module")
def model_path(directory: Path) -> str:
    write_known_model(str(directory / "known.gguf"))
    return str(directory / "known.gguf")


@pytest.fixture(scope="module")
def served(directory: Path, model_path: str) -> Iterator[Running]:
    keys = directory / "keys"
    keys.write_text(f"# one key\n{KEY}\n")
    running = start(
        directory, "-m", model_path, "-c", "4096", "-np", "1", "--api-key-file", str(keys), "-a", "known", "-lv", "4",
        "--metrics", "--spec-type", "draft-mtp", "--spec-draft-n-max", "3",
    )  # fmt: skip
    try:
        running.wait_ready()
        yield running
    finally:
        stop(running)


@pytest.fixture(scope="module")
def known() -> KnownModel:
    from orchestrator.engines.known.model import known_model

    return known_model()


def test_the_text_and_the_drafts_are_those_computed(served: Running, known: KnownModel) -> None:
    for prompt in ("Hello", "Say something?", "line\n"):
        answer = served.complete(prompt, 200)
        assert answer["content"] == known.greedy_text(prompt, 200)
        expected = known.drafting(prompt, 200, 3)
        timings = answer["timings"]
        assert (timings["draft_n"], timings["draft_n_accepted"]) == (expected.drafted, expected.accepted)


def test_a_stretched_context_and_sampling_defaults_are_taken(directory: Path, model_path: str) -> None:
    running = start(
        directory, "-m", model_path, "-c", "2048", "-np", "1", "--rope-scaling", "yarn", "--rope-scale", "2",
        "--yarn-orig-ctx", "1024", "--yarn-beta-fast", "32", "--cache-reuse", "64", "--frequency-penalty", "0.5",
        "--dry-multiplier", "0.25", "--dry-allowed-length", "3", "--reasoning-budget-message", "Time is up.",
    )  # fmt: skip
    try:
        running.wait_ready()
        settings = running.complete("Hello", 4)["generation_settings"]
    finally:
        stop(running)

    assert (settings["frequency_penalty"], settings["dry_multiplier"], settings["dry_allowed_length"]) == (0.5, 0.25, 3)


def test_mtp_drafts_with_a_head_in_a_file_of_its_own(directory: Path, model_path: str, known: KnownModel) -> None:
    running = start(
        directory, "-m", model_path, "-c", "1024", "-np", "1", "--spec-type", "draft-mtp",
        "--spec-draft-model", model_path, "--spec-draft-n-max", "2",
    )  # fmt: skip
    try:
        running.wait_ready()
        answer = running.complete("Hello", 100)
    finally:
        stop(running)

    expected = known.drafting("Hello", 100, 2)
    assert answer["content"] == known.greedy_text("Hello", 100)
    assert (answer["timings"]["draft_n"], answer["timings"]["draft_n_accepted"]) == (
        expected.drafted,
        expected.accepted,
    )


@pytest.mark.parametrize(
    ("accuracy", "draft_max", "p_min"), [(0.3, 3, 0.0), (0.95, 5, 0.0), (0.9, 4, 0.8), (0.9, 4, 0.9)]
)
def test_acceptance_follows_the_draft_head(directory: Path, accuracy: float, draft_max: int, p_min: float) -> None:
    path = str(directory / f"accuracy-{accuracy}.gguf")
    model = write_known_model(path, draft_accuracy=accuracy)
    running = start(
        directory, "-m", path, "-c", "1024", "-np", "1", "--spec-type", "draft-mtp",
        "--spec-draft-n-max", str(draft_max), "--spec-draft-p-min", str(p_min),
    )  # fmt: skip
    try:
        running.wait_ready()
        answer = running.complete("Hello", 200)
    finally:
        stop(running)

    assert answer["content"] == model.greedy_text("Hello", 200)
    expected = model.drafting("Hello", 200, draft_max, p_min)
    assert answer["timings"]["draft_n"] == expected.drafted > 0
    assert answer["timings"]["draft_n_accepted"] == expected.accepted


@pytest.mark.parametrize("architecture", ["llama", "qwen35moe"])
def test_without_drafting_the_text_is_the_same(directory: Path, architecture: str) -> None:
    path = str(directory / f"{architecture}-plain.gguf")
    model = write_known_model(path, architecture)  # type: ignore[arg-type]
    running = start(directory, "-m", path, "-c", "1024", "-np", "2", "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on")
    try:
        running.wait_ready()
        answer = running.complete("Hello", 200)
    finally:
        stop(running)

    assert answer["content"] == model.greedy_text("Hello", 200)
    assert "draft_n" not in answer["timings"]


def test_sampled_tokens_have_the_known_distribution(served: Running, known: KnownModel) -> None:
    expected = next_tokens(known, "Hello")
    seen = dict.fromkeys(expected, 0)
    draws = 150
    for seed in range(draws):
        options: dict[str, object] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed}
        seen[served.complete("Hello", 1, **options)["content"]] += 1

    likeliest = max(expected, key=expected.__getitem__)
    # Six standard deviations of a binomial: 0.75 * 0.25 / 150 has 3.5 percent.
    assert abs(seen[likeliest] / draws - expected[likeliest]) < 0.21
    assert len([text for text, count in seen.items() if count]) > 2


def test_chat_streams_the_text_from_its_beginning(served: Running, known: KnownModel) -> None:
    body = {
        "model": "known", "stream": True, "temperature": 0, "max_tokens": 40,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Héllo, how are you?"}],
    }  # fmt: skip
    status, answer = served.request("POST", "/v1/chat/completions", body)
    assert status == 200
    events = [line[6:] for line in answer.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == known.greedy_text("assistant\n", 40)


def test_a_model_that_stops_ends_its_answer(directory: Path) -> None:
    path = str(directory / "stops.gguf")
    model = write_known_model(path, stops=True)
    running = start(directory, "-m", path, "-c", "1024", "-np", "1")
    try:
        running.wait_ready()
        body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
        status, answer = running.request("POST", "/v1/chat/completions", body)
    finally:
        stop(running)

    assert status == 200
    choice = json.loads(answer)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == model.greedy_text("assistant\n", 1000)


def test_the_key_is_needed_except_for_health(served: Running) -> None:
    assert served.request("GET", "/health", key=None) == (200, b'{"status":"ok"}')
    assert served.request("GET", "/props", key=None)[0] == 401
    assert served.request("GET", "/props", key="wrong")[0] == 401
    status, models = served.request("GET", "/v1/models")
    assert status == 200 and json.loads(models)["data"][0]["id"] == "known"
    assert b"llamacpp:spec_decode_num_draft_tokens_total" in served.request("GET", "/metrics")[1]


def test_the_log_has_upstreams_lines(served: Running) -> None:
    log = served.log.read_text()
    for pattern in (
        r"I srv +init: listening on http://127\.0\.0\.1:\d+$",
        r"I srv +init: model loaded",
        r"I srv +load_model: initializing, n_slots = 1, n_ctx_slot = 4096",
        r"I load_tensors: +\S+ model buffer size = +\d+\.\d+ MiB",
        r"I llama_kv_cache: +\S+ KV buffer size = +\d+\.\d+ MiB",
        r"I .*: creating MTP draft context against the target model",
    ):
        assert re.search(rf"^\d+\.\d\d\.\d\d\d\.\d\d\d .*{pattern}", log, re.MULTILINE) or re.search(pattern, log), (
            pattern
        )


def test_health_is_503_while_loading(directory: Path) -> None:
    """A model large enough that loading takes longer than a request."""
    path = str(directory / "many-layers.gguf")
    write_known_model(path, layers=120)
    running = start(directory, "-m", path, "-c", "4096", "-np", "1", "--check-tensors")
    try:
        seen = running.wait_ready()
    finally:
        stop(running)

    assert seen[0] == 503, seen[:5]


def failed(*argv: str) -> str:
    """What a start that must fail printed."""
    found = run(*argv)
    assert found.returncode == 1, found
    assert found.stdout == ""
    return found.stderr


def test_a_missing_model_ends_with_upstreams_lines(directory: Path) -> None:
    said = failed("-m", str(directory / "none.gguf"), "--port", str(free_port()))
    assert "gguf_init_from_file: failed to open GGUF file" in said
    assert re.search(r"srv +load_model: failed to load model, '.*none\.gguf'", said)
    assert re.search(r"E srv .*: exiting due to model loading error$", said.rstrip())


def test_a_truncated_model_is_named_corrupt(directory: Path, model_path: str) -> None:
    path = directory / "cut.gguf"
    shutil.copy(model_path, path)
    os.truncate(path, path.stat().st_size // 2)
    said = failed("-m", str(path), "--port", str(free_port()))
    assert "data is not within the file bounds, model is corrupted or incomplete" in said
    assert said.rstrip().endswith("exiting due to model loading error")


def test_mtp_on_a_model_without_it_fails(directory: Path) -> None:
    path = str(directory / "no-mtp.gguf")
    write_known_model(path, "llama")
    said = failed("-m", path, "--port", str(free_port()), "--spec-type", "draft-mtp")
    assert "exiting due to model loading error" in said


def test_a_port_in_use_is_reported_before_loading(model_path: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = failed("-m", model_path, "--port", str(port))

    assert re.search(
        rf"E srv +start: couldn't bind HTTP server socket, hostname: 127\.0\.0\.1, port: {port}$", said, re.M
    )
    assert "exiting due to HTTP server error" in said
    assert "loading model" not in said


def test_bad_arguments_are_refused_in_upstreams_words() -> None:
    assert failed("--foo") == "error: invalid argument: --foo\n"
    assert failed("-ctk", "q6_0") == 'error while handling argument "-ctk": Unsupported cache type: q6_0\n'
    assert "--model is required" in failed("--port", "1")


def test_help_and_version_are_upstreams_form() -> None:
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        found = run("--help")
        took_s.append(time.monotonic() - began)

    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("----- common params -----\n\n-h,    --help, --usage                  print usage")
    assert in_time(min(took_s), 1.0)
    found = run("-fa", "on", "--version", "--foo")
    assert (found.returncode, found.stdout) == (0, "")
    pattern = r"version: (?:(\d+) \(([^\s)]+)\)|(\S+) \(build (\d+), commit ([^\s)]+)\))\nbuilt with .+ for .+\n"
    match = re.fullmatch(pattern, found.stderr)
    assert match is not None, found.stderr
    assert int(match[4]) > 10_000
    assert run("--list-devices").stdout.startswith("Available devices:\n  ")


def test_without_the_wheel_it_says_what_to_install(directory: Path) -> None:
    program = (
        "import sys, importlib.util as u; found = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'xllamacpp' else found(name, *more); "
        "from orchestrator.engines.embedded.main import main; sys.exit(main(['--help']))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (found.returncode, found.stdout) == (1, "")
    assert 'pip install "llama-orch[embedded]"' in found.stderr


def test_a_library_that_the_wheel_lacks_is_named_as_the_linker_names_it(directory: Path) -> None:
    package = directory / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    done = subprocess.run(
        [*SERVER, "--model", "m.gguf"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(directory), *sys.path[1:]))},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "error while loading shared libraries: libgomp.so.1: cannot open" in done.stderr
    assert diagnose(parse_log(done.stderr.splitlines()), done.returncode).failure_class == "missing_library"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_during_a_request(
    directory: Path, model_path: str, number: signal.Signals
) -> None:
    running = start(directory, "-m", model_path, "-c", "32768", "-np", "1")
    try:
        running.wait_ready()
        began = threading.Event()
        client = threading.Thread(target=read_stream, args=(running.port, began), daemon=True)
        client.start()
        assert began.wait(PATIENCE_S)
        sent = time.monotonic()
        running.process.send_signal(number)
        assert running.process.wait(PATIENCE_S) == 0
        assert in_time(time.monotonic() - sent, 1.0)
        client.join(PATIENCE_S)
        assert not client.is_alive()
        assert running.log.read_text().rstrip().endswith("I srv  llama_server: cleaning up before exit...")
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def read_stream(port: int, began: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    body = json.dumps({"prompt": "Hello", "n_predict": 30000, "temperature": 0, "stream": True})
    try:
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        while response.readline():
            began.set()
    except (OSError, http.client.HTTPException):
        assert began.is_set()  # the server is gone, as it should be
    finally:
        connection.close()


def test_a_signal_during_loading_kills_it(directory: Path) -> None:
    path = str(directory / "slow.gguf")
    write_known_model(path, layers=120)
    running = start(directory, "-m", path, "-c", "4096", "--check-tensors")
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "loading model" not in running.log.read_text():
            assert running.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)

        running.process.terminate()
        assert running.process.wait(PATIENCE_S) == -signal.SIGTERM
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
