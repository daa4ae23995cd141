"""What another user of this machine gets: of the engine's port nothing but its health, of the rest nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.http1 import HttpServer, Request, Response
from orchestrator.adapters.paths import make_private
from orchestrator.gateway.routes import ENGINE_ROUTES
from tests.integration.gateway_support import drive, get
from tests.security.conftest import Guarded
from tests.security.other_user import NOBODY, as_nobody, as_root

ASK_ALL = """
import http.client, json, sys
answers = {}
for path in sys.argv[2:]:
    method, path = path.split(" ")
    for key in (None, "wrong"):
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
        headers = {} if key is None else {"Authorization": "Bearer " + key}
        connection.request(method, path, b"{}" if method == "POST" else None, headers)
        answers.setdefault(method + " " + path, []).append(connection.getresponse().status)
print(json.dumps(answers))
"""

OPEN_ALL = """
import json, os, sys
opened = []
for path in sys.argv[1:]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError:
        continue
    opened.append(path)
print(json.dumps(opened))
"""

CONNECT = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
try:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /v1/status HTTP/1.0\\r\\nHost: orch\\r\\n\\r\\n")
    print(json.dumps(sock.recv(100).decode()))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.fixture
def opened(guarded: Guarded) -> Iterator[str]:
    """The control socket, as if somebody had opened its directory and itself to everybody."""
    directory = os.path.join(guarded.home.root, "run")
    path = os.path.join(directory, "control.sock")
    os.chmod(directory, 0o755)
    os.chmod(path, 0o666)
    yield path
    os.chmod(path, 0o600)
    os.chmod(directory, 0o700)


@as_root
def test_no_inference_route_of_the_engine_answers_another_user(guarded: Guarded) -> None:
    argv = guarded.engine_argv
    routes = [f"{'GET' if route.methods == ('GET',) else 'POST'} {path}" for path, route in ENGINE_ROUTES.items()]
    routes += ["GET /metrics", "POST /props", "POST /slots/0", "POST /lora-adapters", "GET /v1/models"]
    answers = as_nobody(ASK_ALL, argv[argv.index("--port") + 1], *routes)
    assert {route: codes for route, codes in answers.items() if codes != [401, 401]} == {}
    assert len(answers) > 25


@as_root
def test_no_file_of_ours_can_be_read_by_another_user(guarded: Guarded) -> None:
    argv = guarded.engine_argv
    key_file = argv[argv.index("--api-key-file") + 1]
    root = guarded.home.root
    names = [os.path.join(root, name) for name in ("config", "state", "data", "cache", "run", "run/keys")]
    files = [os.path.join(root, name) for name in ("config/keys", "state/events.jsonl", "state/logs/engine.log")]
    assert all(map(os.path.exists, [*names, *files, key_file]))
    assert as_nobody(OPEN_ALL, *names, *files, key_file) == []
    assert as_nobody(OPEN_ALL, root) == [root]  # else nothing was proven about what is below


def test_secrets_and_the_socket_are_for_their_owner_alone(guarded: Guarded) -> None:
    run = Path(guarded.home.root, "run")
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE((run / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (run / "keys").iterdir()} == {0o600}


@as_root
def test_the_control_socket_refuses_another_user_even_where_its_mode_does_not(opened: str) -> None:
    assert as_nobody(CONNECT, opened) in ("", "ConnectionResetError", "BrokenPipeError")


@as_root
def test_the_control_socket_cannot_be_reached_by_another_user(guarded: Guarded) -> None:
    assert as_nobody(CONNECT, os.path.join(guarded.home.root, "run", "control.sock")) == "PermissionError"


@pytest.mark.parametrize(
    ("uids", "answered"), [(None, True), ({os.geteuid()}, True), ({NOBODY}, False), (set(), False)]
)
def test_a_unix_socket_serves_the_users_it_is_meant_for(
    tmp_path_factory: pytest.TempPathFactory, uids: set[int] | None, answered: bool
) -> None:
    path = str(tmp_path_factory.mktemp("s") / "s")
    asked: list[Request] = []

    async def handler(request: Request, response: Response) -> None:
        asked.append(request)
        response.send(200, [], b"")

    async def work() -> None:
        server = HttpServer(handler, uids=uids)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        await server.serve(sock)
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(get("/", "Connection: close"))
            with contextlib.suppress(ConnectionError):
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ") is answered

            assert len(asked) == answered
        finally:
            writer.close()
            await server.shutdown(0.0)

    drive(work())


@as_root
@pytest.mark.parametrize("what", ["a directory", "a link"])
def test_a_place_that_another_user_prepared_is_refused(tmp_path: Path, what: str) -> None:
    place = tmp_path / "run"
    if what == "a directory":
        place.mkdir()
    else:
        (tmp_path / "mine").mkdir(mode=0o755)
        place.symlink_to(tmp_path / "mine")

    os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(PermissionError, match="another user"):
        make_private(str(place))

    if what == "a link":
        assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755
