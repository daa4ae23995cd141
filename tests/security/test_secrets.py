"""Keys and prompts are where they are used, and nowhere else."""

from __future__ import annotations

import asyncio
import hmac
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import Request
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.request_guard import RequestGuard
from orchestrator.gateway.requests.origins import AllowedOrigins
from tests.security.conftest import Guarded


def processes(guarded: Guarded) -> list[int]:
    """The daemon and everything that it has started."""
    assert guarded.home.daemon is not None
    return [guarded.home.daemon.pid, *guarded.home.tagged()]


def test_no_secret_is_found_where_it_has_no_business(guarded: Guarded) -> None:
    home, argv = guarded.home, guarded.engine_argv
    key_file = argv[argv.index("--api-key-file") + 1]
    needles = {
        "the clients' key": guarded.key,
        "a wrong key": guarded.wrong_key,
        "the engine's key": Path(key_file).read_text(),
        "a prompt": guarded.prompt,
    }
    places: dict[str, bytes] = {}
    shown = {"Authorization": f"Bearer {guarded.wrong_key}"}
    places["401"] = b"".join(map(str.encode, map(str, guarded.ask("/v1/models", **shown))))
    places["401, x-api-key"] = guarded.ask("/completion", {"prompt": guarded.prompt}, **shown, **{"X-Api-Key": "y"})[2]
    places["404"] = guarded.ask(f"/nothing?api_key={guarded.wrong_key}")[2]
    places["404 model"] = guarded.ask("/v1/chat/completions", {"model": "none", "messages": guarded.prompt})[2]
    places["400"] = guarded.ask("/v1/chat/completions", {"messages": 1, "x": guarded.prompt})[2]
    for path in ("/metrics", "/v1/models", "/running", "/props", "/slots", "/upstream/demo/metrics"):
        status, headers, body = guarded.ask(path)
        assert status == 200, path
        places[path] = str(headers).encode() + body

    for words in (
        ("status", "--json"), ("status",), ("events", "-n", "1000", "--json"), ("logs", "-n", "100000"),
        ("config", "show", "--json"), ("engines", "list", "--json"), ("profile", "render", "demo", "--json"),
    ):  # fmt: skip
        done = home.orch(*words)
        places[" ".join(words)] = (done.stdout + done.stderr).encode()

    for pid in os.listdir("/proc"):
        if pid.isdigit():
            places[f"the command line of {pid}"] = _read(f"/proc/{pid}/cmdline")

    for number in processes(guarded):
        places[f"the environment of {number}"] = _read(f"/proc/{number}/environ")

    for directory, _, names in os.walk(home.root):
        for path in (os.path.join(directory, name) for name in names):
            if path not in (key_file, os.path.join(home.root, "config", "keys")) and os.path.isfile(path):
                places[path] = _read(path)

    assert {
        f"{what} in {place}" for place, data in places.items() for what, s in needles.items() if s.encode() in data
    } == set()
    assert len(places) > 40


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # a process that has ended
        return b""


def test_the_health_of_a_gateway_with_a_key_tells_nothing_but_that(guarded: Guarded) -> None:
    assert guarded.home.request("GET", "/health")[2] == b'{"status":"ok"}'
    for path in ("/metrics", "/v1/models", "/running", "/slots", "/props", "/upstream/demo/health"):
        status, headers, _ = guarded.home.request("GET", path)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")


def test_the_engine_listens_as_told_whatever_the_daemons_environment_says(guarded: Guarded) -> None:
    import psutil

    argv = guarded.engine_argv
    engine = psutil.Process(guarded.home.status()["pid"])
    listening = {tuple(each.laddr) for each in engine.net_connections(kind="inet") if each.status == "LISTEN"}
    assert listening == {("127.0.0.1", int(argv[argv.index("--port") + 1]))}
    environment = engine.environ()
    assert [name for name in environment if name.startswith(("LLAMA_", "GGML_", "HF_", "LD_", "PYTHON"))] == [
        "GGML_NO_BACKTRACE"
    ]


def test_no_code_of_the_daemons_environment_gets_into_the_engine(guarded: Guarded) -> None:
    assert guarded.home.daemon is not None
    assert guarded.library in Path(f"/proc/{guarded.home.daemon.pid}/maps").read_text()  # there it was heeded
    for pid in guarded.home.tagged():
        assert guarded.library not in Path(f"/proc/{pid}/maps").read_text()

    loaded = guarded.loaded.read_text()
    assert "'serve'" in loaded
    assert "--api-key-file" not in loaded


def test_a_crash_leaves_no_memory_on_the_disk(guarded: Guarded) -> None:
    for pid in processes(guarded)[:1] + [guarded.home.status()["pid"]]:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        soft, hard = next(line for line in lines if line.startswith("Max core file size")).split()[4:6]
        assert soft == hard and soft in ("0", "1")


@pytest.mark.parametrize("guards", [True, False])
def test_an_abort_dumps_no_core(tmp_path: Path, guards: bool) -> None:
    code = "import os, resource\n"
    code += (
        "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\nresource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
    )
    code += "from orchestrator.adapters.process.hardening import dump_no_core\ndump_no_core()\n" if guards else ""
    code += "pid = os.fork()\nif not pid: os.abort()\nraise SystemExit(os.WCOREDUMP(os.waitpid(pid, 0)[1]))\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONFAULTHANDLER": ""})
    if guards:
        assert done.returncode == 0
        assert list(tmp_path.iterdir()) == []
    elif not done.returncode:
        pytest.skip("this system dumps no core by itself, so the test beside this one proves less here")


def test_every_key_is_compared_in_constant_time_even_after_one_has_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return real(first, second)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    guard = RequestGuard((), (ApiKey("one"), ApiKey("two"), ApiKey("three")), AllowedOrigins(()))
    for shown, accepted in ((b"one", True), (b"three", True), (b"", False), (b"one\xff", False)):
        compared.clear()
        request = Request(
            "GET",
            "/",
            "1.1",
            [(b"authorization", b"Bearer " + shown)],
            keep_alive=True,
            peer="",
            transport=asyncio.Transport(),
        )
        if accepted:
            guard.check_key(request)
        else:
            with pytest.raises(GatewayError):
                guard.check_key(request)

        assert len(compared) == 3
        assert {len(part) for pair in compared for part in pair} == {32}  # digests: a key's length is not told either
