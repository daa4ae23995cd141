"""The real RPC server of a build, and where such a build is."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.process.ports import free_port
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.errors import OrchError
from orchestrator.engines.locate import locate
from tests.support import until
from tests.virtual_gpu.relay import HOST

SERVER_PROGRAMS = ("ggml-rpc-server", "rpc-server")
"""Upstream's name, and the older one, which the fork has."""


class RpcBuild(NamedTuple):
    """The two programs of one build; client and server have to be of one protocol version."""

    llama_server: str
    rpc_server: str


def find_rpc_build() -> RpcBuild | str:
    """Upstream's build where orch finds it (`ORCH_ENGINE_UPSTREAM`, installed, PATH), or why there is none to use."""
    try:
        _, build = locate("upstream", find_paths(), os.environ)
    except OrchError as error:
        return f"{error.message}; ORCH_ENGINE_UPSTREAM names a build's llama-server"

    return rpc_build(build.path, build.capabilities)


def rpc_build(llama_server: str, capabilities: Capabilities) -> RpcBuild | str:
    """A build with its own RPC server, or why it cannot be used."""
    beside = [os.path.join(os.path.dirname(os.path.realpath(llama_server)), name) for name in SERVER_PROGRAMS]
    found = next(filter(os.path.exists, beside), None)
    if "--rpc" not in capabilities.flags or found is None:
        return f"{llama_server} was built without GGML_RPC, or none of {', '.join(SERVER_PROGRAMS)} is beside it"

    return RpcBuild(llama_server, found)


@contextlib.contextmanager
def rpc_server(program: str) -> Iterator[tuple[str, int]]:
    """A server on the CPU; its address.

    Its port is bound a moment after it was found free: on a machine where others do the same it may rarely be lost,
    and the test says so.
    """
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [program, "--host", HOST, "--port", str(port), "--threads", "1"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            until(lambda: process.poll() is not None or _listens(port), "the RPC server listens")
            log.seek(0)
            assert process.poll() is None, log.read().decode(errors="replace")
            yield HOST, port
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    """Without connecting: the server takes one client at a time."""
    wanted = f"{socket.inet_aton(HOST)[::-1].hex().upper()}:{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in table)
