"""`orch demo`: the main job, on a real engine, in a home of its own that is gone afterwards."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.api import client
from orchestrator.api.wording import interruption_text
from orchestrator.cli import output, waiting
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

HELP = "see the main job on a real engine: no GPU, model or compiler needed"
EXAMPLES = """\
  orch demo
  orch demo --tokens 400
  orch demo --keep        # leave it running, to play with"""

QUESTION = "What does a supervisor do?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="length of the answer (200)")
    parser.add_argument("--keep", action="store_true", help="leave the daemon and its home in place")


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    with _home(args.keep) as home:
        os.environ["ORCH_HOME"] = home
        os.environ["ORCH_GATEWAY_PORT"] = "0"  # a free one: the demo disturbs nothing that runs on 8080
        code = _show(args)
        if args.keep:
            output.line(f"\nIt runs on. To go on with it: export ORCH_HOME={home}")

    output.line(f"\ndone in {time.monotonic() - started:.1f} s")
    return code


def _show(args: argparse.Namespace) -> int:
    from orchestrator.cli.launching import ensure_daemon
    from orchestrator.core.profile.profile import DEMO_MODEL
    from orchestrator.engines.model_file import model_file

    paths = find_paths()
    _step("1. A model: qwen35moe with an MTP head, written here and now")
    model = model_file(paths, DEMO_MODEL).ensure()
    output.line(f"   {model}, {os.path.getsize(model) / 2**20:.1f} MiB")

    _step("2. The profile `demo`, turned into the engine's own flags")
    _render()

    _step("3. The daemon starts it, and waits until it really answers")
    ensure_daemon(paths)
    try:
        up = _post(paths.control_socket, "/v1/up", {"profile": "demo"})
        status = waiting.until_settled(paths.control_socket, int(str(up["generation"])), timeout_s=170)
        if status["state"] != "ready":
            raise OrchError(f"the demo did not start: {status['cause']}", hint=status["hint"])

        url = status["gateway"]["url"]
        output.line(f"   ready: process {status['pid']}, build {status['build']}, {url}/v1")

        _step(f"4. A streamed chat through the gateway: “{QUESTION}”")
        _chat(url, args.tokens)

        _step("5. A switch to another profile while 8 clients ask without a pause")
        _switch_under_load(paths, url)

        _step("6. A recovery: the engine is killed, and a client that asks right then is still answered")
        _recover(paths, url)

        _step("7. orch status")
        _status(paths.control_socket)
    finally:
        if not args.keep:
            _step("8. A clean stop")
            down = _post(paths.control_socket, "/v1/down", {"all": True})
            waiting.until_stopped(paths.control_socket, int(str(down["daemon_pid"])), daemon_ends=True, timeout_s=60)
            output.line("   no process is left")

    return exit_codes.OK


def _render() -> None:
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.engines.registry import EngineRegistry
    from orchestrator.engines.render import render_profile

    paths = find_paths()
    profile = ProfileStore(paths).load("demo")
    rendered = render_profile(paths, profile, EngineRegistry(paths).resolve(profile.engine))
    line = "  "
    for word in (os.path.basename(rendered.argv[0]), *rendered.argv[1:]):
        if len(line) + len(word) > 100:
            output.line(line)
            line = "    "

        line += f" {word}"

    output.line(line)


def _chat(url: str, tokens: int) -> None:
    """Stream one answer to the terminal, then its figures, from the raw counts and times that the engine gives."""
    import http.client
    import json
    from urllib.parse import urlsplit

    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    began = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise OrchError(f"the gateway answered {response.status}: {response.read(500).decode(errors='replace')}")

    first_s = None
    timings: dict[str, float] = {}
    output.raw("   ")
    for line in response:
        if not line.startswith(b"data: {"):
            continue

        chunk = json.loads(line[6:])
        timings = chunk.get("timings") or timings
        for choice in chunk["choices"]:
            text = choice["delta"].get("content")
            if text:
                first_s = first_s or time.monotonic() - began
                output.raw(text.replace("\n", "\n   "))

    connection.close()
    count, milliseconds = timings["predicted_n"], timings["predicted_ms"]
    drafted, accepted = timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)
    share = f"{accepted / drafted:.0%} of {drafted} drafts accepted" if drafted else "nothing drafted"
    speed = (count - 1) * 1000 / milliseconds
    output.line(f"\n   {count} tokens, {speed:.0f} tok/s, first after {(first_s or 0) * 1000:.0f} ms, {share}")


def _switch_under_load(paths: Paths, url: str) -> None:
    """Clients count what they get while `orch switch` replaces the engine twice, once by each strategy."""
    import threading

    os.makedirs(paths.profiles, exist_ok=True)
    with open(os.path.join(paths.profiles, "demo-long.toml"), "w", encoding="utf-8") as file:
        file.write('schema = 1\nextends = "demo"\nmodel = "orch:demo"\n\n[context]\nsize = 16384\n')

    stop = threading.Event()
    answered: list[str | None] = []
    failed: list[str | None] = []

    def client() -> None:
        while not stop.is_set():
            problem = _ask(url, 12)
            (failed if problem else answered).append(problem)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()

    try:
        for target, strategy in (("demo-long", "beside"), ("demo", "replace")):
            answer = _post(paths.control_socket, "/v1/switch", {"target": target, "strategy": strategy})
            result = waiting.until_switched(paths.control_socket, str(answer["operation"]), 120)
            end = "ok" if result["ok"] else result["cause"]
            output.line(f"   {strategy}: now {target}, {interruption_text(result)}, {end}")
    finally:
        stop.set()
        for thread in clients:
            thread.join()

    output.line(f"   {len(answered)} requests answered, {len(failed)} failed")
    if failed:
        raise OrchError("requests failed during the switches", details=tuple(map(str, failed[:3])))


def _recover(paths: Paths, url: str) -> None:
    import signal

    before = client.status(paths.control_socket)
    assert before["pid"] is not None
    os.kill(before["pid"], signal.SIGKILL)
    began = time.monotonic()
    problem = _ask(url, 12)
    if problem:
        raise OrchError(f"the request was not answered: {problem}")

    after = client.status(paths.control_socket)
    took_s = time.monotonic() - began
    output.line(f"   process {before['pid']} was killed, {after['pid']} serves: answered after {took_s:.1f} s")


def _ask(url: str, tokens: int) -> str | None:
    """One short completion.

    :return: what went wrong, or None
    """
    import http.client
    import json
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    body = {"prompt": QUESTION, "n_predict": tokens, "temperature": 0}
    try:
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()

    return None if response.status == 200 and json.loads(answer)["content"] else f"{response.status}: {answer[:200]!r}"


def _status(path: str) -> None:
    from orchestrator.cli.operate.render_status import lines

    for line in lines(client.status(path)):
        output.line(f"   {line}")


def _post(path: str, target: str, body: dict[str, object]) -> dict[str, object]:
    import json

    answer: dict[str, object] = json.loads(client.request(path, target, json.dumps(body).encode(), timeout_s=120))
    return answer


def _step(text: str) -> None:
    output.line(f"\n{text}")


@contextlib.contextmanager
def _home(keep: bool) -> Iterator[str]:
    if keep:
        yield tempfile.mkdtemp(prefix="orch-demo-")
    else:
        with tempfile.TemporaryDirectory(prefix="orch-demo-") as home:
            yield home
