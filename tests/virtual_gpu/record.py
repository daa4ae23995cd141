"""Records `recorded_start.txt`: `ORCH_ENGINE_UPSTREAM=.../llama-server python -m tests.virtual_gpu.record`.

A start of the known model on the virtual GPU, one short answer, and a stop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from orchestrator.adapters.process.ports import free_port
from orchestrator.engines.known.model import write_known_model
from tests.support import until
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.recording import to_lines
from tests.virtual_gpu.relay import HOST, Message, relayed
from tests.virtual_gpu.server import find_rpc_build, rpc_server

RECORDING = os.path.join(os.path.dirname(__file__), "recorded_start.txt")


def main() -> None:
    build = find_rpc_build()
    if isinstance(build, str):
        sys.exit(build)

    messages: list[Message] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        rpc_server(build.rpc_server) as server,
        relayed(server, reported_bytes=64 * MIB, granted_bytes=64 * MIB, observe=messages.append) as relay,
    ):
        model = os.path.join(directory, "known.gguf")
        write_known_model(model)
        port = free_port()
        options = (
            f"--host {HOST} --port {port} --rpc {relay.address} --fit-target 8 -c 256 -np 1 -t 1 --spec-type draft-mtp"
        )
        engine = subprocess.Popen([build.llama_server, "-m", model, *options.split()])
        try:
            until(lambda: _answers(f"http://{HOST}:{port}/health"), "the engine is ready")
            body = json.dumps({"prompt": "A supervisor", "n_predict": 2}).encode()
            with urllib.request.urlopen(f"http://{HOST}:{port}/completion", body) as response:
                response.read()
        finally:
            engine.terminate()
            engine.wait()

        until(lambda: relay.memory.used_bytes() == 0, "the engine's memory is free")

    with open(RECORDING, "w", encoding="ascii") as file:
        file.write("# llama-server and ggml-rpc-server, recorded by tests/virtual_gpu/record.py\n")
        file.writelines(f"{line}\n" for line in to_lines(messages))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as response:
            return bool(response.status == 200)
    except urllib.error.URLError:
        return False


if __name__ == "__main__":
    main()
